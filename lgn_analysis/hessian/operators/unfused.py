"""What PyTorch's fused CPU kernels compute, in operations whose second derivatives are right.

``torch._weight_norm`` of PyTorch 2.13 has a wrong second derivative (it fails ``gradgradcheck``), and
the others have none. Each function here takes the arguments of the one it stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Return ``g v / ‖v‖``, the norms over all dimensions but ``dim``."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _weight_norm_and_norms(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    return weight_norm(v, g, dim), torch.norm_except_dim(v, 2, dim)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """Return ``min(max(x + 3, 0), 6) / 6``."""
    value = functional.hardtanh(input + 3, 0.0, 6.0) / 6
    return input.copy_(value) if inplace else value


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """Return the p-norm distances [..., n, m] of the rows of [..., n, d] and [..., m, d].

    Points that coincide have distance and derivatives zero, as in ``torch.cdist``.
    """
    return _p_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """Return the distances [n (n - 1) / 2] of the pairs of rows of [n, d]."""
    first, second = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return _p_norm(input[first] - input[second], p)


def _p_norm(difference: Tensor, p: float) -> Tensor:
    if p == 0:
        return (difference != 0).to(difference).sum(-1)
    if p == math.inf:
        return difference.abs().amax(-1)
    if p == 1:
        return difference.abs().sum(-1)
    total = (difference.square() if p == 2 else difference.abs() ** p).sum(-1)
    apart = total > 0
    return torch.where(apart, torch.where(apart, total, 1.0) ** (1 / p), 0.0)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Return sums, means or maxima [bags, d] of rows of ``weight`` [n, d]; see torch's."""
    if max_norm is not None or scale_grad_by_freq or input.is_nested:
        return functional.embedding_bag(  # writes to the weights, or has another gradient
            input,
            weight,
            offsets,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            per_sample_weights,
            include_last_offset,
            padding_idx,
        )
    if offsets is None:
        starts = torch.arange(0, input.numel(), input.shape[1], device=input.device)
    else:
        starts = offsets[:-1] if include_last_offset else offsets
    flat = input.reshape(-1)
    places = torch.arange(len(flat), device=flat.device)
    bag = torch.searchsorted(starts.contiguous(), places.to(starts), right=True) - 1
    rows = functional.embedding(flat, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    if padding_idx is not None:
        kept = flat != padding_idx % len(weight)
        bag, rows = bag[kept], rows[kept]
    bags = rows.new_zeros(len(starts), rows.shape[1])
    if mode == "max":
        places = bag.unsqueeze(1).expand_as(rows)
        return bags.scatter_reduce(0, places, rows, "amax", include_self=False)
    total = bags.index_add(0, bag, rows)
    if mode == "sum":
        return total
    sizes = torch.bincount(bag, minlength=len(starts)).clamp(min=1)
    return total / sizes.unsqueeze(1)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return the mean over samples of ``Σ_j w_y max(0, margin - x_y + x_j)^p / n``, j not y."""
    classes = input.shape[-1]
    scores, labels = input.reshape(-1, classes), target.reshape(-1, 1)
    excess = (margin - scores.gather(1, labels) + scores).clamp(min=0) ** p
    if weight is not None:
        excess = excess * weight[labels]
    others = torch.arange(classes, device=scores.device) != labels
    losses = torch.where(others, excess, 0.0).sum(1) / classes
    if reduction == "none":
        return losses.reshape(target.shape)
    return losses.sum() if reduction == "sum" else losses.mean()


UNFUSED: Final[dict[Any, Callable[..., Any]]] = {
    torch._weight_norm: weight_norm,
    torch._weight_norm_interface: _weight_norm_and_norms,
    torch.cdist: cdist,
    torch.pdist: pdist,
    functional.hardsigmoid: hardsigmoid,
    torch._C._nn.hardsigmoid: hardsigmoid,
    functional.embedding_bag: embedding_bag,
    functional.multi_margin_loss: multi_margin_loss,
}
"""What stands for which function."""
