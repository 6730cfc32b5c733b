"""Checks that batches of a loss add up to one mean, and whether samples have a part in each other's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian.checks.differences import random_signs
from lgn_analysis.hessian.operators.batches import Batch

_RTOL: Final = 1e-4
"""Relative difference between a mean and the sum of its parts that may be rounding, at least."""
_MIXED: Final = 256
"""Samples from all batches that are put into one."""

Evaluate = Callable[[Tensor, Tensor], Tensor]
"""From x and y of a batch to its loss, and its gradient if that is asked too, in one float64 vector."""
Weigh = Callable[[Tensor], float]
"""From the targets of a batch to its weight in the mean."""


def check_additive(
    evaluate: Evaluate,
    batches: Sequence[Batch],
    *,
    weigh: Weigh,
    every: bool = True,
    rounding: float = 0.0,
) -> None:
    """Raise unless batches add up to one mean; a single one has nothing to add up to.

    Batches are compared with the mean over two parts of them, and a few samples of all batches
    together with the mean over those of each. Where a module takes batches of one size only, samples
    change places between two batches instead.

    Args:
        evaluate: the loss of any samples, and its gradient: equal losses have unequal gradients.
        batches: of all data.
        weigh: what a batch counts in the mean.
        every: take every batch into parts, or the first alone.
        rounding: unit roundoff of the losses.

    Raises:
        InvalidInputError: they do not add up.
    """
    if len(batches) < 2:
        return
    rtol = max(_RTOL, 8 * rounding)
    try:
        for batch in batches if every else batches[:1]:
            _compare(evaluate, [batch], _in_parts(batch), weigh, rtol)
        few = some_of_each(batches, _MIXED)
        together = [(torch.cat([x for x, _ in few]), torch.cat([y for _, y in few]))]
        _compare(evaluate, together, few, weigh, rtol)
    except InvalidInputError:
        raise
    except RuntimeError:  # of a module that knows the size of its batches
        first, *others = batches
        for other in others:
            if [part.shape for part in other] == [part.shape for part in first]:
                _compare(evaluate, _exchanged(first, other), [first, other], weigh, rtol)


def is_additive(evaluate: Evaluate, batch: Batch, weigh: Weigh, rounding: float = 0.0) -> bool:
    """Return whether the loss of a batch is the mean over two parts of it, however it is cut.

    Parts of consecutive samples may hold each class as often as the whole, and those at random hardly.
    """
    rtol = max(_RTOL, 8 * rounding)
    order = torch.randperm(len(batch[1]), generator=torch.Generator().manual_seed(0))
    shuffled = batch[0][order.to(batch[0].device)], batch[1][order.to(batch[1].device)]
    try:
        for parts in (_in_parts(batch), _in_parts(shuffled)):
            _compare(evaluate, [batch], parts, weigh, rtol)
    except (InvalidInputError, RuntimeError):
        return False
    return True


def _in_parts(batch: Batch) -> list[Batch]:
    x, y = batch
    cut = max(1, len(y) // 3)
    parts = [(x[:cut], y[:cut]), (x[cut:], y[cut:])]
    return [part for part in parts if len(part[1])]


def some_of_each(batches: Sequence[Batch], total: int) -> list[Batch]:
    """Return about ``total`` samples of the batches whose samples have the shape of the first one's."""
    n = max(1, total // len(batches))
    few = []
    for index, (x, y) in enumerate(batches):
        generator = torch.Generator().manual_seed(index)
        chosen = torch.randperm(len(y), generator=generator)[:n]
        few.append((x[chosen.to(x.device)], y[chosen.to(y.device)]))
    shapes = few[0][0].shape[1:], few[0][1].shape[1:]
    return [(x, y) for x, y in few if (x.shape[1:], y.shape[1:]) == shapes]


def _exchanged(first: Batch, other: Batch) -> list[Batch]:
    """Return two batches of which every other sample has changed places."""
    mixed = [tuple(part.clone() for part in batch) for batch in (first, other)]
    for place in range(2):
        mixed[0][place][::2], mixed[1][place][::2] = other[place][::2], first[place][::2]
    return [(x, y) for x, y in mixed]


def _compare(
    evaluate: Evaluate, wholes: Sequence[Batch], parts: Sequence[Batch], weigh: Weigh, rtol: float
) -> None:
    """Raise unless two divisions of the same samples have one mean loss and one gradient."""
    found, found_size = _mean(evaluate, wholes, weigh)
    expected, size = _mean(evaluate, parts, weigh)
    error = (found - expected).abs()
    allowed = rtol * (found_size + size)
    if float(error[0]) > float(allowed[0]):
        what = f"({found[0]:.6g}) is not the mean over its samples ({expected[0]:.6g})"
    elif float(error[1:].norm()) > float(allowed[1:].norm()):
        what = "is the mean over its samples, but its gradient is not the mean of theirs"
    else:
        return
    raise InvalidInputError(
        f"the loss of a batch {what}, so several batches add up to no mean. Batch normalisation in "
        "training mode, class weights and ignored labels of a loss that is none of torch's, and "
        "targets that broadcast against the outputs do this: call model.eval(), or pass one batch"
    )


def _mean(evaluate: Evaluate, batches: Sequence[Batch], weigh: Weigh) -> tuple[Tensor, Tensor]:
    """Return the weighted mean over batches, and that of the magnitudes."""
    weights = [weigh(y) for _, y in batches]
    total = sum(weights) or 1.0
    shares = [
        weight / total * evaluate(*batch)
        for weight, batch in zip(weights, batches, strict=True)
        if weight
    ] or [torch.zeros(1, dtype=torch.float64)]
    stacked = torch.stack(shares)
    return stacked.sum(0), stacked.abs().sum(0)


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
