"""Arrays and files that are no data, and all that is said of them.

``{file}`` stands for a file's path, and a last … for what a library adds in words of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from lgn_analysis.data import evenly_spaced_thresholds, load_dataset, thermometer

X: Final = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 1]])
Y: Final = np.array([0, 1, 2, 1])
_REALS: Final = torch.arange(12.0).reshape(3, 4) / 12


@dataclass(frozen=True)
class Arrays:
    """Arguments of ``Dataset.from_arrays`` beside good ones.

    Attributes:
        name: what is wrong with them.
        given: by name.
        sentence: what is said, in full.
    """

    name: str
    given: dict[str, Any]
    sentence: str


_SHAPES: Final = "; flatten images, and give labels as class numbers"
_ENCODE: Final = "; encode it first, for instance with thermometer(x, thresholds)"

ARRAYS: Final = [
    Arrays(
        "no batch",
        {"x_train": X[0], "y_train": Y[0]},
        f"x_train must be [n, n_features] and y_train [n], got shapes (3,) and (){_SHAPES}",
    ),
    Arrays(
        "a single number",
        {"x_train": np.array(1)},
        f"x_train must be [n, n_features] and y_train [n], got shapes () and (4,){_SHAPES}",
    ),
    Arrays(
        "images",
        {"x_val": X[None]},
        f"x_val must be [n, n_features] and y_val [n], got shapes (1, 4, 3) and (4,){_SHAPES}",
    ),
    Arrays(
        "one-hot labels",
        {"y_test": np.eye(3)[Y]},
        f"x_test must be [n, n_features] and y_test [n], got shapes (4, 3) and (4, 3){_SHAPES}",
    ),
    Arrays("counts", {"x_test": 2 * X}, f"x_test must hold only 0 and 1, got 2 at (0, 1){_ENCODE}"),
    Arrays(
        "grey values", {"x_val": X / 2}, f"x_val must hold only 0 and 1, got 0.5 at (0, 1){_ENCODE}"
    ),
    Arrays(
        "infinity",
        {"x_val": np.where(X == 1, np.inf, 0.0)},
        f"x_val must hold only 0 and 1, got inf at (0, 1){_ENCODE}",
    ),
    Arrays(
        "missing values",
        {"x_train": np.where(X == 1, np.nan, 0.0)},
        "x_train holds NaN; fill or drop the missing values first",
    ),
    Arrays(
        "masked values",
        {"x_train": np.ma.masked_equal(X, 1)},
        "x_train holds masked values; fill or drop them first",
    ),
    Arrays("texts", {"x_train": X.astype(str)}, "x_train must hold numbers, got dtype <U21"),
    Arrays("objects", {"x_train": [None] * 4}, "x_train must hold numbers, got dtype object"),
    Arrays(
        "complex numbers",
        {"x_train": torch.ones(4, 3, dtype=torch.complex64)},
        "x_train must hold real numbers, got dtype torch.complex64",
    ),
    Arrays(
        "rows of two lengths", {"x_train": [[0, 1], [1]]}, "x_train is not a rectangular array: …"
    ),
    Arrays(
        "a sparse tensor",
        {"x_train": torch.from_numpy(X).to_sparse()},
        "x_train must be a dense tensor, got one that is sparse",
    ),
    Arrays(
        "a tensor without values",
        {"x_train": torch.zeros(4, 3, device="meta")},
        "x_train must be a dense tensor, got one that is without values",
    ),
    Arrays(
        "fewer labels than samples",
        {"y_val": Y[:2]},
        "x_val has 4 samples and y_val has 2 labels; give one label per sample",
    ),
    Arrays(
        "an empty split",
        {"x_val": X[:0], "y_val": Y[:0]},
        "the val split is empty; give it at least one sample",
    ),
    Arrays(
        "other features in one split",
        {"x_test": X[:, :2]},
        "x_test has 2 features and x_train 3; every split needs the same features, at least one",
    ),
    Arrays(
        "no features",
        {"x_train": X[:, :0], "x_val": X[:, :0], "x_test": X[:, :0]},
        "x_train has 0 features and x_train 0; every split needs the same features, at least one",
    ),
    Arrays(
        "labels from -1",
        {"y_test": Y - 1},
        "labels must be 0 … 2, y_test holds -1; number the classes from 0, or raise n_classes",
    ),
    Arrays(
        "more classes than n_classes",
        {"n_classes": 2},
        "labels must be 0 … 1, y_train holds 2; number the classes from 0, or raise n_classes",
    ),
    Arrays(
        "labels between classes",
        {"y_train": Y + 0.5},
        "y_train must hold whole class numbers, got 0.5",
    ),
    Arrays(
        "a missing label",
        {"y_train": np.array([0, 1, np.nan, 2])},
        "y_train must hold whole class numbers, got nan",
    ),
    Arrays(
        "a label beyond every integer",
        {"y_train": np.array([0, 1, 1e30, 2])},
        "y_train must hold whole class numbers, got 1e+30",
    ),
    Arrays(
        "a label that wraps around",
        {"y_train": np.array([0, 1, 2**64 - 1, 2], dtype=np.uint64)},
        "y_train must hold class numbers below 2**63; number them from 0",
    ),
    Arrays(
        "names of classes", {"y_train": list("abca")}, "y_train must hold numbers, got dtype <U1"
    ),
    Arrays("one class", {"n_classes": 1}, "n_classes must be at least 2, got 1"),
    Arrays("classes as a float", {"n_classes": 3.0}, "n_classes must be a whole number, got 3.0"),
    Arrays("classes as NaN", {"n_classes": np.nan}, "n_classes must be a whole number, got nan"),
    Arrays("a number for a name", {"name": 3}, "name must be a string, got 3"),
]


@dataclass(frozen=True)
class Call:
    """A call that cannot be answered, and what is said, in full."""

    name: str
    work: Callable[[], object]
    sentence: str


_AVAILABLE: Final = (
    "available: digits, mnist5k, monk1, monk2, monk3, mnist, fashion-mnist, cifar10, cifar100, adult, "
    "breast-cancer"
)
_NO_NUMBERS: Final = "thresholds must be an integer or a sequence of numbers, got "


def _encoded(name: str, x: Any, thresholds: Any, sentence: str) -> Call:
    return Call(f"thermometer of {name}", partial(thermometer, x, thresholds), sentence)


def _loaded(sentence: str, name: Any, *thresholds: Any, **options: Any) -> Call:
    what = ", ".join(map(repr, (name, *thresholds, *options.values())))
    return Call(
        f"load_dataset({what})", partial(load_dataset, name, *thresholds, **options), sentence
    )


CALLS: Final = [
    _encoded(
        "an array",
        X,
        [0.5],
        "x must be a tensor [n, values], got ndarray; convert it, for instance by torch.as_tensor",
    ),
    _encoded(
        "one sample",
        _REALS[0],
        [0.5],
        "x must be [n, values], got shape (4,); add a batch dimension",
    ),
    _encoded("bits", _REALS > 0.5, [0.5], "x must hold real numbers, got dtype torch.bool"),
    _encoded(
        "missing values",
        _REALS * torch.nan,
        [0.5],
        "x holds NaN, which is neither above nor below a threshold; fill it first",
    ),
    _encoded(
        "what PyTorch cannot compare",
        _REALS.to(torch.uint64),
        [0.5],
        "PyTorch compares no torch.uint64; convert x, for instance to torch.int64",
    ),
    _encoded(
        "no thresholds",
        _REALS,
        [],
        "thresholds is empty; give at least one, or None for the default",
    ),
    _encoded("infinity", _REALS, [0.1, torch.inf], "thresholds must be finite, got [0.1, inf]"),
    _encoded(
        "falling thresholds",
        _REALS,
        [0.5, 0.25],
        "thresholds must be in increasing order, got [0.5, 0.25]; sort them",
    ),
    _encoded("a count", _REALS, 3, f"{_NO_NUMBERS}3"),
    _encoded("a text", _REALS, "31", f"{_NO_NUMBERS}'31'"),
    _encoded("truth values", _REALS, [True], f"{_NO_NUMBERS}[True]"),
    Call(
        "thermometer in another order",
        partial(thermometer, _REALS, [0.5], order="pixel-major"),  # type: ignore[arg-type]
        "unknown order 'pixel-major'; use 'threshold-major' or 'feature-major'",
    ),
    Call(
        "half a threshold",
        partial(evenly_spaced_thresholds, 2.5),  # type: ignore[arg-type]
        "the number of thresholds must be a whole number, got 2.5",
    ),
    Call(
        "a falling range",
        partial(evenly_spaced_thresholds, 3, value_range=(1.0, 0.0)),
        "value_range must rise between two finite numbers, got 1.0 to 0.0",
    ),
    _loaded(f"unknown dataset 'digit'; did you mean 'digits'? {_AVAILABLE}", "digit"),
    _loaded(f"unknown dataset ['digits']; did you mean 'digits'? {_AVAILABLE}", ["digits"]),
    _loaded("the number of thresholds must be at least 1, got 0", "digits", 0),
    _loaded(
        "thresholds of 'digits' must lie in [0, 16), the range of its values, got 16; outside it every "
        "bit would be the same",
        "digits",
        [3, 16],
    ),
    _loaded("thresholds must differ, got [1, 1]; drop the repeated ones", "digits", [1, 1]),
    _loaded(f"{_NO_NUMBERS}'15'", "digits", "15"),
    _loaded("'monk1' comes as bits already; leave thresholds out", "monk1", 3),
    _loaded("split_seed must be in 0 … 2^64-1, got -1", "digits", split_seed=-1),
    _loaded("split_seed must be a whole number, got 1.5", "digits", split_seed=1.5),
    _loaded(
        "the files of 'adult' are not there; put UCI's adult.data and adult.test into /nowhere/adult, or "
        "use download=True",
        "adult",
        root="/nowhere",
        download=False,
    ),
]
