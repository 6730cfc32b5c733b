"""Thermometer encoding: a value becomes one bit per threshold, ``bit = x > threshold``.

Source: Petersen et al. 2022 (difflogic) and Yousefi et al. 2025, who encode CIFAR-10 with the 31
thresholds ``(i + 1)/32`` and lay the bits out threshold by threshold.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from lgn_analysis.base.errors import DataError
from lgn_analysis.base.memory import require_memory
from lgn_analysis.base.validation import shown, whole
from lgn_analysis.data.dataset import check_holds_values

BitOrder = Literal["threshold-major", "feature-major"]
Thresholds = int | Sequence[float]

_UNCOMPARED: Final = (torch.uint16, torch.uint32, torch.uint64)


def thermometer(
    x: Tensor, thresholds: Iterable[float], *, order: BitOrder = "threshold-major"
) -> Tensor:
    """Return the bits ``x[i, f] > thresholds[t]``, strictly greater.

    In threshold-major order bit ``t·n_values + f`` belongs to threshold t and value f, which is what
    ``torch.cat([(x > t) for t in thresholds], dim=channel)`` gives once flattened; in feature-major
    order bit ``f·n_thresholds + t`` does.

    A comparison follows PyTorch: a threshold is rounded to the dtype of a floating ``x``; against an
    integer ``x`` it is exact.

    Args:
        x: values [n, ...], any real dtype and device; everything after the batch is flattened to
            n_values.
        thresholds: finite numbers in increasing order, in the scale of ``x``.
        order: ``"threshold-major"`` (the papers') or ``"feature-major"``.

    Returns:
        bool [n, n_thresholds · n_values], on the device of ``x``.

    Raises:
        DataError: NaN in ``x``, a tensor without a batch dimension, or unusable thresholds.

    >>> x = torch.tensor([[0.2, 0.6], [0.25, 0.75]])
    >>> thermometer(x, [0.25, 0.5]).int()
    tensor([[0, 1, 0, 1],
            [0, 1, 0, 1]], dtype=torch.int32)
    >>> thermometer(x, [0.25, 0.5], order="feature-major").int()
    tensor([[0, 0, 1, 1],
            [0, 0, 1, 1]], dtype=torch.int32)
    """
    if not isinstance(x, Tensor):
        raise DataError(
            f"x must be a tensor [n, values], got {type(x).__name__}; convert it, for instance by "
            "torch.as_tensor"
        )
    if x.ndim < 2:
        raise DataError(f"x must be [n, values], got shape {tuple(x.shape)}; add a batch dimension")
    if x.dtype == torch.bool or x.is_complex():
        raise DataError(f"x must hold real numbers, got dtype {x.dtype}")
    if x.dtype in _UNCOMPARED:
        raise DataError(f"PyTorch compares no {x.dtype}; convert x, for instance to torch.int64")
    if order not in ("threshold-major", "feature-major"):
        raise DataError(f"unknown order {order!r}; use 'threshold-major' or 'feature-major'")
    levels = check_thresholds(thresholds)
    check_holds_values("x", x)
    require_memory(
        x.numel() * len(levels),
        f"the bits of {len(x)} samples of {x[0].numel() if len(x) else 0} values at {len(levels)} "
        "thresholds",
        "use fewer thresholds, or encode fewer samples at a time",
        device=x.device,
        error=DataError,
    )
    values = x.detach().flatten(1)
    if values.is_floating_point() and bool(values.isnan().any()):
        raise DataError("x holds NaN, which is neither above nor below a threshold; fill it first")

    n, n_values = values.shape
    n_levels = len(levels)
    bits = torch.empty(n, n_levels * n_values, dtype=torch.bool, device=x.device)
    for t, level in enumerate(levels):
        if order == "threshold-major":
            column = bits[:, t * n_values : (t + 1) * n_values]
        else:
            column = bits[:, t::n_levels]
        _greater(values, level, out=column)
    return bits


def _greater(values: Tensor, level: float, *, out: Tensor) -> None:
    """Write ``values > level`` to ``out``."""
    if values.is_floating_point():
        torch.gt(values, level, out=out)
        return
    # An integer exceeds a number exactly where it exceeds that number's floor. PyTorch wraps a
    # scalar outside the dtype's range (uint8 3 > -1 is False), so those two cases are written out.
    floor, limits = math.floor(level), torch.iinfo(values.dtype)
    if floor < limits.min:
        out.fill_(True)
    elif floor >= limits.max:
        out.fill_(False)
    else:
        torch.gt(values, floor, out=out)


def check_thresholds(thresholds: Iterable[float]) -> tuple[float, ...]:
    """Return the thresholds as floats if they are finite and never decrease, else raise."""
    try:
        if isinstance(thresholds, str | bytes):  # iterable, and "31" would become 3 and 1
            raise TypeError
        thresholds = list(thresholds)
        if any(isinstance(t, bool) for t in thresholds):
            raise TypeError
        levels = tuple(float(t) for t in thresholds)
    except (TypeError, ValueError):
        raise _not_numbers(thresholds) from None
    if not levels:
        raise DataError("thresholds is empty; give at least one, or None for the default")
    if not all(map(math.isfinite, levels)):
        raise DataError(f"thresholds must be finite, got {_short(levels)}")
    if any(a > b for a, b in itertools.pairwise(levels)):
        raise DataError(f"thresholds must be in increasing order, got {_short(levels)}; sort them")
    return levels


def evenly_spaced_thresholds(
    n: int, *, value_range: tuple[float, float] = (0.0, 1.0)
) -> tuple[float, ...]:
    """Return ``low + (high - low)·(i + 1)/(n + 1)`` for i = 0 … n - 1, as the papers space them.

    >>> evenly_spaced_thresholds(3)
    (0.25, 0.5, 0.75)
    >>> evenly_spaced_thresholds(31) == tuple((i + 1) / 32 for i in range(31))
    True
    """
    n = whole("the number of thresholds", n, least=1, error=DataError)
    low, high = value_range
    if not -math.inf < low < high < math.inf:
        raise DataError(f"value_range must rise between two finite numbers, got {low} to {high}")
    return tuple(low + (high - low) * ((i + 1) / (n + 1)) for i in range(n))


def resolve_thresholds(
    thresholds: Thresholds | None,
    *,
    default: tuple[float, ...],
    value_range: tuple[float, float],
    name: str,
) -> tuple[float, ...]:
    """Turn what a user may pass as ``thresholds`` into floats in the data set's own scale.

    Args:
        thresholds: None for ``default``, a count for evenly spaced ones, or the values themselves.
        default: the data set's own.
        value_range: lowest and highest value (low, high) that the data can take.
        name: the data set's name, for messages.

    Raises:
        DataError: unusable thresholds, or one outside [low, high), whose bit would be constant.
    """
    if thresholds is None:
        return default
    if isinstance(thresholds, bool):
        raise _not_numbers(thresholds)
    if isinstance(thresholds, int | Integral):
        return evenly_spaced_thresholds(int(thresholds), value_range=value_range)
    levels = check_thresholds(thresholds)
    if len(set(levels)) < len(levels):
        raise DataError(f"thresholds must differ, got {_short(levels)}; drop the repeated ones")
    low, high = value_range
    outside = [t for t in levels if not low <= t < high]
    if outside:
        raise DataError(
            f"thresholds of {name!r} must lie in [{low:g}, {high:g}), the range of its values, "
            f"got {outside[0]:g}; outside it every bit would be the same"
        )
    return levels


def integer_thresholds(thresholds: Iterable[float], *, divisor: int) -> tuple[int, ...]:
    """Return integers k with ``pixel > k`` exactly where ``float32(pixel)/divisor > float32(t)``.

    torchvision's ToTensor divides uint8 pixels by 255 in float32, and the papers' comparison rounds
    the threshold to float32 too. Pixels in float32 against thresholds in float64 get ties wrong (51
    of 255 against 0.2 comes out greater); integers keep the answer at a quarter of the memory.

    Args:
        thresholds: in the scale of pixel/divisor.
        divisor: 255 for images in [0, 1], 1 for integer values taken as they are.

    Returns:
        one integer in -1 … 255 per threshold; -1 is below every pixel.

    >>> integer_thresholds([0.5], divisor=255), integer_thresholds([0.2], divisor=255)
    ((127,), (51,))
    """
    values = np.arange(256, dtype=np.float32) / np.float32(divisor)
    levels = np.asarray(tuple(thresholds), dtype=np.float32)
    return tuple(int(k) for k in np.searchsorted(values, levels, side="right") - 1)


def _not_numbers(thresholds: object) -> DataError:
    return DataError(
        f"thresholds must be an integer or a sequence of numbers, got {shown(thresholds)}"
    )


def _short(levels: tuple[float, ...]) -> str:
    shown = ", ".join(f"{t:g}" for t in levels[:6])
    return f"[{shown}, …]" if len(levels) > 6 else f"[{shown}]"
