"""Checks that a loss is a mean over samples, and that H v is its Hessian.

A custom backward that calls raw kernels gives products that are wrong and symmetric all the same.
So symmetry is no check; finite differences are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lgn_analysis.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.hessian.batches import Batch
from lgn_analysis.hessian.module_hessian import value_and_gradient
from lgn_analysis.hessian.operators import ParamLoss, Params, unflatten

Products = Callable[[ParamLoss, Params, Tensor], Iterator[Tensor]]

RTOL: Final = 1e-4
"""Relative error of H v against finite differences in float64, parameter by parameter."""

LOWERED_RTOL: Final = 5e-2
"""The same in a narrower dtype."""

DTYPE_RTOL: Final = 1e-2
"""Relative error of H v in the module's own dtype against float64."""

_CLASS_LOSSES: Final = (functional.cross_entropy, functional.nll_loss)
_CLASS_MODULES: Final = (nn.CrossEntropyLoss, nn.NLLLoss)


def check_labels(loss_fn: Any, batches: Sequence[Batch], n_classes: int) -> None:
    """Raise where a loss over classes meets an integer label outside 0..n_classes-1."""
    if not _is_over_classes(loss_fn):
        return
    for _, y in batches:
        # Floating labels [n, n_classes] are shares of the classes.
        if y.ndim == 1 and y.dtype not in (torch.int64, torch.uint8):
            raise InvalidInputError(f"class labels must be int64, got {y.dtype}; convert: y.long()")
    labels = [y for _, y in batches if not (y.is_floating_point() or y.dtype == torch.bool)]
    if labels:
        low, high = min(int(y.min()) for y in labels), max(int(y.max()) for y in labels)
        if low < 0 or high >= n_classes:
            raise InvalidInputError(
                f"labels must lie in 0..{n_classes - 1}, got {low}..{high}; the last is out of "
                f"bounds for {n_classes} classes"
            )


def check_network_data(loss_fn: Any, batches: Sequence[Batch], n_features: int) -> None:
    """Raise unless batches are samples [n, n_features] of a logic gate network, labelled as the loss asks."""
    for x, y in batches:
        if x.ndim != 2 or x.shape[1] != n_features or x.is_complex():
            raise InvalidInputError(
                f"expected inputs [batch, {n_features}] of real numbers, got {x.dtype} of shape "
                f"{tuple(x.shape)}"
            )
        shares = y.is_floating_point() and y.ndim == 2
        if _is_over_classes(loss_fn) and y.ndim != 1 and not shares:
            raise InvalidInputError(
                "labels must be class numbers [n], or shares of the classes [n, n_classes] in a "
                f"floating dtype, got {y.dtype} of shape {tuple(y.shape)}"
            )


def _is_over_classes(loss_fn: Any) -> bool:
    function = loss_fn.func if isinstance(loss_fn, functools.partial) else loss_fn
    return function in _CLASS_LOSSES or isinstance(function, _CLASS_MODULES)


def check_additive(loss: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor) -> None:
    """Raise unless the loss of a batch is the mean over its samples; asked for several batches."""
    whole, parts = in_parts(loss, x, y)
    if not is_close(whole, parts):
        raise InvalidInputError(
            f"the loss of a batch ({whole:.6g}) is not the mean over its samples ({parts:.6g}), so "
            "several batches add up to no mean. Batch normalisation in training mode, class weights "
            "and ignored labels do this: call model.eval(), or pass one batch"
        )


def in_parts(loss: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the loss of a batch, and the mean of the losses of two parts of it."""
    whole, n = loss(x, y), len(x)
    if n < 2:
        return whole, whole
    cut = max(1, n // 3)
    return whole, (cut * loss(x[:cut], y[:cut]) + (n - cut) * loss(x[cut:], y[cut:])) / n


def is_close(whole: float, parts: float) -> bool:
    """Return whether the two of :func:`in_parts` are one number but for rounding."""
    return abs(whole - parts) <= 1e-3 * max(abs(whole), abs(parts))


def couples_samples(loss: Callable[[Tensor], Tensor], outputs: Tensor) -> bool:
    """Return whether the second derivatives of a loss of outputs [batch, n] mix samples.

    Along signs of the samples, ``∂(Σ r_i w·g_i)/∂o_i`` is ``r_i`` times what it is without them,
    unless another sample has a part in it.
    """
    leaf = outputs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    if len(outputs) < 2 or not gradient.requires_grad:
        return False
    weights = 1.0 + torch.arange(outputs.shape[1], device=outputs.device) / outputs.shape[1]
    signs = random_signs(outputs[:, 0].contiguous()).unsqueeze(1)
    weighted = (gradient * weights.to(gradient)).sum(1, keepdim=True)
    (plain,) = torch.autograd.grad(weighted.sum(), leaf, retain_graph=True)
    (signed,) = torch.autograd.grad((signs * weighted).sum(), leaf)
    error = float((signed - signs * plain).norm())
    return error > 1e3 * torch.finfo(leaf.dtype).eps * (
        float(plain.norm()) + float(gradient.detach().norm())
    )


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
