"""What is found out about a module and its loss before they are probed: whether, and by which method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from lgn_analysis import ranks
from lgn_analysis.errors import InvalidInputError, LGNError, NotDifferentiableError
from lgn_analysis.hessian.batches import Batch, describe_nonfinite
from lgn_analysis.hessian.differences import random_signs
from lgn_analysis.hessian.forward_context import draws_random
from lgn_analysis.hessian.known_losses import (
    NO_MEAN,
    check_labels,
    check_shapes,
    recognise,
    weights_of,
)
from lgn_analysis.hessian.losses import ModuleLoss
from lgn_analysis.hessian.means import check_additive, is_additive
from lgn_analysis.hessian.module_hessian import METHODS, Plan, graph_bytes, value_and_gradient
from lgn_analysis.hessian.operators import BatchLoss, LossFn, ParamLoss, Params

_TRIAL: Final = 64
"""Samples that a module is tried on, where it takes so few."""

_FEW: Final = 16
"""Samples that derivatives are checked on."""

_SAME: Final = {torch.float64: 1e-10}
"""Relative difference of derivatives by the same operations; 2e-6 in a narrower dtype.

A false alarm costs only time.
"""

_STEP: Final = 1e-2
"""By how much parameters are moved, in their own size, to compare losses there."""

_DOUBLED: Final = 1e-3
"""How near to 2 the ratio of two values of a sum over samples lies."""

_LONGEST: Final = 400
"""Characters of another library's message that are passed on."""

_NOT_FINITE: Final = (
    "the first or second derivatives are not finite at these parameters, so there is no Hessian; "
    "a root, a norm or a logarithm at zero does this"
)


def plan_for(loss: ModuleLoss, chosen: Params, batches: Sequence[Batch]) -> Plan:
    """Return how a module is to be probed, or raise where it has no Hessian of a mean loss.

    A plain call of the module says what the loss is; where handing parameters to ``functional_call``
    gives another gradient or another product, plain calls are what is differentiated.

    Raises:
        InvalidInputError: data and loss do not fit, or make no mean.
        NotDifferentiableError: there is no gradient in these parameters, or it has no derivative.
    """
    chosen = {name: value.clone() for name, value in chosen.items()}  # some modules write to them
    few, is_part = _trial(loss, chosen, batches)
    refuse_draws(lambda: loss.live_loss(*few).value(chosen), loss.module)
    loss.copies = loss.writes(*few)
    method = _method(loss, chosen, few)
    at = loss.live if method == "live" else loss.functional
    known = recognise(loss.loss_fn)
    weigh = weights_of(known)
    same = _look_at_all(loss, at, chosen, batches, compare=known is None and method != "live")
    if not same:
        method, at = "live", loss.live
    if len(batches) == 1 and known is None:
        refuse_sum(lambda x, y: loss.live_loss(x, y).value(chosen), *few)
    rounding = torch.finfo(next(iter(chosen.values())).dtype).eps

    def evaluate(x: Tensor, y: Tensor) -> Tensor:
        value, gradient = value_and_gradient(_of(at, x, y), chosen)
        return torch.cat([gradient.new_tensor([value]), gradient])

    check_additive(evaluate, batches, weigh=weigh, every=known is None, rounding=rounding)
    shared = ranks.world()[1] == 1 or is_additive(evaluate, batches[0], weigh, rounding)
    held = math.inf
    if method == "double-backward":
        held = graph_bytes(_of(at, *few), chosen) / len(few[1])
    if is_part:
        few = few[0][:_FEW], few[1][:_FEW]
    return Plan(method, weigh, shared, held, few)


def _trial(loss: ModuleLoss, chosen: Params, batches: Sequence[Batch]) -> tuple[Batch, bool]:
    """Return the samples to try a module on, once its loss of them has a gradient, and whether some.

    A few, or a whole batch: one batch under a loss of the user's own is one loss, of no parts, and
    some modules know the size of their batches.
    """
    known = recognise(loss.loss_fn)
    x, y = first_that_count(loss.loss_fn, batches, _TRIAL)
    trials = [next(batch for batch in batches if weights_of(known)(batch[1]))]
    if len(y) < len(trials[0][1]) and (known is not None or len(batches) > 1):
        trials.insert(0, (x, y))
    failure: Exception | None = None
    for few in trials:
        try:
            output = loss.output(few[0])
            if isinstance(output, Tensor) and output.ndim and len(output) == len(few[1]):
                whole = len(trials[-1][1]), *output.shape[1:]
                check_shapes(loss.loss_fn, whole, trials[-1][1].shape)
            if isinstance(output, Tensor) and output.ndim > 1:
                # On a GPU a label out of range is an assertion that ends the process: look before.
                check_labels(loss.loss_fn, batches, output.shape[1])
            value, gradients = loss.live_loss(*few).value_and_gradients(chosen)
        except LGNError:
            raise
        except Exception as error:
            failure = error
            continue
        if bool(torch.isfinite(value)) or few is trials[-1]:
            refuse_nonfinite(value, batches)
            if all(gradient is None for gradient in gradients):
                raise NotDifferentiableError(NO_GRADIENT)
            return few, few is not trials[-1]
    raise explained(failure, loss.module) from failure


def first_that_count(loss_fn: LossFn, batches: Sequence[Batch], n: int = _FEW) -> Batch:
    """Return at most ``n`` samples in their order, from the first whose label is not ignored."""
    weigh = weights_of(recognise(loss_fn))
    x, y = next((x, y) for x, y in batches if weigh(y))
    first = next(place for place in range(len(y)) if weigh(y[place : place + 1]))
    return x[first : first + n], y[first : first + n]


NO_GRADIENT: Final = (
    "the module's output carries no gradient in these parameters (an argmax in "
    "eval() mode, or torch.no_grad()): call model.train(), or give the LogicNetwork "
    "itself, which is probed in soft mode"
)


def explained(error: Exception | None, module: nn.Module) -> LGNError:
    """Return the error that says in one sentence what a module or a loss raised."""
    if isinstance(error, IndexError):
        return InvalidInputError(f"loss_fn refused the labels: {_said(error)}")
    return InvalidInputError(
        f"{type(module).__name__} or loss_fn cannot take these data: {_said(error)}"
    )


def refuse_nonfinite(value: Tensor, batches: Sequence[Batch], index: int = 0) -> None:
    """Raise where the loss of a batch is no number, and say whether targets are none."""
    if bool(torch.isfinite(value)):
        return
    place = describe_nonfinite([y for _, y in batches])
    if place:
        raise InvalidInputError(f"the loss is {float(value)}: the targets hold {place}")
    if len(batches) > 1:
        raise InvalidInputError(
            f"the loss of batch {index} is {float(value)}; where none of its labels count, pass one "
            "batch"
        )
    raise InvalidInputError(f"the loss is {float(value)}; there is nothing to probe")


def refuse_draws(call: Callable[[], Tensor], module: nn.Module) -> None:
    """Raise where a call draws random numbers, or two calls differ."""
    name = draws_random(call, module)
    if name is not None:
        raise InvalidInputError(_draws(name))
    first, second = float(call()), float(call())
    if first != second:
        raise InvalidInputError(
            f"two evaluations of the loss differ ({first:.9g}, {second:.9g}), and neither drew random "
            "numbers: the module or the loss keeps something from call to call, or its operations "
            "are not deterministic (torch.use_deterministic_algorithms)"
        )


def _draws(name: str) -> str:
    return (
        f"the module or the loss draws random numbers ({name}), so it has no one Hessian: call "
        "model.eval(), probe a deterministic forward, or a LogicNetwork with noise=GumbelNoise(...)"
    )


def _look_at_all(
    loss: ModuleLoss, at: BatchLoss, chosen: Params, batches: Sequence[Batch], *, compare: bool
) -> bool:
    """Return whether the loss of every batch is that of a plain call, where that is asked.

    Raises:
        InvalidInputError: one of them is no number, or draws random numbers.
    """
    weigh, rtol = weights_of(recognise(loss.loss_fn)), _same(chosen)
    same = True

    def look() -> None:
        nonlocal same
        for index, (x, y) in enumerate(batches):
            if not weigh(y):
                continue
            found = value_and_gradient(_of(at, x, y), chosen)
            refuse_nonfinite(torch.tensor(found[0]), batches, index)
            if not bool(torch.isfinite(found[1]).all()):
                raise NotDifferentiableError(_NOT_FINITE)
            if compare and same:
                same = _agree(found, value_and_gradient(loss.live_loss(x, y), chosen), rtol)

    name = draws_random(look, loss.module)
    if name is not None:
        raise InvalidInputError(_draws(name))
    return same


def refuse_sum(value: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> None:
    """Raise where a loss of the user's own doubles when every sample comes twice."""
    try:
        once, twice = float(value(x, y)), float(value(torch.cat([x, x]), torch.cat([y, y])))
    except Exception:  # whatever a loss of one batch raises on another
        return
    if once and abs(twice / once - 2) < _DOUBLED:
        raise InvalidInputError(NO_MEAN)


def _method(loss: ModuleLoss, chosen: Params, few: Batch) -> str:
    """Return the first method whose loss, gradient and product are those of plain calls."""
    functional, live = _of(loss.functional, *few), loss.live_loss(*few)
    plain = _attempt("live", live, chosen)
    if not isinstance(plain, Exception) and not bool(torch.isfinite(plain[1]).all()):
        raise NotDifferentiableError(_NOT_FINITE)
    failures = []
    for method in ("double-backward", "forward-over-reverse"):
        found = _attempt(method, functional, chosen)
        if isinstance(found, Exception):
            failures.append(f"{method}: {_said(found)}")
        elif isinstance(plain, Exception):
            if _agree_elsewhere(functional, live, chosen):
                return method
        else:
            same = _agree(found, plain, _same(chosen)) and _agree_elsewhere(
                functional, live, chosen
            )
            return method if same else "live"
    if not isinstance(plain, Exception):
        return "live"
    failures.append(f"plain calls of the module: {_said(plain)}")
    raise NotDifferentiableError(
        f"the gradient of {type(loss.module).__name__} cannot be differentiated "
        f"({'; '.join(failures)})"
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
    return _agree(found, expected, _same(params))


def _gradient_or_error(loss: ParamLoss, params: Params) -> tuple[float, Tensor] | Exception:
    try:
        return value_and_gradient(loss, params)
    except Exception as error:  # whatever a module raises at other parameters
        return error


def _same(params: Params) -> float:
    return _SAME.get(next(iter(params.values())).dtype, 2e-6)


def _agree(found: tuple[float, Tensor], expected: tuple[float, Tensor], rtol: float) -> bool:
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


def _of(loss: BatchLoss, x: Tensor, y: Tensor) -> ParamLoss:
    return lambda params: loss(params, x, y)


def _said(error: Exception | None) -> str:
    said = " ".join(str(error).split())[:_LONGEST]
    return said if " " in said else f"{type(error).__name__} {said}".rstrip()
