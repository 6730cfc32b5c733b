"""tr(H) of a logic gate network by probes in activation space, what no general tool can do.

With p = softmax(z/tau) per gate, H is a block-diagonal part of the softmax, whose trace is exact
from one gradient, plus ``G = Jᵀ (∂²L/∂p²) J``. A gate touches sample i only through its output
y_n(i), linearly in p, and the loss is a mean over samples, so

    tr G = Σ_n Σ_i q_n(i) · ∂²L/∂y_n(i)²,   q_n(i) = ‖J_nᵀ h_n(i)‖²,

h_n(i) the sixteen gate outputs. With independent signs per gate *and per sample*,
``u_n(i) = ± √q_n(i)``, one product with the Hessian in the layers' outputs gives an unbiased
estimate in which no two samples interfere. At every sample it is a quadratic form of signs, of variance
``2 Σ_n Var d_n``, ``d = u ∘ (∂²L/∂y²) u``; ``2 Σ_n E d_n²`` bounds it, closely where many gates interact, and
each product of each sample tells it anew.

With another length, ``q_n(i) = Var_p(h_n(i))``, the same probes estimate what gates that are drawn from p
do to the loss to second order; there is no softmax part then (:mod:`lgn_analysis.theory.hard_lemma`).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Final, Self

import torch
from scipy.special import stdtrit
from torch import Tensor

from lgn_analysis.base import distributed
from lgn_analysis.base.validation import seed_number
from lgn_analysis.gates.noise import Purpose, derive_seed
from lgn_analysis.hessian.estimators.stopping import Advance, Estimator
from lgn_analysis.hessian.operators.network import NetworkHessian
from lgn_analysis.kernels.interface import Weight

FEWEST: Final = 2
"""Probes of the first interim analysis; every sample gives an independent variance estimate, so two probes suffice."""

BLOCK: Final = 16
"""Probes that are taken at a time."""


@dataclass(frozen=True)
class _Piece:
    """What a piece's samples contributed so far, float64.

    Attributes:
        mean: of the layers' forms, [n_layers, batch].
        spread: sum of squared distances from it, of the same shape.
        squares: sum of Σ d² over probes, [batch].
    """

    mean: Tensor
    spread: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, forms: Tensor) -> Self:
        zero = torch.zeros_like(forms[0])
        return cls(zero, zero, zero[0])

    def plus(self, forms: Tensor, squares: Tensor, before: int) -> _Piece:
        """Return this with the probes after ``before``, one by one: 4 and 4 more are the bits of 8."""
        mean, spread, total = self.mean, self.spread, self.squares
        for count, (form, square) in enumerate(zip(forms, squares, strict=True), start=before + 1):
            step = form - mean
            mean = mean + step / count
            spread = spread + step * (form - mean)
            total = total + square
        return _Piece(mean, spread, total)


@dataclass(frozen=True)
class _Summary:
    """Estimates over all ranks' samples.

    Attributes:
        layers: float64 [n_layers], the layers' traces.
        layer_variances: of these.
        variance: of their sum.
        freedom: degrees of freedom of that, by Satterthwaite: samples count by their share of it.
    """

    layers: Tensor
    layer_variances: Tensor
    variance: float
    freedom: float


class Activations(Estimator):
    """The estimate so far; probes of all pieces of the loss, at every draw of its noise.

    ``benchmarks/trace_coverage.py`` measures what the intervals cover.

    Args:
        hessian: the operator, of a loss to which each sample contributes by itself.
        seed: of the signs.
        weight: ``"softmax"`` for tr(H), ``"variance"`` for ``Σ_n Σ_i Var_p(h_n(i)) ∂²L/∂y_n(i)²``.
    """

    def __init__(self, hessian: NetworkHessian, seed: int, *, weight: Weight = "softmax") -> None:
        self._count = 0
        self._hessian = hessian
        self._weight: Weight = weight
        self.names, self.seed = list(hessian.slices), seed_number(seed)
        none = torch.zeros(len(self.names), dtype=torch.float64, device=hessian.device)
        self._exact = hessian.softmax_trace() if weight == "softmax" else none
        self._pieces: dict[int, _Piece] = {}
        self._summary: _Summary | None = None

    @property
    def n_probes(self) -> int:
        return self._count

    @property
    def n_matvecs(self) -> int:
        return self._count

    @property
    def estimate(self) -> float:
        return float(self.summary.layers.sum())

    def add(self, count: int, advance: Advance) -> None:
        for piece in self._hessian.pieces():
            # No two ranks' samples share signs.
            index = piece.index + (distributed.world()[0] << 32)
            seed = derive_seed(self.seed, Purpose.SIGNS, index)
            for first in range(self.n_probes, self.n_probes + count, BLOCK):
                size = min(BLOCK, self.n_probes + count - first)
                forms, squares = piece.curvature.activation_products(
                    seed, first, size, weight=self._weight
                )
                so_far = self._pieces.get(piece.index) or _Piece.empty(forms)
                self._pieces[piece.index] = so_far.plus(forms, squares, first)
        self._count += count
        self._summary = None
        advance(count)

    def copy(self) -> Self:
        other = copy.copy(self)
        other._pieces = dict(self._pieces)
        return other

    @property
    def summary(self) -> _Summary:
        """Estimates and variances, added up once after each change."""
        if self._summary is None:
            n, m = len(self._exact), self.n_probes
            sums = torch.zeros(2 * n + 2, dtype=torch.float64, device=self._exact.device)
            for piece in self._pieces.values():
                variances = 2 * piece.squares / m**2
                sums[:n] += piece.mean.sum(1)
                sums[n : 2 * n] += piece.spread.sum(1) / (m - 1) / m
                sums[2 * n] += variances.sum()
                sums[2 * n + 1] += variances.square().sum()
            sums = distributed.total(sums).cpu()
            variance, fourth = float(sums[2 * n]), float(sums[2 * n + 1])
            self._summary = _Summary(
                self._exact.cpu() + sums[:n],
                sums[n : 2 * n],
                variance,
                m * variance**2 / fourth if fourth else math.inf,
            )
        return self._summary

    def half_width(self, alpha: float) -> float:
        if not math.isfinite(self.summary.freedom):
            return 0.0
        critical_value = float(stdtrit(self.summary.freedom, 1 - alpha / 2))
        return critical_value * math.sqrt(self.summary.variance)

    def errors(self) -> tuple[float, Tensor, Tensor]:
        summary = self.summary
        return math.sqrt(summary.variance), summary.layers, summary.layer_variances.sqrt()

    @property
    def reason(self) -> str:
        exact = "softmax part exact, " if self._weight == "softmax" else ""
        return f"{exact}activation-space probes"
