"""The samples and pairs of samples whose signals mean-field theory follows through a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.data import Dataset
from lgn_analysis.metrics import check_labels, split_tensors
from lgn_analysis.network import as_bits, check_features
from lgn_analysis.theory.samples import draw_samples

MAX_SAMPLES: Final = 512
"""Samples of a data set of which all pairs are followed."""


@dataclass(frozen=True)
class InputPairs:
    """Moments over the input's features of samples and of pairs of different samples, float64.

    Attributes:
        mean: E x, [samples].
        first, second: int64 [pairs], the samples of each pair.
        overlap: E x x', [pairs].
        same_share: probability that two samples of a batch are of one class.
        same, apart: [pairs], the weights of a pair among those of one class and of two; each sums to 1,
            or to 0 where there is none.
    """

    mean: Tensor
    first: Tensor
    second: Tensor
    overlap: Tensor
    same_share: float
    same: Tensor
    apart: Tensor

    @property
    def weight(self) -> Tensor:
        """The weight of a pair among all, [pairs]; sums to 1 where there are pairs."""
        return self.same_share * self.same + (1.0 - self.same_share) * self.apart


def random_bits(n_classes: int) -> InputPairs:
    """Return what independent fair bits with independent labels have: ½, ½ and ¼."""
    half = torch.full((1,), 0.5, dtype=torch.float64)
    index, one = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.float64)
    return InputPairs(half, index, index, half**2, 1.0 / n_classes, one, one)


def pairs_of(
    data: Dataset | tuple[Tensor, Tensor] | Tensor, n_features: int, n_classes: int, seed: int
) -> InputPairs:
    """Return all pairs among at most ``MAX_SAMPLES`` samples: of the training split, (x, y) or x.

    A loss sees the small difference between pairs of one class and of two, so that ``same_share`` is that
    of all the samples. Without labels, it is that of even ones, and pairs are of one class and of two alike.
    """
    labelled = not isinstance(data, Tensor)
    pair = (data, torch.zeros(data.shape[:1])) if isinstance(data, Tensor) else data
    labels = split_tensors(pair, "train")[1].cpu()
    if len(labels) < 2:
        raise InvalidInputError("mean-field theory compares samples; give data of two or more")
    x, y = draw_samples(pair, "train", MAX_SAMPLES, seed)
    check_features(x, n_features)
    bits = as_bits(x).double().cpu()
    first, second = torch.triu_indices(len(bits), len(bits), offset=1)
    overlap = (bits @ bits.T / n_features)[first, second]
    even = _even(torch.ones(len(first), dtype=torch.bool))
    if not labelled:
        return InputPairs(bits.mean(1), first, second, overlap, 1.0 / n_classes, even, even)
    check_labels(labels, n_classes)
    counts, n = labels.bincount().double(), len(labels)
    same = (y[first.to(y.device)] == y[second.to(y.device)]).cpu()
    return InputPairs(
        mean=bits.mean(1),
        first=first,
        second=second,
        overlap=overlap,
        same_share=float((counts * (counts - 1)).sum()) / (n * (n - 1)),
        same=_even(same),
        apart=_even(~same),
    )


def _even(chosen: Tensor) -> Tensor:
    """Return weights that are equal where ``chosen`` and sum to 1, or to 0 where nothing is."""
    return chosen.double() / chosen.sum().clamp_min(1).double()
