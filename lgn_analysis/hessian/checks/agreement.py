"""Which way of differentiating a module's loss gives the derivatives of its plain calls."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.hessian.checks.differences import random_signs
from lgn_analysis.hessian.operators.linear import ParamLoss, Params
from lgn_analysis.hessian.operators.module import METHODS, value_and_gradient
from lgn_analysis.network import LogicNetwork

_SAME: Final = {torch.float64: 1e-10}
"""Relative difference of derivatives by the same operations; 2e-6 in a narrower dtype.

A false alarm costs only time.
"""

_STEP: Final = 1e-2
"""By how much parameters are moved, in their own size, to compare losses there."""

_LONGEST: Final = 400
"""Characters of another library's message that are passed on."""

NOT_FINITE: Final = (
    "the first or second derivatives are not finite at these parameters, so there is no Hessian; "
    "a root, a norm or a logarithm at zero does this"
)


def choose_method(functional: ParamLoss, live: ParamLoss, params: Params, module: nn.Module) -> str:
    """Return the first method whose loss, gradient and product are those of plain calls.

    Args:
        functional: the loss of a few samples with parameters handed to the module.
        live: the same by plain calls of it.
        params: where.
        module: what an error names.

    Raises:
        NotDifferentiableError: no method goes through, or the derivatives are not finite.
    """
    plain = _attempt("live", live, params)
    slope = _gradient_or_error(live, params) if isinstance(plain, Exception) else plain
    if isinstance(slope, Exception):  # though a first call has had one
        raise NotDifferentiableError(
            f"the gradient of {type(module).__name__} is had only once ({said(slope)}): a tensor that it "
            "computed from parameters, and keeps from call to call, does this; compute it in each call"
        )
    if not isinstance(plain, Exception) and not bool(torch.isfinite(plain[1]).all()):
        raise NotDifferentiableError(NOT_FINITE)
    # Other threads may call a network meanwhile: it must not hold other values, if it can be helped.
    shared = isinstance(module, LogicNetwork)
    failures = []
    for method in ("double-backward", "forward-over-reverse"):
        found = _attempt(method, functional, params)
        if isinstance(found, Exception):
            failures.append(f"{method}: {said(found)}")
        elif isinstance(plain, Exception):
            first = found[0], found[1][: len(slope[1])]
            same = agree(first, slope, rounding_of(params))
            if same and (shared or _agree_elsewhere(functional, live, params)):
                return method
        else:
            same = agree(found, plain, rounding_of(params))
            same = same and (shared or _agree_elsewhere(functional, live, params))
            return method if same else "live"
    if not isinstance(plain, Exception):
        return "live"
    failures.append(f"plain calls of the module: {said(plain)}")
    raise NotDifferentiableError(
        f"the gradient of {type(module).__name__} cannot be differentiated ({'; '.join(failures)})"
    )


def _attempt(method: str, loss: ParamLoss, params: Params) -> tuple[float, Tensor] | Exception:
    """Return the loss, and its gradient and a product in one vector; or what was raised."""
    signs = random_signs(torch.cat([value.reshape(-1) for value in params.values()]))
    try:
        value, gradient = value_and_gradient(loss, params)
        (product,) = METHODS[method](loss, params, signs.unsqueeze(0))
    except Exception as error:  # whatever a module raises where it is called in another way
        return error
    return value, torch.cat([gradient, product.double()])


def _agree_elsewhere(functional: ParamLoss, live: ParamLoss, params: Params) -> bool:
    """Return whether two losses have one gradient a step away.

    What a backward calls again, and what a module once computed from its parameters, is right where
    they are. A hidden term may have no gradient there, as a penalty has none at zero.
    """
    moved = {}
    for name, value in params.items():
        signs = random_signs(value.reshape(-1)).view_as(value)
        moved[name] = value + _STEP * signs * (value.abs() + _root_mean_square(value) + _STEP)
    found = _gradient_or_error(functional, moved)
    expected = _gradient_or_error(live, moved)
    if isinstance(expected, Exception) or isinstance(found, Exception):
        return isinstance(expected, Exception)  # outside the domain of the module
    return agree(found, expected, rounding_of(params))


def _gradient_or_error(loss: ParamLoss, params: Params) -> tuple[float, Tensor] | Exception:
    try:
        return value_and_gradient(loss, params)
    except Exception as error:  # whatever a module raises at other parameters
        return error


def rounding_of(params: Params) -> float:
    """Return the relative difference that derivatives by the same operations may have."""
    return _SAME.get(next(iter(params.values())).dtype, 2e-6)


def agree(found: tuple[float, Tensor], expected: tuple[float, Tensor], rtol: float) -> bool:
    """Return whether two losses and vectors of derivatives are the same but for rounding."""
    value, other = found[0], expected[0]
    if not math.isclose(value, other, rel_tol=rtol) and not math.isnan(other):
        return False
    if not bool(torch.isfinite(expected[1]).all()):
        return torch.equal(torch.isfinite(found[1]), torch.isfinite(expected[1]))
    error = (found[1] - expected[1]).abs()
    # Number by number: the share of a small penalty is lost in the length of the whole.
    return bool((error <= rtol * (expected[1].abs() + 0.1 * _root_mean_square(expected[1]))).all())


def _root_mean_square(values: Tensor) -> float:
    return float(values.square().mean().sqrt()) if values.numel() else 0.0


def said(error: Exception | None) -> str:
    """Return what an exception says in one line, with its name where that is too little."""
    line = " ".join(str(error).split())[:_LONGEST]
    return line if " " in line else f"{type(error).__name__} {line}".rstrip()
