"""What is worked out once for a network and kept: its wires, and memory that passes have used.

A training step needs tens of megabytes. Asking the system for them anew each time costs more than
the step: so a pass leases its arrays, and they come back when the last who needs them is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lgn_analysis.kernels.cpu.runtime.layout import Wires, are_equal, build_wires

Array = NDArray[Any]
Sizes = Mapping[str, tuple[int, Any]]
"""Length and dtype of arrays, by name."""

_ALIGNMENT: Final = 64
_MAX_KINDS: Final = 4
"""Combinations of sizes that are kept: training's forward and backward, evaluation's batches."""
_MAX_SPARE: Final = 2
"""Spares of each: one is still held by the last step's graph while the next step begins."""


class Plan:
    """The wires of a network, and its spare memory.

    Any thread may borrow, and a lease may come back at any moment: when the garbage collector runs.
    So each step here is one operation of a dict or a deque, which no other thread can split.
    """

    def __init__(self, wires: Wires) -> None:
        self.wires = wires
        self._spare: dict[tuple[Any, ...], deque[dict[str, Array]]] = {}

    def lease(self, sizes: Sizes) -> Lease:
        """Return arrays of these sizes, holding anything."""
        key = tuple(sizes.items())
        try:
            arrays = self._spare[key].pop()
        except (KeyError, IndexError):
            arrays = {name: empty(n, dtype) for name, (n, dtype) in sizes.items()}
        return Lease(self, key, arrays)

    def take_back(self, key: tuple[Any, ...], arrays: dict[str, Array]) -> None:
        """Keep arrays for the next who asks for these sizes."""
        if key not in self._spare and len(self._spare) >= _MAX_KINDS:
            self._spare.clear()
        self._spare.setdefault(key, deque(maxlen=_MAX_SPARE)).append(arrays)


class Lease:
    """Arrays that go back to their plan when this object dies."""

    def __init__(self, plan: Plan, key: tuple[Any, ...], arrays: dict[str, Array]) -> None:
        self._plan, self._key, self._arrays = plan, key, arrays

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __del__(self) -> None:
        self._plan.take_back(self._key, self._arrays)


def empty(n: int, dtype: Any) -> Array:
    """Return an uninitialised array that begins on a cache line."""
    # NumPy rather than torch: it asks for huge pages, and rows are read in no order.
    n_bytes = n * np.dtype(dtype).itemsize
    raw = np.empty(n_bytes + _ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + n_bytes].view(dtype)


def write_blocks(x: Tensor, out: Tensor) -> None:
    """Write [batch, n] to [n_blocks, n, block], zero beyond the batch."""
    block = out.shape[2]
    whole, rest = divmod(len(x), block)
    out[:whole].copy_(x[: whole * block].unflatten(0, (whole, block)).transpose(1, 2))
    if rest:
        out[whole, :, :rest] = x[whole * block :].T
        out[whole, :, rest:] = 0.0


def read_blocks(blocks: Tensor, batch: int) -> Tensor:
    """Return [n_blocks, n, block] as [batch, n]; the inverse of :func:`write_blocks`."""
    return blocks.transpose(1, 2).flatten(0, 1)[:batch]


_PLANS: Final = WeakTensorKeyDictionary()


def find_plan(
    wirings: Sequence[Tensor], n_features: int, n_groups: int, *, first_layer: int = 0
) -> Plan:
    """Return the plan of a network, the one of before while its wiring holds the same numbers.

    Args:
        wirings: int64 [2, width] a layer, on the CPU.
        n_features: inputs of the first layer.
        n_groups: output groups, a divisor of the width.
        first_layer: what the first of these layers is called in errors.

    Raises:
        InvalidInputError: a gate reads an input that its layer does not have.
    """
    # Numbers are compared, not versions: what is written by way of NumPy or ``.data`` raises none.
    arrays = [wiring.numpy() for wiring in wirings]
    known = _PLANS.get(wirings[0])
    if known is not None and known.is_of(arrays, n_features, n_groups):
        return known.plan
    copies = [array.astype(np.int64, order="C") for array in arrays]
    plan = Plan(build_wires(copies, n_features, n_groups, first_layer))
    _PLANS[wirings[0]] = _Known(plan, copies)
    return plan


@dataclass(frozen=True)
class _Known:
    plan: Plan
    wirings: list[NDArray[np.int64]]

    def is_of(self, wirings: Sequence[Array], n_features: int, n_groups: int) -> bool:
        wires = self.plan.wires
        return (
            (wires.n_features, wires.n_groups) == (n_features, n_groups)
            and len(self.wirings) == len(wirings)
            and all(
                kept.shape == wiring.shape and are_equal(kept.reshape(-1), wiring.reshape(-1))
                for kept, wiring in zip(self.wirings, wirings, strict=True)
            )
        )
