"""The three MONK's problems, complete: no file is read and nothing is downloaded.

Robots are described by six attributes with 3, 3, 2, 3, 4 and 2 values. A problem's test set is all
432 combinations, labelled by its rule; its training set is a published subset of them, with six
labels of the third one flipped (5 % noise). Rules, subsets and flips below reproduce the published
files byte for byte; a test rebuilds them and compares checksums.

Source: Thrun et al., "The MONK's Problems", CMU-CS-91-197, 1991; UCI Machine Learning Repository,
doi:10.24432/C5R30R (CC BY 4.0).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.data.splits import RawSplits, split_off_validation

ATTRIBUTE_SIZES: Final = (3, 3, 2, 3, 4, 2)
"""head_shape, body_shape, is_smiling, holding, jacket_color, has_tie; values count from 1."""

N_FEATURES: Final = sum(ATTRIBUTE_SIZES)
N_COMBINATIONS: Final = 432
N_VALIDATION: Final = {1: 25, 2: 34, 3: 24}
"""A fifth of each training set; together with the rest it is the published one."""

# Bit i says that combination i, in lexicographic order (the published "data_{i+1}"), is a training
# sample.
_TRAIN_MASK: Final = {
    1: 0xAA00E18EA0854500230082810828090809032007209211014004E1AB201C48909840DB30C5EA08DA444438E00884B19602500C240030,
    2: 0x853501002035A12D3935063A8E04F92BEA40B0259646B1238D19E9701190AB84496A081904A270986C3AF35044FB7A020AD003445748,
    3: 0xA128034D806061022802104801A00482801585904A102D10403208B906A00240086803C340A0871160440D0D906F1C1033C88800895E,
}
_FLIPPED_TRAIN_LABELS: Final = {1: (), 2: (), 3: (4, 60, 202, 212, 213, 390)}


def combinations() -> NDArray[np.int64]:
    """Return all robots, int64 [432, 6], values from 1, in lexicographic order."""
    values = [range(1, size + 1) for size in ATTRIBUTE_SIZES]
    return np.array(list(itertools.product(*values)), dtype=np.int64)


def _monk1(a: NDArray[np.int64]) -> NDArray[np.bool_]:
    """head_shape equals body_shape, or the jacket is red."""
    return (a[:, 0] == a[:, 1]) | (a[:, 4] == 1)


def _monk2(a: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Exactly two attributes have their first value."""
    return (a == 1).sum(axis=1) == 2


def _monk3(a: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The jacket is green and a sword is held, or it is not blue and the body is no octagon."""
    return ((a[:, 4] == 3) & (a[:, 3] == 1)) | ((a[:, 4] != 4) & (a[:, 1] != 3))


_RULES: Final[dict[int, Callable[[NDArray[np.int64]], NDArray[np.bool_]]]] = {
    1: _monk1,
    2: _monk2,
    3: _monk3,
}


def published_test_labels(problem: int) -> NDArray[np.int64]:
    """Return the rule's label of every combination, int64 [432]."""
    return _RULES[problem](combinations()).astype(np.int64)


def published_training_set(problem: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the published training subset: indices of combinations, and labels with their noise.

    >>> [len(published_training_set(problem)[0]) for problem in (1, 2, 3)]
    [124, 169, 122]
    """
    mask = _TRAIN_MASK[problem]
    index = np.array([i for i in range(N_COMBINATIONS) if mask >> i & 1], dtype=np.int64)
    labels = published_test_labels(problem)
    flipped = list(_FLIPPED_TRAIN_LABELS[problem])
    labels[flipped] = 1 - labels[flipped]
    return index, labels[index]


def one_hot(attributes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return uint8 [n, 17]: one bit per attribute value, attributes in their published order."""
    columns = [
        attributes[:, [k]] == np.arange(1, size + 1) for k, size in enumerate(ATTRIBUTE_SIZES)
    ]
    return np.concatenate(columns, axis=1).astype(np.uint8)


def load_monk(root: Path, download: bool, split_seed: int, *, problem: int) -> RawSplits:
    """Return MONK ``problem`` (1, 2 or 3) with a fifth of its training set held for validation."""
    x = one_hot(combinations())
    train, y_train = published_training_set(problem)
    return split_off_validation(
        x[train],
        y_train,
        x,
        published_test_labels(problem),
        n_val=N_VALIDATION[problem],
        seed=split_seed,
    )
