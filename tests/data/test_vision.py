from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from lgn_analysis.base.errors import DataError, MissingDependencyError
from lgn_analysis.data import DATASETS, load_dataset, vision

RNG = np.random.Generator(np.random.Philox(1))
N_TRAIN, N_VAL, N_TEST = 20, 5, 10
GREY = RNG.integers(0, 256, size=(N_TRAIN + N_VAL + N_TEST, 28, 28)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, size=(N_TRAIN + N_VAL + N_TEST, 3, 32, 32)).astype(np.uint8)
TRAIN, TEST = slice(N_TRAIN + N_VAL), slice(N_TRAIN + N_VAL, None)
LABELS = np.arange(N_TRAIN + N_VAL + N_TEST) % 10


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """The same sources, published with a few images only."""
    for name, source in vision.SOURCES.items():
        small = dataclasses.replace(source, n_train=N_TRAIN, n_val=N_VAL, n_test=N_TEST)
        monkeypatch.setitem(vision.SOURCES, name, small)


@pytest.fixture(autouse=True)
def no_torchvision(monkeypatch):
    """An import of torchvision fails unless a test puts one here."""
    monkeypatch.setitem(sys.modules, "torchvision", None)


@pytest.fixture(autouse=True)
def no_packages(monkeypatch, tmp_path_factory):
    """No package of the distribution has put a data set on this machine."""
    folder = tmp_path_factory.mktemp("packages")
    monkeypatch.setattr(vision, "DISTRIBUTION", folder)
    return folder


@pytest.fixture
def write_mnist(write_idx):
    def write(folder: Path, suffix: str = ".gz"):
        for kind, part in (("train", TRAIN), ("t10k", TEST)):
            write_idx(folder / f"{kind}-images-idx3-ubyte{suffix}", GREY[part])
            write_idx(folder / f"{kind}-labels-idx1-ubyte{suffix}", LABELS[part])

    return write


@pytest.fixture
def write_cifar(write_cifar_binary, write_cifar_pickle):
    """Write CIFAR-10 or CIFAR-100 in either form."""
    flat = COLOUR.reshape(len(COLOUR), 3072)

    def write(root: Path, name: str, form: str):
        if name == "cifar10":
            parts = [(f"data_batch_{i + 1}", slice(5 * i, 5 * i + 5)) for i in range(5)]
            parts.append(("test_batch", TEST))
        else:
            parts = [("train", TRAIN), ("test", TEST)]
        stem = "cifar-10-batches" if name == "cifar10" else "cifar-100"
        coarse = LABELS // 5
        for file, part in parts:
            if form == "binary":
                folder = root / (f"{stem}-bin" if name == "cifar10" else f"{stem}-binary")
                columns = (LABELS,) if name == "cifar10" else (coarse, LABELS)
                write_cifar_binary(folder / f"{file}.bin", flat[part], *(c[part] for c in columns))
            else:
                folder = root / (f"{stem}-py" if name == "cifar10" else f"{stem}-python")
                labels = (
                    {"labels": LABELS[part]}
                    if name == "cifar10"
                    else {"fine_labels": LABELS[part], "coarse_labels": coarse[part]}
                )
                write_cifar_pickle(folder / file, flat[part], **labels)

    return write


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_become_bits_above_one_half(tmp_path, write_mnist, name, folder, suffix):
    write_mnist(tmp_path / folder / "raw", suffix)
    data = load_dataset(name, root=tmp_path, download=False)
    expected = torch.from_numpy(GREY[TEST]).float().div(255) > 0.5
    assert torch.equal(data.x_test, expected.flatten(1))
    assert data.y_test.tolist() == LABELS[TEST].tolist()
    assert [len(data.split(s)[1]) for s in ("train", "val", "test")] == [N_TRAIN, N_VAL, N_TEST]


def test_mnist_is_not_taken_for_fashion_mnist(tmp_path, write_mnist):
    write_mnist(tmp_path / "MNIST" / "raw")
    with pytest.raises(DataError, match="files of 'fashion-mnist' are not in"):
        load_dataset("fashion-mnist", root=tmp_path, download=False)


@pytest.mark.parametrize("place", ["root", "name", "package"])
def test_files_are_found_by_any_way_to_name_their_folder(tmp_path, write_idx, no_packages, place):
    """torchvision's folder is tried above; here the data folder itself, its name, and Debian's."""
    folders = {"root": tmp_path, "name": tmp_path / "fashion-mnist"}
    where = folders.get(place, no_packages / "fashion-mnist")
    first = vision.SOURCES["fashion-mnist"].first_labels
    for kind, part in (("train", TRAIN), ("t10k", TEST)):
        write_idx(where / f"{kind}-images-idx3-ubyte.gz", GREY[part])
        labels = LABELS[part] if kind == "train" else np.array(first)
        write_idx(where / f"{kind}-labels-idx1-ubyte.gz", labels)
    data = load_dataset("fashion-mnist", root=tmp_path, download=False)
    assert tuple(data.y_test.tolist()) == first
    assert DATASETS["fashion-mnist"].find(tmp_path) == where
    assert DATASETS["mnist"].find(tmp_path) is None


def test_a_machine_without_fashion_mnist_is_told_the_package(tmp_path):
    with pytest.raises(MissingDependencyError, match="Debian's package dataset-fashion-mnist"):
        load_dataset("fashion-mnist", root=tmp_path)
    with pytest.raises(DataError, match="Debian's package dataset-fashion-mnist"):
        load_dataset("fashion-mnist", root=tmp_path, download=False)


@pytest.mark.parametrize("n_thresholds", [3, 31])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("form", ["binary", "pickle"])
def test_cifar_bits_are_the_papers_transform(tmp_path, write_cifar, name, form, n_thresholds):
    """ToTensor, then ``cat([x > (i + 1)/(n + 1)], dim=channel)``, then flatten."""
    write_cifar(tmp_path, name, form)
    data = load_dataset(name, n_thresholds, root=tmp_path, download=False)
    x = torch.from_numpy(COLOUR[TEST]).float().div(255)
    levels = [(i + 1) / (n_thresholds + 1) for i in range(n_thresholds)]
    expected = torch.cat([x > t for t in levels], dim=1).flatten(1)
    assert torch.equal(data.x_test, expected)
    assert data.y_test.tolist() == LABELS[TEST].tolist()
    assert data.thresholds == tuple(levels)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_both_forms_of_cifar_are_the_same_data(tmp_path, write_cifar, name):
    for form in ("binary", "pickle"):
        write_cifar(tmp_path / form, name, form)
    binary, pickled = (
        load_dataset(name, root=tmp_path / form, download=False) for form in ("binary", "pickle")
    )
    assert binary.fingerprint == pickled.fingerprint


def test_validation_is_taken_from_training_images_with_their_labels(tmp_path, write_mnist):
    write_mnist(tmp_path / "MNIST" / "raw")
    data = load_dataset("mnist", root=tmp_path, download=False)
    bits = (GREY[TRAIN] > 127).reshape(N_TRAIN + N_VAL, -1)
    original = {row.tobytes(): label for row, label in zip(bits, LABELS[TRAIN], strict=True)}
    loaded = {}
    for split in ("train", "val"):
        for x, y in zip(*data.split(split), strict=True):
            loaded[x.numpy().tobytes()] = int(y)
    assert loaded == original


def test_a_batch_with_too_few_images_is_refused(tmp_path, write_cifar, write_cifar_binary):
    write_cifar(tmp_path, "cifar10", "binary")
    short = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    short.write_bytes(short.read_bytes()[: 2 * 3073])
    with pytest.raises(
        DataError, match=r"data_batch_1.bin … data_batch_5.bin should hold 25 images.*got 22"
    ):
        load_dataset("cifar10", root=tmp_path, download=False)


def test_labels_of_another_data_set_are_refused(tmp_path, write_mnist, write_idx):
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder)
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", LABELS[TEST] + 5)
    with pytest.raises(DataError, match="should hold labels 0 … 9, got 5 … 14"):
        load_dataset("mnist", root=tmp_path, download=False)


def test_missing_files_are_named_with_the_folder(tmp_path, write_cifar):
    write_cifar(tmp_path, "cifar10", "pickle")
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"cifar-10-batches-bin or .*cifar-10-batches-py; put them"):
        load_dataset("cifar10", root=tmp_path, download=False)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_without_torchvision_the_message_says_how_to_install_it(tmp_path, name):
    with pytest.raises(MissingDependencyError, match=r"pip install 'lgn_analysis\[vision\]'"):
        load_dataset(name, root=tmp_path)


class BrokenFinder:
    """An import of torchvision fails as one built for another torch does."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")


def test_a_torchvision_that_does_not_fit_is_a_missing_dependency(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [BrokenFinder(), *sys.meta_path])
    with pytest.raises(MissingDependencyError, match="torchvision::nms does not exist"):
        load_dataset("mnist", root=tmp_path)


def install_torchvision(monkeypatch, **dataset_classes):
    module = types.ModuleType("torchvision")
    module.datasets = types.SimpleNamespace(**dataset_classes)
    monkeypatch.setitem(sys.modules, "torchvision", module)


def test_torchvision_downloads_what_is_missing_and_only_then(tmp_path, monkeypatch, write_mnist):
    calls = []

    def fake_mnist(root, train, download):
        calls.append((root, train, download))
        write_mnist(Path(root) / "MNIST" / "raw", "")

    install_torchvision(monkeypatch, MNIST=fake_mnist)
    first = load_dataset("mnist", root=tmp_path / "new")
    again = load_dataset("mnist", root=tmp_path / "new")
    assert calls == [(str(tmp_path / "new"), train, True) for train in (True, False)]
    assert first.fingerprint == again.fingerprint


def test_a_download_that_fails_says_so(tmp_path, monkeypatch):
    def unreachable(**options):
        raise OSError("no route to host")

    install_torchvision(monkeypatch, CIFAR10=unreachable)
    with pytest.raises(DataError, match=r"'cifar10' could not be downloaded .*no route to host"):
        load_dataset("cifar10", root=tmp_path)
