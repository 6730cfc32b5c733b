"""The losses that a probe differentiates, as functions of parameters, and the refusal of what is none."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from lgn_analysis.arguments import shown
from lgn_analysis.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.hessian.batches import Batch
from lgn_analysis.hessian.forward_context import differentiable_forward
from lgn_analysis.hessian.operators import BatchLoss, LossFn, Params
from lgn_analysis.hessian.smoothing import GumbelNoise, perturbed_logits
from lgn_analysis.hessian.verification import check_additive, check_labels
from lgn_analysis.network import LogicNetwork

_FEW: Final = 16
"""Samples that show the shape of an output."""

_TRIAL: Final = 64
"""Samples that a loss is tried on."""

_TURN: Final = threading.RLock()
"""``functional_call`` puts parameters into the module itself: one thread at a time may."""

_KNOWN_LOSSES: Final = (functional.cross_entropy, functional.mse_loss, functional.nll_loss)


def is_known(loss_fn: Any) -> bool:
    """Return whether a loss is one of torch's: differentiable, and without random numbers."""
    function = loss_fn.func if isinstance(loss_fn, functools.partial) else loss_fn
    return function in _KNOWN_LOSSES or type(function).__module__ == "torch.nn.modules.loss"


def check_loss(loss_fn: object) -> None:
    """Raise unless a loss can be called."""
    if not callable(loss_fn):
        raise InvalidInputError(
            f"loss_fn must be a function of (output, y), got {shown(loss_fn)}; for instance "
            "torch.nn.functional.cross_entropy"
        )


def as_mean(value: object) -> Tensor:
    """Return what a loss returned, or raise where it is no mean over a batch."""
    if not isinstance(value, Tensor):
        raise InvalidInputError(
            f"loss_fn must return the mean over the batch, a number in a tensor; it returned "
            f"{type(value).__name__}"
        )
    if value.ndim != 0:
        raise InvalidInputError(
            f"loss_fn must return the mean over the batch, a number; it returned shape "
            f"{tuple(value.shape)}"
        )
    return value


def batch_losses(
    model: nn.Module, loss_fn: LossFn, *, noise: GumbelNoise | None, tau: float | None
) -> list[BatchLoss]:
    """Return the losses of which a probe's is the mean: one, or one for each draw of the noise.

    Parameters that are not given are the module's, copied now.
    """
    if isinstance(model, LogicNetwork):
        model = copy.deepcopy(model)  # other threads may call their own meanwhile
    frozen = {name: value.detach().clone() for name, value in model.named_parameters()}
    mode = {"mode": "soft"} if isinstance(model, LogicNetwork) else {}

    def loss_at(params: Params, x: Tensor, y: Tensor) -> Tensor:
        buffers = {}
        if not mode and any(part.training for part in model.modules()):
            # Batch normalisation writes its running statistics in place.
            buffers = {name: value.clone() for name, value in model.named_buffers()}
        device = next(iter(params.values())).device
        with differentiable_forward():
            with _TURN:
                output = functional_call(model, {**params, **buffers}, (x.to(device),), mode)
            return loss_fn(output, y.to(device))

    if not isinstance(model, LogicNetwork):
        return [lambda params, x, y: loss_at({**frozen, **params}, x, y)]
    network = model

    def under(draw: int | None) -> BatchLoss:
        # All logits are perturbed, whichever of them are probed.
        return lambda params, x, y: loss_at(
            perturbed_logits({**frozen, **params}, network, noise, draw, tau=tau), x, y
        )

    return [under(draw) for draw in (range(noise.draws) if noise else (None,))]


def refuse_bad_loss(
    model: nn.Module, loss_fn: LossFn, loss: BatchLoss, chosen: Params, batches: Sequence[Batch]
) -> None:
    """Raise unless ``loss`` is one fixed, finite mean over samples with a gradient in ``chosen``.

    Labels are looked at in all batches, everything else on the first samples.
    """
    x, y = (part[:_TRIAL] for part in batches[0])
    _refuse_bad_labels(model, loss_fn, batches)
    params = {name: value.detach().requires_grad_() for name, value in chosen.items()}
    try:
        value = loss(params, x, y)
    except IndexError as error:
        raise InvalidInputError(f"loss_fn refused the labels: {error}") from error
    as_mean(value)
    gradients: Sequence[Tensor | None] = ()
    if value.requires_grad:
        gradients = torch.autograd.grad(value, list(params.values()), allow_unused=True)
    if all(gradient is None for gradient in gradients):
        raise NotDifferentiableError(
            "the module's output carries no gradient in these parameters (an argmax in "
            "eval() mode, or torch.no_grad()): call model.train(), or give the LogicNetwork "
            "itself, which is probed in soft mode"
        )
    if not bool(torch.isfinite(value)):
        raise InvalidInputError(f"the loss is {float(value.detach())}; there is nothing to probe")
    with torch.no_grad():
        if not torch.equal(loss(chosen, x, y), loss(chosen, x, y)):
            raise InvalidInputError(
                "two evaluations of the loss differ: the module draws random numbers (Gumbel "
                "noise or dropout in train() mode?), so it has no one Hessian; probe a "
                "deterministic forward, or a LogicNetwork with noise=GumbelNoise(...)"
            )
        twice = loss(chosen, torch.cat([x, x]), torch.cat([y, y]))
    if not torch.allclose(value.detach(), twice, rtol=1e-3):
        raise InvalidInputError(
            "loss_fn must be the mean over samples, and its value changes when every sample "
            "is repeated; use reduction='mean'"
        )
    if len(batches) > 1:
        with torch.no_grad():
            check_additive(lambda x, y: float(loss(chosen, x, y)), x, y)


def _refuse_bad_labels(model: nn.Module, loss_fn: LossFn, batches: Sequence[Batch]) -> None:
    # On a GPU a label out of range is an assertion that ends the process: look before.
    if isinstance(model, LogicNetwork):
        check_labels(loss_fn, batches, model.n_classes)
        return
    x, _ = batches[0]
    outputs: list[Any] = []

    def keep(output: Any, y: Tensor) -> Tensor:
        outputs.append(output)
        return y

    with torch.no_grad():
        (forward,) = batch_losses(model, keep, noise=None, tau=None)
        forward(dict(model.named_parameters()), x[:_FEW], x[:_FEW])
    if isinstance(outputs[0], Tensor) and outputs[0].ndim > 1:
        check_labels(loss_fn, batches, outputs[0].shape[1])


def in_double(loss_fn: Any) -> Any:
    """Return the loss with its class weights, if any, in float64."""
    if isinstance(loss_fn, nn.Module):
        return copy.deepcopy(loss_fn).double()
    if isinstance(loss_fn, functools.partial):
        keywords = {
            name: value.double()
            if isinstance(value, Tensor) and value.is_floating_point()
            else value
            for name, value in loss_fn.keywords.items()
        }
        return functools.partial(loss_fn.func, *loss_fn.args, **keywords)
    return loss_fn


def select_parameters(model: nn.Module, patterns: str | Sequence[str] | None) -> Params:
    """Return the parameters by name; patterns are globs, None takes those that need gradients."""
    everything = dict(model.named_parameters())
    if patterns is None:
        chosen = {name: value for name, value in everything.items() if value.requires_grad}
    else:
        wanted = [patterns] if isinstance(patterns, str) else patterns
        if not (isinstance(wanted, Sequence) and all(isinstance(name, str) for name in wanted)):
            raise InvalidInputError(
                f"params must be names of parameters, or patterns of them, got {shown(patterns)}"
            )
        for pattern in wanted:
            if not any(fnmatchcase(name, pattern) for name in everything):
                raise InvalidInputError(
                    f"no parameter matches {pattern!r}; there are {', '.join(everything)}"
                )
        chosen = {
            name: value
            for name, value in everything.items()
            if any(fnmatchcase(name, pattern) for pattern in wanted)
        }
    if not chosen and patterns is not None:
        raise InvalidInputError(f"params names nothing; choose from {', '.join(everything)}")
    if not chosen:
        raise InvalidInputError(f"{type(model).__name__} has no parameters that require gradients")
    dtypes = {value.dtype for value in chosen.values()}
    if len(dtypes) > 1:
        raise InvalidInputError(f"the parameters mix dtypes {sorted(map(str, dtypes))}")
    return {name: value.detach() for name, value in chosen.items()}
