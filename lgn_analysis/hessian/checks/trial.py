"""What is found out before a module, or a logic gate network, is probed: whether it can be, and how.

:func:`plan_for` looks at any module, :func:`examine_network_loss` at a network that the kernels know, of
which all that matters is a function of its outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from lgn_analysis.base import distributed
from lgn_analysis.base.errors import InvalidInputError, LGNError, NotDifferentiableError
from lgn_analysis.hessian.checks.differences import (
    NOT_FINITE,
    agree,
    choose_method,
    in_one_line,
    rounding_of,
)
from lgn_analysis.hessian.checks.draws import (
    Generator,
    all_generators,
    draws_random,
    own_generators,
    put_back,
)
from lgn_analysis.hessian.checks.means import (
    check_additive,
    couples_samples,
    is_additive,
    some_of_each,
)
from lgn_analysis.hessian.operators.batches import Batch, describe_nonfinite
from lgn_analysis.hessian.operators.known_losses import (
    NO_MEAN,
    check_labels,
    check_shapes,
    is_known,
    recognise,
    strict,
    weights_of,
)
from lgn_analysis.hessian.operators.linear import BatchLoss, LossFn, Params
from lgn_analysis.hessian.operators.losses import (
    ModuleLoss,
    as_mean,
    reads_parameters,
    refuse_hidden_parameters,
)
from lgn_analysis.hessian.operators.module import Plan, graph_bytes, on_batch, value_and_gradient
from lgn_analysis.network import LogicNetwork

_TRIAL: Final = 64
"""Samples that a module is tried on, where it takes so few."""

_MANY: Final = 256
"""Samples of all batches that those are drawn from."""

_FEW: Final = 16
"""Samples that derivatives are checked on."""

_SUMMED: Final = 1e-3
"""Relative difference between a sum over samples and that of the sums over two parts."""


_SAMPLES: Final = 1024
"""Outputs that are computed at a time."""


def plan_for(loss: ModuleLoss, chosen: Params, batches: Sequence[Batch]) -> Plan:
    """Return how a module is to be probed, or raise where it has no Hessian of a mean loss.

    A plain call of the module says what the loss is; where handing parameters to ``functional_call``
    gives another gradient or another product, plain calls are what is differentiated.

    Raises:
        InvalidInputError: data and loss do not fit, or make no mean.
        NotDifferentiableError: there is no gradient in these parameters, or it has no derivative.
    """
    chosen = {name: value.clone() for name, value in chosen.items()}  # some modules write to them
    with put_back(own_generators(loss.module)):
        few, is_part = _trial(loss, chosen, batches)
    generators = all_generators(loss.module)  # those that a first call makes among them
    refuse_draws(lambda: loss.live_loss(*few).value(chosen), generators)
    loss.copies = any(loss.writes(*batch) for batch in [few, *batches])
    method = choose_method(
        on_batch(loss.functional, *few), loss.live_loss(*few), chosen, loss.module
    )
    at = loss.live if method == "live" else loss.functional
    known, weigh = recognise(loss.loss_fn), weights_of(loss.loss_fn)
    same = _look_at_all(loss, at, chosen, batches, generators, compare=method != "live")
    if not same:
        method, at = "live", loss.live
    if len(batches) == 1 and known is None:
        refuse_sum(lambda x, y: loss.live_loss(x, y).value(chosen), *few)
    rounding = torch.finfo(next(iter(chosen.values())).dtype).eps

    def evaluate(x: Tensor, y: Tensor) -> Tensor:
        value, gradient = value_and_gradient(on_batch(at, x, y), chosen)
        return torch.cat([gradient.new_tensor([value]), gradient])

    check_additive(evaluate, batches, weigh=weigh, every=known is None, rounding=rounding)
    shared = distributed.world()[1] == 1 or is_additive(evaluate, batches[0], weigh, rounding)
    held = math.inf
    if method == "double-backward":
        held = graph_bytes(on_batch(at, *few), chosen) / len(few[1])
    mixed = spread(batches, weigh)
    if is_part or _runs(loss, chosen, mixed):
        few = mixed
    return Plan(method, weigh, shared, held, few)


def _trial(loss: ModuleLoss, chosen: Params, batches: Sequence[Batch]) -> tuple[Batch, bool]:
    """Return the samples to try a module on, once its loss of them has a gradient, and whether some.

    A few, or a whole batch: one batch under a loss of the user's own is one loss, of no parts, and
    some modules know the size of their batches.
    """
    known = recognise(loss.loss_fn)
    x, y = first_that_count(loss.loss_fn, batches, _TRIAL)
    trials = [next(batch for batch in batches if weights_of(loss.loss_fn)(batch[1]))]
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


def _runs(loss: ModuleLoss, chosen: Params, batch: Batch) -> bool:
    """Return whether a module takes samples of several batches as one."""
    try:
        loss.live_loss(*batch).value(chosen)
    except Exception:  # whatever a module raises that insists on its own batches
        return False
    return True


def spread(batches: Sequence[Batch], weigh: Callable[[Tensor], float]) -> Batch:
    """Return a few samples from all over the data, which may take other paths through a module."""
    parts = some_of_each(batches, _MANY)
    x, y = (torch.cat(part) for part in zip(*parts, strict=True))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).tolist()
    counted = [place for place in order if weigh(y[place : place + 1])][:_FEW]
    return x[counted], y[counted]


def first_that_count(loss_fn: LossFn, batches: Sequence[Batch], n: int = _FEW) -> Batch:
    """Return at most ``n`` samples in their order, from the first whose label is not ignored."""
    weigh = weights_of(loss_fn)
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
        return InvalidInputError(f"loss_fn refused the labels: {in_one_line(error)}")
    return InvalidInputError(
        f"{type(module).__name__} or loss_fn cannot take these data: {in_one_line(error)}"
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


def refuse_draws(call: Callable[[], Tensor], generators: Sequence[Generator]) -> None:
    """Raise where a call draws random numbers, or two calls differ."""
    name = draws_random(call, generators)
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
    loss: ModuleLoss,
    at: BatchLoss,
    chosen: Params,
    batches: Sequence[Batch],
    generators: Sequence[Generator],
    *,
    compare: bool,
) -> bool:
    """Return whether the loss of every batch is that of a plain call, where that is asked.

    Raises:
        InvalidInputError: one of them is no number, or draws random numbers.
    """
    weigh, rtol = weights_of(loss.loss_fn), rounding_of(chosen)
    same = True

    def look() -> None:
        nonlocal same
        for index, (x, y) in enumerate(batches):
            if not weigh(y):
                continue
            found = value_and_gradient(on_batch(at, x, y), chosen)
            refuse_nonfinite(torch.tensor(found[0]), batches, index)
            if not bool(torch.isfinite(found[1]).all()):
                raise NotDifferentiableError(NOT_FINITE)
            if compare and same:
                same = agree(found, value_and_gradient(loss.live_loss(x, y), chosen), rtol)

    name = draws_random(look, generators)
    if name is not None:
        raise InvalidInputError(_draws(name))
    return same


def refuse_sum(value: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> None:
    """Raise where a loss of the user's own is the sum of those of two parts of a few samples."""
    x, y = x[:_TRIAL], y[:_TRIAL]
    if len(y) < 2:  # the sum is the mean
        return
    cut = max(1, len(y) // 3)
    try:
        whole, parts = value(x, y), value(x[:cut], y[:cut]) + value(x[cut:], y[cut:])
    except Exception:  # whatever a loss of one batch raises on another
        return
    if float(whole) and math.isclose(float(whole), float(parts), rel_tol=_SUMMED):
        raise InvalidInputError(NO_MEAN)


def examine_network_loss(model: LogicNetwork, loss_fn: LossFn, batches: Sequence[Batch]) -> str:
    """Return what a loss of a network's outputs is, or raise where it is no mean with a gradient.

    Returns:
        ``"separate"``: each sample contributes by itself; ``"coupled"``: samples of a batch have a part
        in each other's loss; ``"of parameters"``: it depends on logits by another way than outputs.

    Raises:
        InvalidInputError: data and loss do not fit, or make no mean.
        NotDifferentiableError: the loss has no gradient in the outputs.
    """
    known, weigh, loss = recognise(loss_fn), weights_of(loss_fn), strict(loss_fn)
    at_outputs = [(soft_outputs(model, x), y.to(model.device)) for x, y in batches]
    counted = [batch for batch in at_outputs if weigh(batch[1])]

    def evaluate(outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss and the sum of its gradients over samples, by classes."""
        leaf = outputs.detach().requires_grad_()
        value = as_mean(loss(leaf, y))
        refuse_nonfinite(value.detach(), batches)
        (gradient,) = (
            torch.autograd.grad(value, leaf, materialize_grads=True)
            if value.requires_grad
            else (torch.zeros_like(leaf),)
        )
        return torch.cat([value.detach().reshape(1), gradient.sum(0)]).double()

    first = counted[0]
    try:
        evaluate(*first)
        if not is_known(loss_fn):
            refuse_draws(lambda: as_mean(loss(*first)).detach(), all_generators(model))
            if reads_parameters(model, loss, *first):
                return "of parameters"
        if not as_mean(loss(first[0].detach().requires_grad_(), first[1])).requires_grad:
            raise NotDifferentiableError(NO_GRADIENT)
        for batch in counted[1:]:
            evaluate(*batch)
    except LGNError:
        raise
    except Exception as error:
        raise explained(error, model) from error
    if known is not None:
        return "separate"
    if len(batches) == 1:
        refuse_sum(lambda outputs, y: evaluate(outputs, y)[0], *first)
        if not is_additive(evaluate, first, weigh):
            return "coupled"
    check_additive(evaluate, at_outputs, weigh=weigh)

    def coupled(outputs: Tensor, y: Tensor) -> bool:
        return couples_samples(lambda part: as_mean(loss(part, y)), outputs)

    return "coupled" if any(coupled(*batch) for batch in at_outputs) else "separate"


def soft_outputs(model: LogicNetwork, x: Tensor) -> Tensor:
    """Return the outputs [batch, n_classes] of a network in soft mode, with no graph."""
    with torch.no_grad():
        parts = [model(part.to(model.device), mode="soft") for part in x.split(_SAMPLES)]
    return torch.cat(parts)


def refuse_other_losses(
    model: LogicNetwork, loss_fn: LossFn, outputs: Sequence[Batch], *, what: str
) -> None:
    """Raise where a loss of the user's own is one of more than outputs and targets, or adds up to no mean.

    Args:
        model: the network.
        loss_fn: the loss.
        outputs: of the network, with their targets.
        what: what asks for such a loss, in a sentence.
    """
    if recognise(loss_fn) is not None:
        return
    refuse_hidden_parameters(model, loss_fn, *outputs[0], what=what)

    def value(outputs: Tensor, y: Tensor) -> Tensor:
        return as_mean(loss_fn(outputs, y)).detach().reshape(1)

    check_additive(value, outputs, weigh=weights_of(loss_fn))
