"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 from the files that their authors publish.

Files that are there are read as they are, by this package's own readers: under the data folder, in
the data folder itself, or where a Linux distribution's package puts them. Missing ones are downloaded
by torchvision (an optional dependency, imported only then), which checks their checksums. The official
test set stays whole; validation is a stratified part of the training set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.base.errors import DataError, MissingDependencyError
from lgn_analysis.data.cifar import read_cifar_binary, read_cifar_pickle
from lgn_analysis.data.idx import read_idx
from lgn_analysis.data.splits import RawSplits, split_off_validation

DISTRIBUTION: Final = Path("/usr/share/datasets")
"""Where packages of Debian and its kin put data sets, each in a folder of its name."""

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Layout:
    """One form in which a data set may lie on disk, as torchvision or the archive unpacks it."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    read: Callable[[list[Path]], Images]
    suffixes: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class ImageSource:
    """An image data set: its sizes, and where its files may be.

    Attributes:
        package: the Debian package that holds it; None if there is none.
        first_labels: of the test set, where another data set has files of the same names.
    """

    torchvision_class: str
    n_pixels: int
    n_classes: int
    n_train: int
    n_val: int
    n_test: int
    layouts: tuple[Layout, ...]
    package: str | None = None
    first_labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Files:
    """The files of a data set that were found, all in one folder."""

    layout: Layout
    train: list[Path]
    test: list[Path]


def _read_idx_pair(paths: list[Path]) -> Images:
    images, labels = (
        read_idx(path, item_shape=shape) for path, shape in zip(paths, ((28, 28), ()), strict=True)
    )
    return images.reshape(len(images), -1), labels.astype(np.int64)


def _read_batches(paths: list[Path], *, read_batch: Callable[[Path], Images]) -> Images:
    batches = [read_batch(path) for path in paths]
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def _idx_source(
    torchvision_class: str, first_labels: tuple[int, ...], package: str | None = None
) -> ImageSource:
    layout = Layout(
        f"{torchvision_class}/raw",
        train=("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        test=("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        read=_read_idx_pair,
        suffixes=("", ".gz"),
    )
    sizes = (55_000, 5_000, 10_000)
    return ImageSource(torchvision_class, 784, 10, *sizes, (layout,), package, first_labels)


# The binary form comes first: it needs no pickle at all.
_CIFAR10 = (
    Layout(
        "cifar-10-batches-bin",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test=("test_batch.bin",),
        read=partial(_read_batches, read_batch=partial(read_cifar_binary, n_label_bytes=1)),
    ),
    Layout(
        "cifar-10-batches-py",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test=("test_batch",),
        read=partial(_read_batches, read_batch=partial(read_cifar_pickle, label_key="labels")),
    ),
)
_CIFAR100 = (
    Layout(
        "cifar-100-binary",
        train=("train.bin",),
        test=("test.bin",),
        read=partial(_read_batches, read_batch=partial(read_cifar_binary, n_label_bytes=2)),
    ),
    Layout(
        "cifar-100-python",
        train=("train",),
        test=("test",),
        read=partial(_read_batches, read_batch=partial(read_cifar_pickle, label_key="fine_labels")),
    ),
)

SOURCES: Final[dict[str, ImageSource]] = {
    "mnist": _idx_source("MNIST", (7, 2, 1, 0, 4, 1, 4, 9, 5, 9)),
    "fashion-mnist": _idx_source(
        "FashionMNIST", (9, 2, 1, 1, 6, 1, 4, 6, 5, 7), "dataset-fashion-mnist"
    ),
    "cifar10": ImageSource("CIFAR10", 3072, 10, 45_000, 5_000, 10_000, _CIFAR10),
    "cifar100": ImageSource("CIFAR100", 3072, 100, 45_000, 5_000, 10_000, _CIFAR100),
}


def load_images(root: Path, download: bool, split_seed: int, *, name: str) -> RawSplits:
    """Return an image data set of ``SOURCES`` as pixels 0 … 255, channel by channel, row by row.

    Args:
        root: the data folder.
        download: whether missing files may be downloaded.
        split_seed: chooses the validation images.
        name: a key of ``SOURCES``.

    Raises:
        DataError: files missing, torn, foreign, or fewer or more images than published.
        MissingDependencyError: files missing and torchvision not usable.
    """
    source = SOURCES[name]
    found = find_images(name, root)
    if found is None and download:
        _download(name, root)
        found = find_images(name, root)
    if found is None:
        folders = " or ".join(str(root / layout.folder) for layout in source.layouts)
        names = ", ".join(source.layouts[0].train + source.layouts[0].test)
        raise DataError(
            f"the files of {name!r} are not in {folders}; put them there (the first would hold "
            f"{names}){_by_package(source)}, or load with download=True"
        )
    x_train, y_train = _checked(found.layout, found.train, source.n_train + source.n_val, source)
    x_test, y_test = _checked(found.layout, found.test, source.n_test, source)
    return split_off_validation(
        x_train, y_train, x_test, y_test, n_val=source.n_val, seed=split_seed
    )


def find_images(name: str, root: Path) -> Files | None:
    """Return the files of a data set of ``SOURCES``; None where some are missing.

    In the folder of its own under ``root``, by torchvision's or the data set's name; in ``root``
    itself, where they are no other data set's; or in that of a Linux distribution's package.
    """
    source = SOURCES[name]
    for layout in source.layouts:
        for folder in (root / layout.folder, root / name, root, DISTRIBUTION / name):
            found = _files_in(folder, layout)
            if found and (folder != root or _is_of(found, source)):
                return found
    return None


def _files_in(folder: Path, layout: Layout) -> Files | None:
    found = [
        next((p for s in layout.suffixes if (p := folder / (name + s)).is_file()), None)
        for name in (*layout.train, *layout.test)
    ]
    paths = [path for path in found if path is not None]
    if len(paths) < len(found):
        return None
    n_train = len(layout.train)
    return Files(layout, paths[:n_train], paths[n_train:])


def _is_of(found: Files, source: ImageSource) -> bool:
    """Return whether files of names that several data sets have hold this one's labels."""
    n = len(source.first_labels)
    return (
        not n or tuple(read_idx(found.test[1], item_shape=())[:n].tolist()) == source.first_labels
    )


def _by_package(source: ImageSource) -> str:
    return f", install Debian's package {source.package}" if source.package else ""


def _checked(layout: Layout, paths: list[Path], n_expected: int, source: ImageSource) -> Images:
    x, y = layout.read(paths)
    where = paths[0] if len(paths) == 1 else f"{paths[0]} … {paths[-1].name}"
    if len(x) != n_expected or len(y) != n_expected:
        raise DataError(
            f"{where} should hold {n_expected} images and labels, got {len(x)} and {len(y)}; "
            "delete and download again"
        )
    if y.min() < 0 or y.max() >= source.n_classes:
        raise DataError(
            f"{where} should hold labels 0 … {source.n_classes - 1}, got {y.min()} … {y.max()}; "
            "it is another data set's"
        )
    return x, y


def _download(name: str, root: Path) -> None:
    try:
        import torchvision
    # A torchvision built for another torch fails with RuntimeError.
    except (ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"{name!r} is not under {root} and is downloaded through torchvision, which cannot be "
            f"imported ({error}); install the one that fits your torch, for instance with "
            f"pip install 'lgn_analysis[vision]'{_by_package(SOURCES[name])}, or put the data set's files "
            "there yourself"
        ) from error
    dataset_class = getattr(torchvision.datasets, SOURCES[name].torchvision_class)
    root.mkdir(parents=True, exist_ok=True)
    try:
        for train in (True, False):
            dataset_class(root=str(root), train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{name!r} could not be downloaded to {root} ({error}); try again later, or put the "
            "data set's files there yourself"
        ) from error
