"""Memory of the passes: what curvatures of one network share, and samples in blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from lgn_analysis.kernels.cpu.curvature.order import Order, build_order
from lgn_analysis.kernels.cpu.runtime import plans
from lgn_analysis.kernels.cpu.runtime.plans import Plan


@dataclass(frozen=True)
class Shared:
    """What all curvatures of one network have in common.

    Attributes:
        order: of its gates.
        memory: lent to one product at a time, and kept while the network is.
    """

    order: Order
    memory: Plan


_SHARED: Final[WeakKeyDictionary[Plan, Shared]] = WeakKeyDictionary()


def shared_by(plan: Plan) -> Shared:
    """Return what the curvatures of one network share; two threads may each make it the first time."""
    if plan not in _SHARED:
        _SHARED[plan] = Shared(build_order(plan.wires), Plan(plan.wires))
    return _SHARED[plan]


def new_tensor(*shape: int) -> Tensor:
    """Return a float64 tensor that holds anything."""
    # Memory of NumPy's: it asks for huge pages where there is much of it.
    return torch.from_numpy(plans.empty(math.prod(shape), np.float64)).view(shape)
