"""The samples that curvature is taken on where a whole split would be more than is needed."""

from __future__ import annotations

import torch
from torch import Tensor

from lgn_analysis.base.validation import seed_number, whole
from lgn_analysis.data import Dataset
from lgn_analysis.gates.noise import Purpose, generator_for
from lgn_analysis.metrics import split_tensors


def draw_samples(
    data: Dataset | tuple[Tensor, Tensor], split: str, n: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return at most ``n`` samples of a split, drawn without replacement, in their order."""
    n = whole("n_samples", n, least=1)
    x, y = split_tensors(data, split)
    generator = generator_for(seed_number(seed), Purpose.PROBE)
    chosen = torch.randperm(len(y), generator=generator)[:n].sort().values
    return x[chosen.to(x.device)], y[chosen.to(y.device)]
