"""Moments of a gate's coefficients, and of its gradient in z, at initialisation.

A gate is ``y = c·φ`` with ``c = w G`` and ``φ = (1, a, b, ab)``, and a gradient δ at its output is one of
``J G φ δ`` in its logits, J the Jacobian of the softmax of the backward pass; of a parametrisation by
truth tables ω J is that of ω in its numbers, and G the coefficients of the four entries. All that a randomly wired
network does in the mean follows from E c, ``M = E c c^T`` and ``N = E G^T J² G``; see ``docs/theory.md``.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.entry_moments import entry_moments
from lgn_analysis.gates.initialisation import RESIDUAL_GATE, initial_logits
from lgn_analysis.gates.parametrisations import (
    GATES16,
    PARAMETRISATIONS,
    TruthTable,
    get_parametrisation,
)
from lgn_analysis.gates.relaxations import CAGE, FUSED, UNDECIDED, Relaxation
from lgn_analysis.gates.softmax_moments import FIXED_LOGIT, Array, SoftmaxMoments
from lgn_analysis.gates.table import COEFFICIENTS, N_GATES

_CERTAINTY_GATES: Final = 2**14
"""Gates over which CAGE's first confidence is taken; a hundredth of its error reaches tau."""


@dataclass(frozen=True)
class GateMoments:
    """Second moments over gates, float64; ``between`` two independent draws of the noise, or within one.

    Without noise, both are the same.

    Attributes:
        mean: E c, [4].
        coefficients: E c c^T, [4, 4].
        coefficients_between: E c c'^T, c and c' of two draws at the same logits.
        gradient: E G^T J² G, [4, 4].
        gradient_between: E G^T J J' G.
        tau: temperature of the softmax, or of the entries, whose Jacobian is J.
    """

    mean: Tensor
    coefficients: Tensor
    coefficients_between: Tensor
    gradient: Tensor
    gradient_between: Tensor
    tau: float


def has_moments(init: str, relaxation: Relaxation, parametrisation: str = GATES16) -> bool:
    """Return whether :func:`gate_moments` knows this initialisation and this relaxation."""
    return (
        init in FIXED_LOGIT
        and type(relaxation) in FUSED.values()
        and parametrisation in PARAMETRISATIONS
    )


@functools.lru_cache(maxsize=64)
def gate_moments(init: str, relaxation: Relaxation, parametrisation: str = GATES16) -> GateMoments:
    """Return the moments of gates at initialisation ``init`` in the training forward of a relaxation.

    CAGE has the temperature of its first step, within 1e-5; all else is exact to 1e-9.

    Raises:
        InvalidInputError: an initialisation or a relaxation whose moments are not known.

    Hard gates drawn evenly: a derivative ``c1 + c3 b`` is -1, 0 or 1, in half of the cases 0.

    >>> from lgn_analysis.gates.relaxations import HardST
    >>> gate_moments("normal", HardST()).coefficients.diagonal()
    tensor([0.5000, 0.5000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if not has_moments(init, relaxation):
        raise InvalidInputError(
            f"moments of gates are known for init {' and '.join(FIXED_LOGIT)} and the relaxations "
            f"{', '.join(FUSED)}, not for {init!r} with a {type(relaxation).__name__}"
        )
    tau = relaxation.tau
    law = get_parametrisation(parametrisation)
    law.check(relaxation)
    if isinstance(law, TruthTable):
        found = entry_moments(law, init, relaxation)
        tensors = {name: torch.from_numpy(array) for name, array in found._asdict().items()}
        return GateMoments(**tensors, tau=tau)
    if isinstance(relaxation, CAGE):
        tau = _first_backward_tau(init, relaxation)
    softmax = SoftmaxMoments(init, tau, noisy=relaxation.noisy)
    weights, weights_between = softmax.squares()
    if relaxation.hard:
        weights, weights_between = _of_one_gate(init, noisy=relaxation.noisy)
    gradient, gradient_between = softmax.jacobian_squares()
    g = COEFFICIENTS.double()

    def in_coefficients(square: Array) -> Tensor:
        return g.T @ torch.from_numpy(square) @ g

    return GateMoments(
        mean=torch.from_numpy(weights.sum(1)) @ g,  # weights sum to 1
        coefficients=in_coefficients(weights),
        coefficients_between=in_coefficients(weights_between),
        gradient=in_coefficients(gradient),
        gradient_between=in_coefficients(gradient_between),
        tau=tau,
    )


def _of_one_gate(init: str, *, noisy: bool) -> tuple[Array, Array]:
    """Return E w w^T and E w w'^T [16, 16] where w is the one-hot choice of a gate.

    By Gumbel-max, the mean of ``onehot(argmax(z + g))`` over g is ``softmax(z)``, whatever tau is.
    """
    logit = FIXED_LOGIT[init]
    z = np.zeros(N_GATES)
    if logit is not None:
        z[RESIDUAL_GATE] = logit if noisy else math.inf
    chances = np.exp(z - z.max()) if logit is None or noisy else (z > 0).astype(np.float64)
    within = np.diag(chances / chances.sum())
    return within, SoftmaxMoments(init, 1.0, noisy=False).squares()[0] if noisy else within


def _first_backward_tau(init: str, relaxation: CAGE) -> float:
    """Return the temperature of CAGE's gradient in its first training forward."""
    generator = torch.Generator().manual_seed(0)
    logits = initial_logits(init, _CERTAINTY_GATES, generator=generator, dtype=torch.float64)
    start = torch.tensor(UNDECIDED, dtype=torch.float64)
    return float(relaxation.backward_tau(relaxation.next_confidence(start, logits)))
