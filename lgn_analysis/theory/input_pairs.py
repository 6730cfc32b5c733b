"""The samples and pairs of samples whose signals mean-field theory follows through a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

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
        weight: [pairs], the probability of a pair among all pairs of a batch; sums to 1.
        same_class: bool [pairs].
    """

    mean: Tensor
    first: Tensor
    second: Tensor
    overlap: Tensor
    weight: Tensor
    same_class: Tensor


def random_bits(n_classes: int) -> InputPairs:
    """Return what independent fair bits with independent labels have: ½, ½ and ¼."""
    half = torch.full((1,), 0.5, dtype=torch.float64)
    index = torch.zeros(2, dtype=torch.int64)
    same = 1.0 / n_classes
    return InputPairs(
        mean=half,
        first=index,
        second=index,
        overlap=(half**2).expand(2),
        weight=torch.tensor([same, 1.0 - same], dtype=torch.float64),
        same_class=torch.tensor([True, False]),
    )


def of_data(
    data: Dataset | tuple[Tensor, Tensor], n_features: int, n_classes: int, seed: int
) -> InputPairs:
    """Return the pairs among at most ``MAX_SAMPLES`` samples of the training split.

    A loss sees the small difference between pairs of one class and of two, so that weights give these
    the shares that they have in the whole split.
    """
    _, labels = split_tensors(data, "train")
    check_labels(labels, n_classes)
    x, y = draw_samples(data, "train", MAX_SAMPLES, seed)
    check_features(x, n_features)
    bits = as_bits(x).double().cpu()
    n = len(labels)
    counts = labels.bincount().double()
    same_share = float((counts * (counts - 1)).sum()) / max(n * (n - 1), 1)
    first, second = torch.triu_indices(len(y), len(y), offset=1)
    overlap = (bits @ bits.T / n_features)[first, second]
    same = (y[first] == y[second]).cpu()
    n_same = same.sum().clamp_min(1)
    n_apart = (~same).sum().clamp_min(1)
    weight = torch.where(same, same_share / n_same.double(), (1.0 - same_share) / n_apart.double())
    return InputPairs(bits.mean(1), first, second, overlap, weight, same)
