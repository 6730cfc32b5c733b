"""Checks of the numbers and devices that a caller passes."""

from __future__ import annotations

import math
import operator
from typing import Any, Final

import torch

from lgn_analysis.base.errors import InvalidInputError

_MOST_BITS: Final = 128
"""A longer number is not printed: Python refuses to convert very long ones."""
_MOST_SHOWN: Final = 60


def whole(
    name: str,
    value: Any,
    *,
    least: int | None = None,
    most: int | None = None,
    error: type[InvalidInputError] = InvalidInputError,
) -> int:
    """Return a whole number as an int: NumPy's are taken, a bool and 3.0 are not.

    Raises:
        InvalidInputError: it is no whole number, or out of range.

    >>> whole("steps", 3, least=1)
    3
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except (TypeError, RuntimeError):  # RuntimeError: a tensor of several
        raise error(f"{name} must be a whole number, got {shown(value)}") from None
    if number.bit_length() > _MOST_BITS:
        raise error(f"{name} must be below 2**64, got {shown(number)}")
    if most is not None and not (least or 0) <= number <= most:
        bound = "2**64-1" if most == 2**64 - 1 else most
        raise error(f"{name} must lie in {least or 0}..{bound}, got {number}")
    if number >= 2**64:
        raise error(f"{name} must be below 2**64, got {number}")
    if least is not None and number < least:
        raise error(f"{name} must be at least {least}, got {number}")
    return number


def seed_number(value: Any, name: str = "seed") -> int:
    """Return a seed, 0 <= seed < 2**64, as an int."""
    return whole(name, value, most=2**64 - 1)


def real(name: str, value: Any) -> float:
    """Return a number as a float; NaN and infinity are numbers, strings and bools are not."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise InvalidInputError(f"{name} must be a number, got {shown(value)}") from None


def positive(name: str, value: Any) -> float:
    """Return a number that is finite and above zero.

    >>> positive("tau", 2)
    2.0
    """
    number = real(name, value)
    if not (math.isfinite(number) and number > 0):
        raise InvalidInputError(f"{name} must be finite and above zero, got {value}")
    return number


def usable_device(device: Any) -> torch.device:
    """Return a device that this machine has and that holds values.

    >>> usable_device("cpu")
    device(type='cpu')
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = torch.device("meta")
    if found.type == "meta":
        raise InvalidInputError(f"unknown device {shown(device)}; use cpu, cuda or cuda:N")
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            raise InvalidInputError(
                f"there is no GPU for {found} that this PyTorch can use; use cpu, or install a "
                "PyTorch built for CUDA"
            )
        if (found.index or 0) >= count:
            raise InvalidInputError(
                f"there is no {found}; this machine has cuda:0 to cuda:{count - 1}"
            )
    return found


def shown(value: Any) -> str:
    """Return a value for an error message, in one line and cut where it is long.

    >>> shown("a" * 100)[-3:], shown(16**5000)
    ('aa…', 'a number of thousands of digits')
    """
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no number of more digits
        return "a number of thousands of digits"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"
