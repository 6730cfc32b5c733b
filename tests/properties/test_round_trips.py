"""What goes into a file, a data set or a thermometer comes out again."""

from __future__ import annotations

import bisect
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lgn_analysis.checkpoints import load, save
from lgn_analysis.data import Dataset, thermometer
from tests.properties.strategies import KEY, LARGE, specs, temperatures

DTYPES = st.sampled_from([torch.float32, torch.float64])
EXTREME = (*LARGE, math.inf, -math.inf, math.nan, -0.0, 1e-45)


def bits_of(tensor: Tensor) -> bytes:
    return tensor.detach().numpy().tobytes()


@given(
    specs(taus=temperatures(), group_taus=temperatures(), extremes=EXTREME), DTYPES, st.booleans()
)
@settings(max_examples=40)
def test_a_network_that_is_loaded_is_the_one_that_was_saved(
    spec: Any, dtype: torch.dtype, moved: bool
) -> None:
    model = spec.build(dtype=dtype)
    if moved and all(z.isfinite().all() for z in model.parameters()):
        model(spec.bits(3), draw=KEY)  # the confidences of CAGE move
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / "model.safetensors")
        again = load(Path(folder) / "model.safetensors")
    assert again.config == model.config
    assert again.relaxation == model.relaxation
    assert not again.training
    state, found = model.state_dict(), again.state_dict()
    assert state.keys() == found.keys()
    for name, tensor in state.items():
        assert tensor.dtype == found[name].dtype
        assert tensor.shape == found[name].shape
        assert bits_of(tensor) == bits_of(found[name])


def rows(x: Tensor) -> list[list[int]]:
    return x.int().tolist()


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "bool": lambda x: x,
    "uint8": lambda x: x.to(torch.uint8),
    "float32": lambda x: x.to(torch.float32),
    "strided": lambda x: x.to(torch.int64).repeat_interleave(2, 0)[::2],
    "numpy": lambda x: x.numpy().astype(np.float64),
    "big-endian": lambda x: x.numpy().astype(">i4"),
    "frame": lambda x: pd.DataFrame(x.numpy().astype(np.int8)),
    "lists": lambda x: x.int().tolist(),
}
LABELS: dict[str, Callable[[Tensor], Any]] = {
    "int64": lambda y: y,
    "uint8": lambda y: y.to(torch.uint8),
    "float": lambda y: y.double(),
    "numpy": lambda y: y.numpy().astype(np.int16),
    "list": lambda y: y.tolist(),
}


@given(
    sizes=st.tuples(*[st.integers(1, 9)] * 3),
    n_features=st.integers(1, 70),
    n_classes=st.integers(2, 5),
    forms=st.tuples(*[st.sampled_from(sorted(FORMS))] * 3),
    labels=st.tuples(*[st.sampled_from(sorted(LABELS))] * 3),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60)
def test_a_data_set_holds_the_arrays_it_was_given_in_whatever_form(
    sizes: tuple[int, ...],
    n_features: int,
    n_classes: int,
    forms: tuple[str, ...],
    labels: tuple[str, ...],
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = [torch.rand(n, n_features, generator=generator) < 0.5 for n in sizes]
    y = [torch.randint(n_classes, (n,), generator=generator) for n in sizes]
    given_arrays = [
        form(array)
        for features, classes, how, what in zip(x, y, forms, labels, strict=True)
        for form, array in ((FORMS[how], features), (LABELS[what], classes))
    ]
    data = Dataset.from_arrays(*given_arrays, name="any", n_classes=n_classes)
    plain = Dataset(x[0], y[0], x[1], y[1], x[2], y[2], n_classes, "plain")
    assert (data.n_features, data.n_classes) == (n_features, n_classes)
    for split, features, classes in zip(("train", "val", "test"), x, y, strict=True):
        assert torch.equal(data.split(split)[0], features)
        assert torch.equal(data.split(split)[1], classes)
    assert data.fingerprint == plain.fingerprint
    flipped = x[0].clone()
    flipped[-1, -1] ^= True
    assert Dataset(flipped, y[0], x[1], y[1], x[2], y[2], n_classes, "plain").fingerprint != (
        data.fingerprint
    )


FLOATS = st.floats(-4.0, 4.0, width=32) | st.sampled_from([math.inf, -math.inf, 0.0, -0.0, 1e-45])
WHOLE = st.integers(-128, 127)


@given(
    values=st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=5),
    levels=st.lists(st.floats(-4.0, 4.0), min_size=1, max_size=9),
    order=st.sampled_from(["threshold-major", "feature-major"]),
    dtype=DTYPES,
)
@settings(max_examples=80)
def test_a_thermometer_counts_the_thresholds_below_a_value(
    values: list[list[float]], levels: list[float], order: Any, dtype: torch.dtype
) -> None:
    levels = sorted(levels)
    x = torch.tensor(values, dtype=dtype)
    bits = thermometer(x, levels, order=order)
    if order == "threshold-major":
        by_level = bits.view(len(x), len(levels), 3)
    else:
        by_level = bits.view(len(x), 3, len(levels)).transpose(1, 2)
    rounded = torch.tensor(levels, dtype=dtype).tolist()  # a comparison is made in the dtype of x
    for sample, row in zip(by_level, x.tolist(), strict=True):
        for column, value in zip(sample.T.tolist(), row, strict=True):
            below = bisect.bisect_left(rounded, value)
            assert column == [True] * below + [False] * (len(levels) - below)


@given(
    values=st.lists(WHOLE, min_size=1, max_size=20),
    dtype=st.sampled_from([torch.int8, torch.int16, torch.int64, torch.float32]),
)
def test_whole_numbers_are_read_back_from_a_thermometer_of_every_step(
    values: list[int], dtype: torch.dtype
) -> None:
    bits = thermometer(torch.tensor(values, dtype=dtype).unsqueeze(1), range(-128, 127))
    assert (bits.sum(1) - 128).tolist() == values
