"""What is worked out once for a network and kept: its wires, and memory that passes have used.

A training step needs tens of megabytes. Asking the system for them anew each time costs more than
the step: so a pass borrows its arrays, and they come back when the last who needs them is gone.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lgn_analysis.kernels.cpu.layout import Wires, build_wires

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

    Any thread may borrow, and a loan may come back at any moment: when the garbage collector runs.
    So each step here is one operation of a dict or a deque, which no other thread can split.
    """

    def __init__(self, wires: Wires) -> None:
        self.wires = wires
        self._spare: dict[tuple[Any, ...], deque[dict[str, Array]]] = {}

    def borrow(self, sizes: Sizes) -> Loan:
        """Return arrays of these sizes, holding anything."""
        key = tuple(sizes.items())
        try:
            arrays = self._spare[key].pop()
        except (KeyError, IndexError):
            arrays = {name: empty(n, dtype) for name, (n, dtype) in sizes.items()}
        return Loan(self, key, arrays)

    def take_back(self, key: tuple[Any, ...], arrays: dict[str, Array]) -> None:
        """Keep arrays for the next who asks for these sizes."""
        if key not in self._spare and len(self._spare) >= _MAX_KINDS:
            self._spare.clear()
        self._spare.setdefault(key, deque(maxlen=_MAX_SPARE)).append(arrays)


class Loan:
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


_PLANS: Final = WeakTensorKeyDictionary()


def find_plan(wirings: Sequence[Tensor], n_features: int, n_groups: int) -> Plan:
    """Return the plan of a network, the one of before while its wiring is unchanged.

    Args:
        wirings: int64 [2, width] a layer, on the CPU.
        n_features: inputs of the first layer.
        n_groups: output groups, a divisor of the width.
    """
    # Kept with the first wiring, which does not hold the others. They must be the very tensors of
    # before, for the numbers of dead ones are used again; an in-place change raises a version.
    sizes = (n_features, n_groups, *map(_version, wirings))
    known = _PLANS.get(wirings[0])
    if known is not None and known.sizes == sizes and known.is_of(wirings):
        return known.plan
    plan = Plan(build_wires([wiring.numpy() for wiring in wirings], n_features, n_groups))
    _PLANS[wirings[0]] = _Known(plan, sizes, [weakref.ref(wiring) for wiring in wirings])
    return plan


@dataclass(frozen=True)
class _Known:
    plan: Plan
    sizes: tuple[int, ...]
    wirings: list[weakref.ref[Tensor]]

    def is_of(self, wirings: Sequence[Tensor]) -> bool:
        return len(self.wirings) == len(wirings) and all(
            ref() is wiring for ref, wiring in zip(self.wirings, wirings, strict=True)
        )


def _version(wiring: Tensor) -> int:
    # A tensor made in inference mode counts no versions.
    return 0 if wiring.is_inference() else wiring._version
