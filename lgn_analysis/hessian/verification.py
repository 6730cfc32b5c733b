"""Checks that a loss is a mean over samples, and that H v is its Hessian.

A custom backward that calls raw kernels gives products that are wrong and symmetric all the same.
So symmetry is no check; finite differences are, and what spoils them is told apart: rounding, and kinks
of piecewise operations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn import functional

from lgn_analysis.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.hessian.batches import Batch
from lgn_analysis.hessian.differences import (
    CentralDifferences,
    excess_by_name,
    moved_a_little,
    product,
    random_signs,
)
from lgn_analysis.hessian.kinks import count_kinks
from lgn_analysis.hessian.module_hessian import METHODS, value_and_gradient
from lgn_analysis.hessian.operators import ParamLoss, Params

DTYPE_RTOL: Final = 1e-2
"""Relative error of H v in the module's own dtype against float64, where that dtype is float32."""

_DTYPE_ROUNDINGS: Final = 64
"""The same in a narrower dtype, in units of its rounding."""

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


@dataclass(frozen=True)
class Evidence:
    """What a check of a product measured.

    Attributes:
        error: relative.
        allowed: what it may be.
        what: what decided.
    """

    error: float
    allowed: float
    what: str


def check_products(
    loss: ParamLoss,
    params: Params,
    method: str,
    *,
    model: nn.Module,
    fewer: ParamLoss | None = None,
) -> Evidence:
    """Return the evidence that the gradient is the loss's, and that H v is the gradient's derivative.

    Central differences along a random v, of the loss against the gradient and of the gradient against
    H v, parameter by parameter; one step that agrees is enough. Where none does, the branches of
    piecewise operations that differ between the ends are counted: without any, the product is wrong.
    With some at every step, a point beside the first decides, since activations may lie on a kink
    exactly, and then fewer samples. With kinks in the way even there, both methods of differentiation
    must agree, and no ``autograd.Function`` of Python's may be in the graph.

    Args:
        loss: of one batch.
        params: where.
        method: the one under test, of :data:`.module_hessian.METHODS`.
        model: the module, to say what may be wrong with it.
        fewer: the loss of fewer samples.

    Raises:
        NotDifferentiableError: naming the parameters whose rows of H v disagree, and what was seen.
    """
    beside = moved_a_little(params)
    places = [(loss, params, ""), (loss, beside, ", beside a kink")]
    if fewer is not None:
        places.append((fewer, beside, ", beside a kink, on fewer samples"))
    for of, at, where in places:
        trial = CentralDifferences(of, at, method)
        if trial.agrees:
            return Evidence(
                trial.best.error,
                trial.rtol,
                f"finite differences at step {trial.best.size:.0e}{where}",
            )
        kinks = [count_kinks(of, *trial.ends(step.size)) for step in trial.steps]
        if not all(kinks):
            break
    suspects = _suspects(model, loss, params)
    slope = min(trial.slopes, key=lambda slope: slope.agrees)
    if not slope.agrees:
        raise NotDifferentiableError(
            f"the gradient of {type(model).__name__} is not the derivative of its loss: along one direction "
            f"it says {slope.said:.4g}, finite differences say {slope.measured:.4g}. "
            + (suspects or "A straight-through estimator or a detached term does this")
            + "; no Hessian belongs to such a gradient"
        )
    error = _other_method_error(loss, params, method)
    if all(kinks) and error is not None and error <= trial.rtol and not suspects:
        return Evidence(
            error,
            trial.rtol,
            f"two methods agree; {min(kinks)} kinks in the way of finite differences",
        )
    seen = ", ".join(
        f"{step.error:.1g} at {step.size:.0e} with {n} kinks between"
        for step, n in zip(trial.steps, kinks, strict=True)
    )
    other = "does not run" if error is None else f"differs by {error:.1g}"
    doubt = ", or kinks at every step hide that it is right" if all(kinks) else ""
    _refuse(
        type(model).__name__,
        trial.wrong,
        f"H v is wrong against finite differences of the gradient{doubt} (relative error {seen}; the "
        f"other method of differentiation {other}). "
        + (
            suspects
            or "No custom autograd.Function is in its graph, and what does this is not known"
        ),
    )


def check_lowered(
    loss: ParamLoss, exact: ParamLoss, params: Params, method: str, *, kind: str
) -> Evidence:
    """Return the error of H v in the module's own dtype against float64; raise where it is large.

    A point beside the given one decides where the two dtypes fall on different sides of a kink there.

    Args:
        loss: in the parameters' dtype.
        exact: the same in float64.
        params: where.
        method: of differentiation.
        kind: what to call the module.
    """
    dtype = next(iter(params.values())).dtype
    rtol = max(DTYPE_RTOL, _DTYPE_ROUNDINGS * torch.finfo(dtype).eps)
    for at, where in ((params, ""), (moved_a_little(params), ", beside a kink")):
        rows = product(loss, at, method)
        expected = product(exact, {name: value.double() for name, value in at.items()}, method)
        length = float(expected.norm())
        _, gradient = value_and_gradient(loss, at)
        noise = min(1e3 * torch.finfo(dtype).eps, rtol / 8)
        floor = 0.1 * rtol * length + noise * float(gradient.norm())
        wrong = excess_by_name(params, rows, expected, rtol, floor)
        if not any(wrong.values()):
            error = float((rows - expected).norm()) / (length or 1.0)
            return Evidence(error, rtol, f"{dtype} against float64{where}")
    _refuse(
        kind,
        wrong,
        f"H v in {dtype} differs from float64. Its operations lose accuracy, or take "
        "another path in that dtype; probe module.double()",
    )


def _other_method_error(loss: ParamLoss, params: Params, method: str) -> float | None:
    """Return how far the products of the two methods are apart, or None where the other does not run."""
    (other,) = METHODS.keys() - {method}
    try:
        one, two = product(loss, params, method), product(loss, params, other)
    except (RuntimeError, NotImplementedError):
        return None
    return float((one - two).norm()) / (float(two.norm()) or 1.0)


def _suspects(model: nn.Module, loss: ParamLoss, params: Params) -> str:
    """Return what in a module is known to have wrong second derivatives, or nothing."""
    said = []
    names = _custom_functions(loss, params)
    if names:
        said.append(
            f"Its graph holds the custom autograd.Function {', '.join(names)}: a backward that calls raw "
            "kernels, or detaches, does this; write it with differentiable operations"
        )
    if any(part.training and "SpectralNorm" in _norms(part) for part in model.modules()):
        said.append(
            "spectral_norm in training mode moves its singular vectors at each call and takes them for "
            "constants: call model.eval()"
        )
    return ". ".join(said)


def _norms(part: nn.Module) -> str:
    """Return the classes of a module and of its hooks."""
    return " ".join(type(item).__name__ for item in (part, *part._forward_pre_hooks.values()))


def _custom_functions(loss: ParamLoss, params: Params) -> list[str]:
    """Return the names of the ``autograd.Function`` subclasses of Python's in the graph of a loss."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    waiting: list[Any] = [loss(leaves).grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
    custom = (node for node in seen if isinstance(node, BackwardCFunction))
    return sorted({type(node).__name__.removesuffix("Backward") for node in custom})


def _refuse(kind: str, wrong: dict[str, float], reason: str) -> NoReturn:
    bad = [f"{name} ({error:.0%})" for name, error in wrong.items() if error > 0]
    more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
    raise NotDifferentiableError(f"{kind}, in {', '.join(bad[:4])}{more}: {reason}")
