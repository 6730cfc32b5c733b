"""A data set: bits and classes in a training, a validation and a test split."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lgn_analysis.base.errors import DataError
from lgn_analysis.base.memory import require_memory
from lgn_analysis.base.validation import shown, usable_device, whole

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Binary features and classes in a training, a validation and a test split.

    Build one with :func:`load_dataset`, or from your own arrays with :meth:`from_arrays`. Validation
    data picks the best checkpoint; test data is only reported.

    Attributes:
        x_train, x_val, x_test: bool [n, n_features].
        y_train, y_val, y_test: int64 [n], classes 0 … n_classes - 1.
        n_classes: number of classes.
        name: what ``load_dataset`` calls it, or the name of your own data.
        thresholds: the thresholds behind the bits, in the data's own scale; None where the data
            came as bits. ``load_dataset(name, thresholds=list(data.thresholds))`` gives the same
            data again, so they can be recorded.
        split_seed: the seed of the split, None for your own data.
        labels: whether the training labels are the true ones; else how they were changed, and
            ``label_seed`` by which draw: :func:`lgn_analysis.data.relabelled`.
    """

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor
    n_classes: int
    name: str
    thresholds: tuple[float, ...] | None = None
    split_seed: int | None = None
    labels: str = "true"
    label_seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise DataError(f"name must be a string, got {shown(self.name)}")
        for split in SPLITS:
            _check_split(split, *self.split(split), self.n_features)
        n_classes = whole("n_classes", self.n_classes, least=2, error=DataError)
        object.__setattr__(self, "n_classes", n_classes)
        for split in SPLITS:
            _check_labels(split, self.split(split)[1], n_classes)

    @classmethod
    def from_arrays(
        cls,
        x_train: Any,
        y_train: Any,
        x_val: Any,
        y_val: Any,
        x_test: Any,
        y_test: Any,
        *,
        name: str,
        n_classes: int | None = None,
    ) -> Dataset:
        """Check and convert your own data: tensors, NumPy arrays, data frames or nested lists.

        Tensors that are bool and int64 already are taken as they are; everything else is copied.

        Args:
            x_train, x_val, x_test: [n, n_features] of 0 and 1, in any dtype. Encode other values
                first, with :func:`thermometer`.
            y_train, y_val, y_test: [n] whole numbers 0 … n_classes - 1.
            name: a name for reports and checkpoints.
            n_classes: number of classes; by default the largest label plus one.

        Raises:
            DataError: NaN or other values than 0 and 1, labels out of range, lengths that do not
                match, an empty split.

        >>> x, y = [[0, 1], [1, 1]], [0, 1]
        >>> Dataset.from_arrays(x, y, x, y, x, y, name="toy")
        Dataset('toy', n_features=2, n_classes=2, train=2, val=2, test=2)
        """
        x = dict(zip(SPLITS, (x_train, x_val, x_test), strict=True))
        y = dict(zip(SPLITS, (y_train, y_val, y_test), strict=True))
        features: dict[str, Any] = {
            f"x_{split}": _as_bits(x[split], f"x_{split}") for split in SPLITS
        }
        labels: dict[str, Any] = {
            f"y_{split}": _as_labels(y[split], f"y_{split}") for split in SPLITS
        }
        if n_classes is None:
            n_classes = 1 + max((int(y.max()) for y in labels.values() if y.numel()), default=0)
        return cls(**features, **labels, n_classes=n_classes, name=name)

    @property
    def n_features(self) -> int:
        return self.x_train.shape[-1] if self.x_train.ndim else 0

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Return ``(x, y)`` of ``"train"``, ``"val"`` or ``"test"``."""
        if name not in SPLITS:
            raise DataError(f"unknown split {name!r}; use 'train', 'val' or 'test'")
        return getattr(self, f"x_{name}"), getattr(self, f"y_{name}")

    def to(self, device: torch.device | str) -> Dataset:
        """Return the same data on ``device``."""
        device = usable_device(device)
        moved = {
            f"{kind}_{split}": getattr(self, f"{kind}_{split}").to(device)
            for split in SPLITS
            for kind in ("x", "y")
        }
        return replace(self, **moved)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the six arrays and n_classes: equal exactly where the data is.

        Computed when first asked for; the name, the thresholds and the device do not enter, and it
        is the same on every platform.
        """
        digest = hashlib.sha256(f"lgn_analysis data 1, {self.n_classes} classes".encode())
        for split in SPLITS:
            x, y = self.split(split)
            digest.update(f"; {split} {tuple(x.shape)}".encode())
            digest.update(x.cpu().contiguous().view(torch.uint8).flatten().numpy().data)
            digest.update(y.cpu().numpy().astype("<i8").data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        parts = [repr(self.name), f"n_features={self.n_features}", f"n_classes={self.n_classes}"]
        parts += [f"{split}={len(self.split(split)[1])}" for split in SPLITS]
        if self.thresholds is not None:
            parts.append(f"thresholds={_short(self.thresholds)}")
        if self.labels != "true":
            parts.append(f"{self.labels} training labels")
        return f"Dataset({', '.join(parts)})"


def _short(thresholds: tuple[float, ...]) -> str:
    if len(thresholds) <= 4:
        return "[" + ", ".join(f"{t:g}" for t in thresholds) + "]"
    return f"[{thresholds[0]:g}, …, {thresholds[-1]:g}] ({len(thresholds)})"


def _check_split(split: str, x: Tensor, y: Tensor, n_features: int) -> None:
    """Raise unless ``x`` is bool [n, n_features] and ``y`` int64 [n], n and n_features > 0."""
    if x.dtype != torch.bool or y.dtype != torch.int64:
        raise DataError(
            f"x_{split} must be bool and y_{split} int64, got {x.dtype} and {y.dtype}; "
            "Dataset.from_arrays converts them"
        )
    if x.ndim != 2 or y.ndim != 1:
        raise DataError(
            f"x_{split} must be [n, n_features] and y_{split} [n], got shapes {tuple(x.shape)} and "
            f"{tuple(y.shape)}; flatten images, and give labels as class numbers"
        )
    if len(x) != len(y):
        raise DataError(
            f"x_{split} has {len(x)} samples and y_{split} has {len(y)} labels; give one label per "
            "sample"
        )
    if len(x) == 0:
        raise DataError(f"the {split} split is empty; give it at least one sample")
    if x.shape[1] != n_features or n_features == 0:
        raise DataError(
            f"x_{split} has {x.shape[1]} features and x_train {n_features}; every split needs the "
            "same features, at least one"
        )


def _check_labels(split: str, y: Tensor, n_classes: int) -> None:
    """Raise unless the labels lie in 0 … n_classes - 1."""
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= n_classes:
        raise DataError(
            f"labels must be 0 … {n_classes - 1}, y_{split} holds {low if low < 0 else high}; "
            "number the classes from 0, or raise n_classes"
        )


def check_holds_values(what: str, tensor: Tensor) -> None:
    """Raise where a tensor is sparse or on the meta device, so that its values cannot be read."""
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "without values" if tensor.is_meta else "sparse"
        raise DataError(f"{what} must be a dense tensor, got one that is {kind}")


def _as_tensor(values: Any, what: str) -> Tensor:
    """Return ``values`` as a tensor of real numbers; whatever is no tensor is copied."""
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
            raise DataError(f"{what} holds masked values; fill or drop them first")
        try:
            array = np.asarray(values)
        except ValueError as error:  # rows of different lengths
            raise DataError(f"{what} is not a rectangular array: {error}") from None
        if array.dtype.kind not in "biuf":
            raise DataError(f"{what} must hold numbers, got dtype {array.dtype}")
        if array.dtype == np.longdouble and array.dtype != np.float64:
            array = array.astype(np.float64)  # PyTorch has nothing wider
        tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))
    if tensor.is_complex():
        raise DataError(f"{what} must hold real numbers, got dtype {tensor.dtype}")
    check_holds_values(what, tensor)
    return tensor


def _as_bits(values: Any, what: str) -> Tensor:
    tensor = _as_tensor(values, what)
    if tensor.dtype == torch.bool:
        return tensor
    require_memory(
        3 * tensor.numel(),
        f"the checks of {what}, {list(tensor.shape)} numbers that are to be bits,",
        "give it as bool",
        device=tensor.device,
        error=DataError,
    )
    if tensor.is_floating_point() and bool(tensor.isnan().any()):
        raise DataError(f"{what} holds NaN; fill or drop the missing values first")
    foreign = (tensor != 0) & (tensor != 1)
    if bool(foreign.any()):
        place = tuple(foreign.nonzero()[0].tolist())
        raise DataError(
            f"{what} must hold only 0 and 1, got {tensor[place].item():g} at {place}; encode it "
            "first, for instance with thermometer(x, thresholds)"
        )
    return tensor != 0


def _as_labels(values: Any, what: str) -> Tensor:
    tensor = _as_tensor(values, what)
    if tensor.is_floating_point():
        # Above 2**53 a float64 is no one whole number any more.
        right = tensor.isfinite() & (tensor == tensor.round()) & (tensor.abs() <= 2**53)
        if not bool(right.all()):
            wrong = tensor[~right][0].item()
            raise DataError(f"{what} must hold whole class numbers, got {wrong:g}")
    elif tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
        raise DataError(f"{what} must hold class numbers below 2**63; number them from 0")
    return tensor.to(torch.int64)
