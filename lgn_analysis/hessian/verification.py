"""Checks that H v is the Hessian of a loss.

A custom backward that calls raw kernels gives products that are wrong and symmetric all the same.
So symmetry is no check; finite differences are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.errors import NotDifferentiableError
from lgn_analysis.hessian.module_hessian import value_and_gradient
from lgn_analysis.hessian.operators import ParamLoss, Params, unflatten

Products = Callable[[ParamLoss, Params, Tensor], Iterator[Tensor]]

RTOL: Final = 1e-4
"""Relative error of H v against finite differences in float64, parameter by parameter."""

LOWERED_RTOL: Final = 5e-2
"""The same in a narrower dtype."""

DTYPE_RTOL: Final = 1e-2
"""Relative error of H v in the module's own dtype against float64."""


def check_products(
    loss: ParamLoss, params: Params, products: Products, *, kind: str, lowered: bool
) -> tuple[dict[str, Tensor], float]:
    """Return H v along a random v and its error, once gradient and H v agree with finite differences.

    Central differences at several steps, of the loss against the gradient and of the gradient
    against H v, parameter by parameter; one passes at any step, because a kink can spoil others.

    Args:
        loss: of one batch.
        params: where.
        products: the method under test.
        kind: what to call the module.
        lowered: whether all this is in less than float64.

    Raises:
        NotDifferentiableError: naming the parameters whose rows of H v disagree.
    """
    point = torch.cat([value.reshape(-1) for value in params.values()])
    sizes = [value.numel() for value in params.values()]
    steps = (1e-1, 3e-2, 1e-2, 3e-3) if lowered else (1e-4, 1e-5, 1e-6, 1e-7)
    rtol = LOWERED_RTOL if lowered else RTOL
    rounding = 100 * torch.finfo(point.dtype).eps
    direction = random_signs(point)
    scale = float(point.square().mean().sqrt()) or 1.0
    (product,) = products(loss, params, direction.unsqueeze(0))
    blocks = dict(zip(params, product.double().split(sizes), strict=True))
    value, gradient = value_and_gradient(loss, params)
    slope, size = float(gradient @ direction.double()), float(gradient.norm())
    measured, is_gradient = slope, False
    wrong = dict.fromkeys(params, math.inf)
    whole = torch.cat(list(blocks.values()))
    smallest = math.inf
    for step in steps:
        h = step * scale
        ends = [
            value_and_gradient(loss, unflatten(point + sign * h * direction, params))
            for sign in (1, -1)
        ]
        if not is_gradient:
            measured = (ends[0][0] - ends[1][0]) / (2 * h)
            is_gradient = abs(measured - slope) <= rtol * size + rounding * abs(value) / h
        difference = (ends[0][1] - ends[1][1]) / (2 * h)
        floor = 1e-3 * rtol * float(difference.norm()) + rounding * size / h
        smallest = min(smallest, float((whole - difference).norm() / (difference.norm() or 1.0)))
        for name, piece in zip(params, difference.split(sizes), strict=True):
            wrong[name] = min(wrong[name], _excess(blocks[name], piece, rtol, floor))
        if is_gradient and not any(wrong.values()):
            return blocks, smallest
    if not is_gradient:
        raise NotDifferentiableError(
            f"the gradient of {kind} is not the derivative of its loss: along a random direction it "
            f"says {slope:.4g}, finite differences say {measured:.4g}. A straight-through estimator "
            "or a detached term does this; no Hessian belongs to such a gradient"
        )
    _refuse(
        kind,
        wrong,
        "H v is wrong against finite differences of the gradient. A custom autograd.Function whose "
        "backward calls raw kernels, or detaches, does this; write it with differentiable operations",
    )
    return blocks, smallest


def check_lowered(
    loss: ParamLoss, params: Params, products: Products, exact: dict[str, Tensor], *, kind: str
) -> float:
    """Return the error of H v in the module's own dtype against float64; raise where it is large."""
    direction = random_signs(torch.cat([value.reshape(-1) for value in params.values()]))
    (product,) = products(loss, params, direction.unsqueeze(0))
    _, gradient = value_and_gradient(loss, params)
    whole = torch.cat(list(exact.values()))
    total = float(whole.norm())
    floor = 1e-3 * total + 1e3 * torch.finfo(direction.dtype).eps * float(gradient.norm())
    pieces = product.double().split([block.numel() for block in exact.values()])
    wrong = {
        name: _excess(piece, block, DTYPE_RTOL, floor)
        for (name, block), piece in zip(exact.items(), pieces, strict=True)
    }
    _refuse(
        kind,
        wrong,
        f"H v in {direction.dtype} differs from float64. Its operations lose accuracy, or take "
        "another path in that dtype; probe module.double()",
    )
    return float((product.double() - whole).norm()) / (total or 1.0)


def random_signs(like: Tensor) -> Tensor:
    """Return the direction of all checks: signs of a fixed seed, in the dtype of ``like`` [n]."""
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randint(0, 2, (len(like),), generator=generator) - 1).to(like)


def _excess(found: Tensor, expected: Tensor, rtol: float, floor: float) -> float:
    """Return the relative error where it is above tolerance, else zero."""
    error, length = float((found - expected).norm()), float(expected.norm())
    return 0.0 if error <= rtol * length + floor else error / (length or error)


def _refuse(kind: str, wrong: dict[str, float], reason: str) -> None:
    bad = [f"{name} ({error:.0%})" for name, error in wrong.items() if error > 0]
    if bad:
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        raise NotDifferentiableError(f"{kind}, in {', '.join(bad[:4])}{more}: {reason}")
