"""What is found out about a loss before a logic gate network's Hessian is taken by its kernels.

The network is known, so all that matters is a function of its outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import LGNError, NotDifferentiableError
from lgn_analysis.hessian.checks.means import check_additive, couples_samples, is_additive
from lgn_analysis.hessian.checks.module_trial import (
    NO_GRADIENT,
    explained,
    refuse_draws,
    refuse_nonfinite,
    refuse_sum,
)
from lgn_analysis.hessian.operators.batches import Batch
from lgn_analysis.hessian.operators.known_losses import is_known, recognise, strict, weights_of
from lgn_analysis.hessian.operators.linear import LossFn
from lgn_analysis.hessian.operators.losses import as_mean, reads_parameters
from lgn_analysis.network import LogicNetwork

_SAMPLES: Final = 1024
"""Outputs that are computed at a time."""


@dataclass(frozen=True)
class NetworkLoss:
    """What a loss of a network's outputs is.

    Attributes:
        reads_parameters: whether it depends on logits by another way too.
        couples: whether the samples of a batch have a part in each other's loss.
    """

    reads_parameters: bool = False
    couples: bool = False


def examine_network_loss(
    model: LogicNetwork, loss_fn: LossFn, batches: Sequence[Batch]
) -> NetworkLoss:
    """Return what a loss is, or raise where it is no mean over samples with a gradient.

    Raises:
        InvalidInputError: data and loss do not fit, or make no mean.
        NotDifferentiableError: the loss has no gradient in the outputs.
    """
    known, weigh, loss = recognise(loss_fn), weights_of(recognise(loss_fn)), strict(loss_fn)
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
            refuse_draws(lambda: as_mean(loss(*first)).detach(), model)
            if reads_parameters(model, loss, *first):
                return NetworkLoss(reads_parameters=True)
        if not as_mean(loss(first[0].detach().requires_grad_(), first[1])).requires_grad:
            raise NotDifferentiableError(NO_GRADIENT)
        for batch in counted[1:]:
            evaluate(*batch)
    except LGNError:
        raise
    except Exception as error:
        raise explained(error, model) from error
    if known is not None:
        return NetworkLoss()
    if len(batches) == 1:
        refuse_sum(lambda outputs, y: evaluate(outputs, y)[0], *first)
        if not is_additive(evaluate, first, weigh):
            return NetworkLoss(couples=True)
    check_additive(evaluate, at_outputs, weigh=weigh)

    def coupled(outputs: Tensor, y: Tensor) -> bool:
        return couples_samples(lambda part: as_mean(loss(part, y)), outputs)

    return NetworkLoss(couples=any(coupled(*batch) for batch in at_outputs))


def soft_outputs(model: LogicNetwork, x: Tensor) -> Tensor:
    """Return the outputs [batch, n_classes] of a network in soft mode, with no graph."""
    with torch.no_grad():
        parts = [model(part.to(model.device), mode="soft") for part in x.split(_SAMPLES)]
    return torch.cat(parts)
