"""How a Triton kernel is started, recorded or refused.

Every launch of this package goes through :func:`launch`. It runs on CUDA tensors; on CPU tensors it
runs where Triton's interpreter was asked for (``TRITON_INTERPRET=1`` in the environment before the
import), and is refused otherwise. Inside :func:`recording` it notes the launch and runs nothing:
that is how kernels are compiled ahead of time as they are really launched.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
import triton
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError

INTERPRETED: Final = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
"""Whether Triton's interpreter was asked for when this module was imported."""


@dataclass(frozen=True)
class Launch:
    """One launch that was recorded: the kernel, its run-time arguments and its constants."""

    kernel: Any
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    num_warps: int


_RECORDS: list[list[Launch]] = []


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Collect launches instead of running them; what kernels would write stays uninitialised."""
    records: list[Launch] = []
    _RECORDS.append(records)
    try:
        yield records
    finally:
        _RECORDS.pop()


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, num_warps: int = 4, **constants: Any
) -> None:
    """Start ``kernel`` over ``grid`` on the device of its first tensor."""
    if _RECORDS:
        _RECORDS[-1].append(Launch(kernel, arguments, constants, num_warps))
        return
    if 0 in grid:
        return
    device = next(a for a in arguments if isinstance(a, Tensor)).device
    _check_device(device)
    start = time.perf_counter()
    # Triton launches on the current device, whatever device its arguments live on.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        # The fusion of a·b + c into one rounding is set here, because Triton's default will change.
        kernel[grid](*arguments, **constants, num_warps=num_warps, enable_fp_fusion=True)
    if kernel not in _STARTED:
        _notice(kernel, time.perf_counter() - start)


_LOGGER: Final = logging.getLogger(__name__)
_STARTED: Final[set[Any]] = set()
_said = False


def _notice(kernel: Any, seconds: float) -> None:
    """Say once a process that kernels are being compiled; loading them from disk takes no time."""
    global _said
    _STARTED.add(kernel)
    if seconds < _COMPILES or _said or INTERPRETED:
        return
    _said = True
    # A warning, because Python shows no logging below it unless asked to.
    _LOGGER.warning(
        "compiling the CUDA kernels of lgn_analysis for this machine, once: this takes up to a "
        "minute, and later runs load them from Triton's cache"
    )


_COMPILES: Final = 0.2
"""Seconds of a first launch above which it was compiled: half a second against some milliseconds."""


def _check_device(device: torch.device) -> None:
    if device.type == "cuda" or INTERPRETED:
        return
    raise InvalidInputError(
        f'backend="cuda" runs on CUDA tensors, got tensors on {str(device)!r}; move the model and '
        'the data (model.to("cuda")), choose another backend, or set TRITON_INTERPRET=1 before the '
        "import to run the kernels, slowly, in Triton's interpreter"
    )


def cdiv(numerator: int, denominator: int) -> int:
    """Return ``ceil(numerator / denominator)``."""
    return -(-numerator // denominator)


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least ``n``."""
    return int(triton.next_power_of_2(n))
