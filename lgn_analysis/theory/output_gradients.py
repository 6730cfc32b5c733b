"""Second moments of the cross-entropy's gradient at the output of a randomly wired network."""

from __future__ import annotations

import functools
import math
from typing import Final

import torch
from torch import Tensor

_POINTS: Final = 2**12


def gradient_products(
    variance: float, covariance: float, n_groups: int, *, same_class: bool
) -> float:
    """Return the mean over groups of ``δ_g δ'_g``, ``δ = softmax(u) - onehot(label)``, of two samples.

    Logits u and u' are Gaussian, independent over groups, and independent of the labels. So with 1/k the
    mean of each p_g,

        k E δ_g δ'_g = Σ_g E (p_g - 1/k)(p'_g - 1/k) + [same class] - 1/k,

    and the sum is taken by scrambled Sobol points, to within a percent.

    Args:
        variance: of a logit over networks.
        covariance: of one group's logits of the two samples; equal to the variance for one sample.
        n_groups: k.
        same_class: whether both have the same label.
    """
    own, other = _normal_points(n_groups)
    correlation = 0.0 if variance <= 0 else min(max(covariance / variance, -1.0), 1.0)
    scale = math.sqrt(max(variance, 0.0))
    first = (scale * own).softmax(1) - 1 / n_groups
    mixed = correlation * own + math.sqrt(1 - correlation**2) * other
    second = (scale * mixed).softmax(1) - 1 / n_groups
    fluctuation = float((first * second).sum(1).mean())
    return (fluctuation + float(same_class) - 1 / n_groups) / n_groups


@functools.lru_cache(maxsize=8)
def _normal_points(n_groups: int) -> tuple[Tensor, Tensor]:
    """Return two independent sets of points of N(0, 1), float64 [points, groups] each."""
    sobol = torch.quasirandom.SobolEngine(2 * n_groups, scramble=True, seed=0)
    uniform = sobol.draw(_POINTS, dtype=torch.float64).clamp(2.0**-40, 1 - 2.0**-40)
    normal = torch.special.ndtri(uniform)
    return normal[:, :n_groups], normal[:, n_groups:]
