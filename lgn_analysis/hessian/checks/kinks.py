"""How many activations change their branch between two points: kinks, where no derivative exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lgn_analysis.hessian.operators.linear import ParamLoss, Params

Edges = tuple[Tensor, list[Any]]


def _at(*edges: float) -> Callable[..., Edges]:
    return lambda x, *_: (x, list(edges))


def _difference(x: Tensor, y: Tensor) -> Edges:
    return x - y, [0.0]


def _loss_difference(x: Tensor, y: Tensor, reduction: int = 1, edge: float = 1.0) -> Edges:
    return x - y, [-edge, edge]


_EDGES: Final[dict[str, Callable[..., Edges]]] = {
    **dict.fromkeys(("relu", "leaky_relu", "_prelu_kernel", "rrelu_with_noise"), _at(0.0)),
    **dict.fromkeys(("elu", "celu", "abs", "sgn", "sign"), _at(0.0)),
    **dict.fromkeys(("hardswish", "hardsigmoid"), _at(-3.0, 3.0)),
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), _difference),
    **dict.fromkeys(("smooth_l1_loss", "huber_loss"), _loss_difference),
    "softshrink": lambda x, edge=0.5: (x, [-edge, edge]),
    "hardshrink": lambda x, edge=0.5: (x, [-edge, edge]),
    "threshold": lambda x, edge, value: (x, [edge]),
    "hardtanh": lambda x, low=-1.0, high=1.0: (x, [low, high]),
    "clamp": lambda x, low=None, high=None: (x, [low, high]),
    "clamp_min": lambda x, low: (x, [low]),
    "clamp_max": lambda x, high: (x, [high]),
}
"""By name of an operation: the tensor [...] that decides on the branch, and where branches meet."""

_STEPS: Final = ("round", "floor", "ceil", "trunc")


class _Branches(TorchDispatchMode):
    """Records the branch of every element of every piecewise operation.

    An operation of the tables above; and any that makes truth values or whole numbers of real ones: a
    comparison, the places of maxima, an order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Tensor] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.rstrip("_")
        real = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
        if name in _EDGES and real:
            decides, edges = _EDGES[name](*args)
            self.taken.append(_side(decides.detach(), edges))
        result = func(*args, **kwargs)
        if name in ("amax", "amin"):
            dims = args[1] if len(args) > 1 else kwargs.get("dim", ())
            self.taken.append(args[0] == func(args[0], dims, True))
        elif real and name in ("max", "min") and isinstance(result, Tensor):
            self.taken.append(real[0] == result)
        elif real and name in _STEPS:
            self.taken.append(result.detach().clone())
        elif real:
            self.taken.extend(
                leaf.clone()
                for leaf in tree_leaves(result)
                if isinstance(leaf, Tensor) and not (leaf.is_floating_point() or leaf.is_complex())
            )
        return result


def _side(decides: Tensor, edges: list[Any]) -> Tensor:
    side = torch.zeros(decides.shape, dtype=torch.int8, device=decides.device)
    for edge in edges:
        if edge is not None:  # an element on the edge itself has a branch of its own
            side = side + (decides > edge) + (decides >= edge)
    return side


def count_kinks(loss: ParamLoss, one: Params, other: Params) -> int:
    """Return how many branches of the loss's piecewise operations differ between two points."""
    first, second = _taken(loss, one), _taken(loss, other)
    changed = abs(len(first) - len(second))
    for a, b in zip(first, second, strict=False):
        changed += int((a != b).sum()) if a.shape == b.shape else max(a.numel(), b.numel())
    return changed


def _taken(loss: ParamLoss, params: Params) -> list[Tensor]:
    with _Branches() as branches:
        loss({name: value.detach().requires_grad_() for name, value in params.items()})
    return branches.taken
