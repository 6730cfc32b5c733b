"""The spectral density by stochastic Lanczos quadrature.

Source: Ubaru, Chen, Saad, SIAM J. Matrix Anal. Appl. 38 (2017).
"""

from __future__ import annotations

import numpy as np
import torch
from tqdm.auto import tqdm

from lgn_analysis.errors import InvalidInputError
from lgn_analysis.hessian.lanczos import lanczos
from lgn_analysis.hessian.operators import SymmetricOperator
from lgn_analysis.hessian.results import DensityResult


def spectral_density(
    operator: SymmetricOperator,
    *,
    n_probes: int = 4,
    steps: int = 60,
    seed: int = 0,
    progress: bool = False,
) -> DensityResult:
    """Return Σ_i δ(λ − λ_i) / n as Gauss quadrature: Ritz values and squared first components.

    Args:
        operator: the operator.
        n_probes: Rademacher start vectors.
        steps: Lanczos steps of each; m steps are exact for moments below 2m.
        seed: seed of the probes.
        progress: show a progress bar.
    """
    if n_probes < 1 or steps < 1:
        raise InvalidInputError(
            f"n_probes and steps must be at least 1, got {n_probes} and {steps}"
        )
    n = operator.shape[0]
    steps = min(steps, n)
    generator = torch.Generator().manual_seed(seed)
    nodes = np.full((n_probes, steps), np.nan)
    weights = np.zeros((n_probes, steps))
    spent = 0
    for probe in tqdm(range(n_probes), desc="density", unit="probe", disable=not progress):
        start = (2 * torch.randint(0, 2, (n,), generator=generator) - 1).to(operator.dtype)
        krylov = lanczos(operator, start, steps)
        values, vectors = np.linalg.eigh(krylov.tridiagonal)
        nodes[probe, : len(values)] = values
        weights[probe, : len(values)] = vectors[0] ** 2 / n_probes
        spent += len(values)
    return DensityResult(nodes=nodes, weights=weights, n=n, n_matvecs=spent, seed=seed)
