from __future__ import annotations

import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from lgn_analysis.base.errors import DataError
from lgn_analysis.data import Dataset


def arrays(**changes):
    """Six small valid arrays, some of them replaced."""
    rng = np.random.Generator(np.random.Philox(0))
    parts = {}
    for split, n in (("train", 6), ("val", 3), ("test", 4)):
        parts[f"x_{split}"] = rng.integers(0, 2, size=(n, 5))
        parts[f"y_{split}"] = np.arange(n) % 3
    return parts | changes


def make(**changes):
    options = {key: changes.pop(key) for key in ("n_classes", "name") if key in changes}
    return Dataset.from_arrays(**arrays(**changes), **({"name": "mine"} | options))


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        torch.from_numpy,
        pd.DataFrame,
        np.ndarray.tolist,
        lambda x: x.astype(np.float32),
        lambda x: x.astype(bool),
        lambda x: x.astype(np.uint16),
        lambda x: x.astype(">i4"),
    ],
)
def test_zeros_and_ones_in_any_container_become_the_same_bits(convert):
    given = arrays()
    data = make(**{key: convert(x) for key, x in given.items() if key.startswith("x")})
    for split in ("train", "val", "test"):
        x, y = data.split(split)
        assert x.dtype == torch.bool
        assert y.dtype == torch.int64
        assert x.int().tolist() == given[f"x_{split}"].tolist()
        assert y.tolist() == given[f"y_{split}"].tolist()


def test_the_data_does_not_change_with_the_array_it_came_from():
    given = arrays()
    data = Dataset.from_arrays(**given, name="mine")
    before = data.x_train.clone(), data.y_train.clone()
    given["x_train"][:] = 1 - given["x_train"]
    given["y_train"][:] = 0
    assert torch.equal(data.x_train, before[0])
    assert torch.equal(data.y_train, before[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_val": np.full((3, 5), math.nan)}, "x_val holds NaN; fill or drop"),
        (
            {"x_train": np.full((6, 5), 0.37)},
            r"x_train must hold only 0 and 1, got 0.37 at \(0, 0\)",
        ),
        ({"x_test": np.full((4, 5), -1)}, r"x_test must hold only 0 and 1, got -1.*thermometer"),
        ({"x_train": np.full((6, 5), math.inf)}, "x_train must hold only 0 and 1, got inf"),
        ({"x_train": np.full((6, 5), "1")}, "x_train must hold numbers"),
        ({"x_train": [[0, 1], [1]]}, "x_train is not a rectangular array"),
        ({"x_train": torch.zeros(6, 5, dtype=torch.complex64)}, "real numbers"),
        ({"x_train": np.zeros((6, 1, 5))}, r"\[n, n_features\].*shapes \(6, 1, 5\)"),
        ({"x_val": np.zeros((3, 4))}, "x_val has 4 features and x_train 5"),
        ({"y_val": np.arange(4) % 3}, "x_val has 3 samples and y_val has 4 labels"),
        ({"x_val": np.zeros((0, 5)), "y_val": np.zeros(0)}, "the val split is empty"),
        ({"y_test": np.zeros((4, 1))}, r"y_test \[n\]"),
        ({"y_train": np.full(6, 0.5)}, "y_train must hold whole class numbers, got 0.5"),
        ({"y_train": np.full(6, math.nan)}, "whole class numbers, got nan"),
        ({"y_val": np.array([0, -1, 2])}, "labels must be 0 … 2, y_val holds -1"),
        (
            {"y_test": np.array([0, 1, 2, 3]), "n_classes": 3},
            "0 … 2, y_test holds 3.*raise n_class",
        ),
        ({"n_classes": 1}, "n_classes must be at least 2"),
    ],
)
def test_unusable_arrays_are_refused_in_one_sentence(changes, message):
    with pytest.raises(DataError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_a_dataset_built_directly_is_checked_too():
    good = make()
    with pytest.raises(DataError, match="from_arrays converts them"):
        Dataset(
            good.x_train.float(),
            good.y_train,
            good.x_val,
            good.y_val,
            good.x_test,
            good.y_test,
            n_classes=3,
            name="mine",
        )


def test_n_classes_is_the_largest_label_of_any_split_plus_one():
    assert make().n_classes == 3
    assert make(y_test=np.array([0, 1, 2, 6])).n_classes == 7
    assert make(n_classes=10).n_classes == 10


def test_split_knows_only_its_three_names():
    data = make()
    assert data.split("val")[0] is data.x_val
    assert data.split("val")[1] is data.y_val
    with pytest.raises(DataError, match="unknown split 'vall'; use 'train', 'val' or 'test'"):
        data.split("vall")


def test_fingerprint_depends_on_every_bit_and_label_and_on_nothing_else():
    base = make()
    assert base.fingerprint == make(name="other").fingerprint
    assert base.fingerprint == pickle.loads(pickle.dumps(base)).fingerprint
    others = {base.fingerprint, make(n_classes=4).fingerprint}
    for key, value in arrays().items():
        changed = value.copy()
        changed.flat[-1] = 1 - min(changed.flat[-1], 1)
        others.add(make(**{key: changed}).fingerprint)
    assert len(others) == 8


def test_fingerprint_is_the_same_on_every_platform():
    assert make().fingerprint.startswith("349d14a006d7eabc")


def test_repr_tells_sizes_on_one_line():
    assert repr(make()) == "Dataset('mine', n_features=5, n_classes=3, train=6, val=3, test=4)"


def test_moving_keeps_data_and_metadata():
    moved = make().to("cpu")
    assert moved.fingerprint == make().fingerprint
    assert moved.name == "mine"
