from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lgn_analysis.base.errors import DataError
from lgn_analysis.data.thermometer import (
    evenly_spaced_thresholds,
    integer_thresholds,
    resolve_thresholds,
    thermometer,
)

PIXELS = torch.arange(256, dtype=torch.uint8)


def to_tensor(pixels: torch.Tensor) -> torch.Tensor:
    """What torchvision's ToTensor computes for bytes."""
    return pixels.to(torch.float32).div(255)


def resolve(thresholds, *, value_range=(0.0, 1.0)):
    return resolve_thresholds(
        thresholds, default=(0.5,), value_range=value_range, name="some-images"
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_bits_are_strictly_greater(dtype):
    x = torch.tensor([[4, 5, 6]], dtype=dtype)
    assert thermometer(x, [5.0]).tolist() == [[False, False, True]]


def test_threshold_major_order_is_concatenation_along_channels():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 4, 4, generator=generator)
    levels = [(i + 1) / 32 for i in range(31)]
    expected = torch.cat([images > t for t in levels], dim=1).flatten(1)
    assert torch.equal(thermometer(images, levels), expected)


def test_feature_major_order_keeps_the_bits_of_a_feature_together():
    x = torch.rand(7, 5, generator=torch.Generator().manual_seed(1))
    levels = torch.tensor([0.2, 0.5, 0.8])
    expected = (x[:, :, None] > levels).flatten(1)
    assert torch.equal(thermometer(x, levels.tolist(), order="feature-major"), expected)


@given(
    values=st.lists(st.integers(0, 255), min_size=1, max_size=20),
    level=st.floats(-300, 600, allow_nan=False),
)
@settings(max_examples=200, deadline=None)
def test_bytes_compare_exactly_with_any_threshold(values, level):
    x = torch.tensor([values], dtype=torch.uint8)
    assert thermometer(x, [level]).tolist() == [[v > level for v in values]]


def test_bits_of_a_sample_never_rise_with_the_threshold():
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(2))
    bits = thermometer(x, evenly_spaced_thresholds(9)).view(20, 9, 6)
    assert not (bits[:, 1:] & ~bits[:, :-1]).any()


@pytest.mark.parametrize(
    ("x", "thresholds", "order", "message"),
    [
        (torch.zeros(3), [0.5], "threshold-major", "add a batch dimension"),
        (torch.tensor([[math.nan]]), [0.5], "threshold-major", "NaN"),
        (torch.zeros(1, 1, dtype=torch.bool), [0.5], "threshold-major", "dtype torch.bool"),
        (torch.zeros(1, 1), [], "threshold-major", "empty"),
        (torch.zeros(1, 1), [0.5, math.inf], "threshold-major", "finite"),
        (torch.zeros(1, 1), [0.5, 0.25], "threshold-major", "increasing"),
        (torch.zeros(1, 1), ["a"], "threshold-major", "sequence of numbers"),
        (torch.zeros(1, 1), [0.5], "channel-major", "unknown order 'channel-major'"),
    ],
)
def test_unusable_input_is_refused(x, thresholds, order, message):
    with pytest.raises(DataError, match=message):
        thermometer(x, thresholds, order=order)


@pytest.mark.parametrize("n", range(1, 65))
def test_integer_thresholds_agree_with_to_tensor_at_every_pixel(n):
    """n + 1 = 3, 5, 15, 17, 51 divide 255, so that thresholds fall exactly on pixel values."""
    levels = evenly_spaced_thresholds(n)
    cutoffs = integer_thresholds(levels, divisor=255)
    expected = torch.stack([to_tensor(PIXELS) > t for t in levels])
    assert torch.equal(thermometer(PIXELS[None], cutoffs).view(n, 256), expected)


@given(st.floats(0, 1, exclude_max=True))
@settings(max_examples=300, deadline=None)
def test_integer_thresholds_agree_with_to_tensor_at_any_threshold(level):
    (cutoff,) = integer_thresholds([level], divisor=255)
    assert torch.equal(PIXELS.gt(cutoff), to_tensor(PIXELS) > level)


def test_a_tie_that_mixed_precision_gets_wrong_stays_a_tie():
    assert to_tensor(PIXELS)[51].item() > 0.2, "float32 against float64: the trap"
    assert integer_thresholds([0.2], divisor=255) == (51,)


def test_one_half_rounds_pixels_as_difflogic_does():
    (cutoff,) = integer_thresholds([0.5], divisor=255)
    assert torch.equal(PIXELS.gt(cutoff), to_tensor(PIXELS).round().bool())


@pytest.mark.parametrize("n", [3, 31])
def test_a_count_gives_the_papers_thresholds(n):
    assert resolve(n) == tuple((i + 1) / (n + 1) for i in range(n))


def test_a_count_is_spread_over_the_value_range():
    assert resolve(3, value_range=(0.0, 16.0)) == (4.0, 8.0, 12.0)


def test_none_is_the_default_and_values_pass_through():
    assert resolve(None) == (0.5,)
    assert resolve(np.array([0.25, 0.75])) == (0.25, 0.75)
    assert resolve(np.int64(1)) == (0.5,)


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        (0, "at least 1"),
        (-3, "at least 1"),
        (True, "an integer or a sequence"),
        ("31", "an integer or a sequence"),
        (0.5, "an integer or a sequence"),
        ([0.5, 0.5], "drop the repeated"),
        ([63.75, 127.5], r"'some-images' must lie in \[0, 1\).* got 63.75"),
        ([1.0], r"\[0, 1\)"),
        ([-0.1], r"\[0, 1\)"),
    ],
)
def test_thresholds_that_cannot_be_meant_are_refused(thresholds, message):
    with pytest.raises(DataError, match=message):
        resolve(thresholds)
