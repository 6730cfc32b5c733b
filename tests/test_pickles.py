"""Nothing that is read is unpickled: a pickle that would act, in the place of any file, does nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis import report
from lgn_analysis.base.errors import LGNError
from lgn_analysis.cli import main
from lgn_analysis.data import Dataset
from lgn_analysis.experiments.sweep.cache import RunCache
from lgn_analysis.experiments.sweep.failures import SUFFIX, read_failure
from lgn_analysis.report.provenance import read_facts
from lgn_analysis.training.config_files import read_config
from tests.experiments.sweep_program import tiny_specs
from tests.tiny import fresh, short

Reader = Callable[[Path], object]


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def as_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps({b"data": Bomb(mark), b"labels": [0]}))


def as_torch_file(path: Path, mark: Path) -> None:
    torch.save({"model": Bomb(mark)}, path)


def as_text_pickle(path: Path, mark: Path) -> None:
    """Protocol 0 is plain text, which a reader of text would get to see."""
    path.write_bytes(pickle.dumps(Bomb(mark), protocol=0))


def as_yaml_tag(path: Path, mark: Path) -> None:
    path.write_text(f"dataset: !!python/object/apply:pathlib.Path.touch [{mark}]\n")


WRITERS = [as_pickle, as_torch_file, as_text_pickle, as_yaml_tag]


def raw(name: str) -> Reader:
    """Return a reader of the data set ``name`` from the files under a folder."""
    return lambda path: lgn.load_dataset(name, root=folder_of(path))


def folder_of(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "root")


def record(path: Path) -> object:
    """Read a cache that holds the record of one run, a part of it replaced."""
    (spec,) = tiny_specs(1)
    path.parent.rename(path.parent.with_name(spec.key))
    return RunCache(path.parents[1]).records([spec])


READERS: dict[str, tuple[str, Reader]] = {
    "checkpoint": ("m.safetensors", lgn.load),
    "run": ("run/last.safetensors", lambda path: lgn.resume(path.parent, progress=False)),
    "history": ("run/last.safetensors", lambda path: lgn.read_history(path.parent)),
    "configuration": ("config.toml", read_config),
    "the paper's configuration": ("config.yaml", read_config),
    "spec of a record": ("key/spec.json", record),
    "failure of a run": (f"k{SUFFIX}", lambda path: read_failure(path.parent, "k")),
    "facts of a figure": ("gap.json", lambda path: read_facts(path.parent, "gap")),
    "rows of a figure": ("gap.csv", lambda path: report.draw("gap", path.parent)),
    "ledger": ("claims.csv", lambda path: report.read_ledger(path.parent)),
    "breast cancer": ("root/breast-cancer/breast-cancer.data", raw("breast-cancer")),
    "adult": ("root/adult/adult.data", raw("adult")),
    "mnist": ("root/MNIST/raw/train-images-idx3-ubyte", raw("mnist")),
    "cifar10": ("root/cifar-10-batches-py/data_batch_1", raw("cifar10")),
    "cifar100": ("root/cifar-100-python/train", raw("cifar100")),
}

BESIDE = {
    "adult": ["adult.test"],
    "mnist": ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
    "cifar10": [*(f"data_batch_{i}" for i in range(2, 6)), "test_batch"],
    "cifar100": ["test"],
}


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("place", READERS)
def test_a_pickle_in_the_place_of_a_file_does_nothing(
    tmp_path: Path, place: str, write: Callable[[Path, Path], None]
) -> None:
    name, read = READERS[place]
    path, mark = tmp_path / name, tmp_path / "mark"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, mark)
    for other in BESIDE.get(place, []):
        write(path.with_name(other), mark)
    with pytest.raises(LGNError) as caught:
        read(path)
    assert not mark.exists()
    assert "not there" not in str(caught.value), "the file must have been read"


def test_the_bomb_is_one(tmp_path: Path) -> None:
    as_pickle(tmp_path / "bomb", tmp_path / "mark")
    pickle.loads((tmp_path / "bomb").read_bytes())
    assert (tmp_path / "mark").exists()


def test_a_command_refuses_a_pickle_as_everything_else_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_torch_file(tmp_path / "m.safetensors", tmp_path / "mark")
    assert main(["evaluate", str(tmp_path / "m.safetensors"), "--dataset", "digits"]) == 2
    assert "is not a whole safetensors file" in capsys.readouterr().err
    assert not (tmp_path / "mark").exists()


def test_a_name_in_a_configuration_leads_nowhere_else(
    separable_data: Dataset, tmp_path: Path
) -> None:
    """The only names in it are looked up, so none becomes a path."""
    short(fresh(), separable_data, steps=2, out=tmp_path / "run")
    before = set(tmp_path.rglob("*"))
    text = (tmp_path / "run" / "config.toml").read_text()
    for name in ("../outside", str(tmp_path / "outside"), "..\\\\outside"):
        path = tmp_path / "run" / "config.toml"
        path.write_text(text.replace('"separable"', f'"{name}"'))
        assert main(["train", "--config", str(path), "--no-progress"]) == 2
    assert set(tmp_path.rglob("*")) == before
