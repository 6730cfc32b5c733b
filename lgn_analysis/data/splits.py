"""Train, validation and test: drawn once, stratified, the same on every machine.

The order comes from raw Philox4x64 words. NumPy fixes the words of a bit generator for good, while
``Generator.permutation`` and scikit-learn's splitters may change between releases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.base.errors import DataError

# Each draw has its own Philox key word, so that no two draws of one seed depend on each other.
_PURPOSE_VALIDATION = 1
_PURPOSE_TEST = 2
_PURPOSE_ORDER = 3
_PURPOSE_LABELS = 4


@dataclass(frozen=True, eq=False)
class RawSplits:
    """The result of a loader: values before thermometer encoding, in three splits.

    Attributes:
        x_train, x_val, x_test: uint8 [n, n_values]; bits for data sets without thresholds.
        y_train, y_val, y_test: int64 [n], the class of each sample.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_val: NDArray[np.uint8]
    y_val: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]


def stratified_holdout(
    y: NDArray[np.int64], n_holdout: int, *, seed: int, purpose: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split 0 … n-1 into rest and holdout, every class in proportion to within one sample.

    Samples are put in order of (class, random key), and the holdout takes evenly spaced places
    of that order: exactly ``n_holdout`` of them, random within a class.

    Args:
        y: int64 [n], the class of each sample.
        n_holdout: size of the holdout, 1 … n-1.
        seed: the split's seed, 0 … 2^64-1.
        purpose: separates draws that share a seed.

    Returns:
        (rest, holdout): int64 indices, each in random order, so that the first k of either are a
        fair sample even where the source is sorted by class.
    """
    n = len(y)
    if not 0 < n_holdout < n:
        raise DataError(f"a holdout of {n_holdout} cannot be taken from {n} samples")
    keys = _random_keys(n, seed=seed, purpose=purpose)
    by_class = np.lexsort((keys, y))  # the last key is the primary one
    place = np.arange(n, dtype=np.int64)
    is_held = np.zeros(n, dtype=np.bool_)
    is_held[by_class] = (place + 1) * n_holdout // n > place * n_holdout // n
    shuffled = np.argsort(keys, kind="stable")
    return shuffled[~is_held[shuffled]], shuffled[is_held[shuffled]]


def source_independent_order(x: NDArray[np.uint8], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an order of the samples that depends on the samples alone, and is shuffled.

    OpenML keeps some tables in another row order than UCI; so ordered, both give the same splits.

    Args:
        x: uint8 [n, n_features] of 0 and 1.
        y: int64 [n], classes below 256.

    Returns:
        int64 [n], a permutation.
    """
    columns = np.concatenate([np.packbits(x, axis=1), y[:, None].astype(np.uint8)], axis=1)
    by_value = np.lexsort(columns.T[::-1])
    return by_value[np.argsort(_random_keys(len(y), seed=0, purpose=_PURPOSE_ORDER), kind="stable")]


def random_order(n: int, *, seed: int) -> NDArray[np.int64]:
    """Return a permutation of 0 … n-1, for labels."""
    return np.argsort(_random_keys(n, seed=seed, purpose=_PURPOSE_LABELS), kind="stable")


def _random_keys(n: int, *, seed: int, purpose: int) -> NDArray[np.uint64]:
    """Return n words of Philox4x64 under the key (seed, purpose)."""
    if not 0 <= seed < 2**64:
        raise DataError(f"split_seed must be in 0 … 2^64-1, got {seed}")
    key = np.array([seed, purpose], dtype=np.uint64)
    return np.random.Philox(key=key).random_raw(n)


def split_off_validation(
    x_train: NDArray[np.uint8],
    y_train: NDArray[np.int64],
    x_test: NDArray[np.uint8],
    y_test: NDArray[np.int64],
    *,
    n_val: int,
    seed: int,
) -> RawSplits:
    """Keep a published test set and draw ``n_val`` validation samples from the training set."""
    rest, val = stratified_holdout(y_train, n_val, seed=seed, purpose=_PURPOSE_VALIDATION)
    return RawSplits(x_train[rest], y_train[rest], x_train[val], y_train[val], x_test, y_test)


def split_in_three(
    x: NDArray[np.uint8], y: NDArray[np.int64], *, n_val: int, n_test: int, seed: int
) -> RawSplits:
    """Draw ``n_test`` test and then ``n_val`` validation samples; the rest is for training."""
    rest, test = stratified_holdout(y, n_test, seed=seed, purpose=_PURPOSE_TEST)
    return split_off_validation(x[rest], y[rest], x[test], y[test], n_val=n_val, seed=seed)
