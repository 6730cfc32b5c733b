"""Expectations of products of softmax weights over an initialisation and Gumbel noise, by quadrature.

A sum of 16 independent positive numbers ``x_k = exp((z_k + g_k) / tau)`` stands in the denominator of
``s_k = x_k / Σ x``. ``1 / X^n = ∫ t^(n-1) e^(-tX) dt / Γ(n)`` takes an expectation apart into factors of
one option each: for powers ``n_k``, ``n = Σ n_k`` and ``t = exp(σ / tau)``,

    E[Π_k s_k^n_k] = 1 / (Γ(n) tau) ∫ Π_k E[y_{n_k}((σ + z_k + g_k) / tau)] dσ,  y_n(v) = exp(n v - e^v).

Two draws of the noise at the same logits take two such integrals. Everything under them is analytic in a
strip around the real line, where the trapezoidal rule converges exponentially (Trefethen and Weideman,
*The Exponentially Convergent Trapezoidal Rule*, SIAM Review 2014): relative errors are below 1e-9.
``docs/theory.md`` has the derivation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.special import softmax

from lgn_analysis.gates.initialisation import RESIDUAL_GATE, RESIDUAL_LOGIT
from lgn_analysis.gates.table import N_GATES

Array = NDArray[np.float64]

FIXED_LOGIT: Final[dict[str, float | None]] = {"normal": None, "residual": RESIDUAL_LOGIT}
"""By initialisation, the logit of gate A where all others are 0; None where all are N(0, 1)."""

_STEPS: Final = 4
"""Steps of the trapezoidal rule in one unit of the logits, or in tau where that is shorter."""
_NORMAL_REACH: Final = 9
"""Logits z ~ N(0, 1) beyond it have probability 2e-19."""
_GUMBEL_LOW, _GUMBEL_HIGH = -4, 40
"""Gumbel noise outside has probability 4e-18."""
_BEFORE, _AFTER = -20, 4
"""In units of tau: there y_1² and y_2 are still, and y_0 is again, below 1e-17."""


class SoftmaxMoments:
    """Expectations of products of ``s = softmax((z + g) / tau)`` at an initialisation.

    Args:
        init: name of the initialisation.
        tau: temperature of the softmax.
        noisy: whether there is Gumbel noise g.
    """

    def __init__(self, init: str, tau: float, *, noisy: bool) -> None:
        self.logit = FIXED_LOGIT[init]
        self.tau = tau
        self.noisy = noisy
        self.fixed: Array | None = None  # the weights, where nothing about them is random
        if self.logit is not None and not noisy:
            z = np.zeros(N_GATES)
            z[RESIDUAL_GATE] = self.logit
            self.fixed = softmax(z / tau)
        self._stride = math.ceil(1 / min(1.0, tau))
        self._unit = _STEPS * self._stride  # grid points in one unit of the logits
        low, high = (_GUMBEL_LOW, _GUMBEL_HIGH) if noisy else (0, 0)
        self._reach = _NORMAL_REACH if self.logit is None else math.ceil(self.logit)
        self._first = (math.floor(_BEFORE * tau) - high - self._reach) * self._unit
        self._last = (math.ceil(_AFTER * tau) - low + self._reach) * self._unit
        self._noise = np.arange(low * self._unit, high * self._unit + 1) / self._unit
        self._smooth = [self._after_noise(n) for n in range(5)]
        self._products: dict[tuple[int, ...], float] = {}

    def squares(self) -> tuple[Array, Array]:
        """Return E s s^T [16, 16], and E s s'^T for two draws of the noise at the same logits."""
        if self.fixed is not None:
            square = np.outer(self.fixed, self.fixed)
            return square, square
        within = _matrix(self._product)
        if not self.noisy:
            return within, within
        if self.logit is not None:  # the logits are fixed, so that two draws are independent
            return within, np.outer(within.sum(1), within.sum(1))
        return within, _exchangeable(diagonal=self._of_two_draws(1, 1), row_sum=1 / N_GATES)

    def jacobian_squares(self) -> tuple[Array, Array]:
        """Return E J² [16, 16], ``J = (diag s - s s^T) / tau``, and E J J' for two draws."""

        if self.fixed is not None:
            jacobian = (np.diag(self.fixed) - np.outer(self.fixed, self.fixed)) / self.tau
            return jacobian @ jacobian, jacobian @ jacobian

        def entry(k: int, m: int) -> float:
            square = sum(self._product(k, m, j, j) for j in range(N_GATES))
            square -= self._product(k, k, m) + self._product(k, m, m)
            return square + (self._product(k, k) if k == m else 0.0)

        within = _matrix(entry) / self.tau**2
        if not self.noisy:
            return within, within
        if self.logit is not None:
            squares, _ = self.squares()
            mean = (np.diag(squares.sum(1)) - squares) / self.tau
            return within, mean @ mean
        # tr J J' tau² = Σ s s' - Σ s s'² - Σ s² s' + (Σ s s')², and J J' maps ones to 0.
        one = self._of_two_draws(1, 1) - 2 * self._of_two_draws(1, 2) + self._of_two_draws(2, 2)
        trace = N_GATES * (one + (N_GATES - 1) * self._of_two_draws(1, 1, options=2))
        return within, _exchangeable(diagonal=trace / N_GATES, row_sum=0.0) / self.tau**2

    def _product(self, *options: int) -> float:
        """Return E of the product of the weights of these options."""
        powers = Counter(options)
        of_a = powers.pop(RESIDUAL_GATE, 0)
        of_others = sorted(powers.values())
        key = (of_a, *of_others)
        if key not in self._products:
            factors = [self._factor(of_a, gate_a=True), *(self._factor(n) for n in of_others)]
            rest = self._factor(0) ** (N_GATES - len(factors))
            density = np.prod([*factors, rest], axis=0) / math.gamma(len(options))
            self._products[key] = float(density.sum()) / (self._unit * self.tau)
        return self._products[key]

    def _factor(self, n: int, *, gate_a: bool = False) -> Array:
        """Return E y_n((σ + z + g) / tau) of one option at every σ."""
        smooth = self._smooth[n]
        if self.logit is None:
            return np.asarray(fftconvolve(smooth, self._normal(self._unit), mode="valid"))
        logit = self.logit if gate_a else 0.0
        start = round((self._reach + logit) * self._unit)
        return smooth[start : start + self._last - self._first + 1]

    def _normal(self, per_unit: int) -> Array:
        """Return the weights of z ~ N(0, 1) at ``per_unit`` nodes in a unit."""
        z = np.arange(-self._reach * per_unit, self._reach * per_unit + 1) / per_unit
        return np.exp(-0.5 * z**2) / (math.sqrt(2 * math.pi) * per_unit)

    def _after_noise(self, n: int) -> Array:
        """Return E_g y_n((u + g) / tau) at every u = σ + z."""
        first = self._first - self._reach * self._unit + round(self._noise[0] * self._unit)
        last = self._last + self._reach * self._unit + round(self._noise[-1] * self._unit)
        v = np.arange(first, last + 1) / (self._unit * self.tau)
        y = np.exp(n * v - np.exp(np.minimum(v, 50.0)))  # e^50 stands for all that give 0
        if not self.noisy:
            return y
        density = np.exp(-self._noise - np.exp(-self._noise)) / self._unit
        return np.asarray(fftconvolve(y, density[::-1], mode="valid"))

    def _of_two_draws(self, n: int, m: int, *, options: int = 1) -> float:
        """Return ``E s_k^n s'_k^m`` of two draws, or for two options ``E s_k^n s'_k^m s_j^n s'_j^m``.

        After noise, functions of u are as smooth as its density: every ``_stride``-th point will do.
        """
        weights = self._normal(_STEPS)
        coarse = [values[:: self._stride] for values in self._smooth]
        windows = [np.lib.stride_tricks.sliding_window_view(f, len(weights)) for f in coarse]
        both = ((windows[n] * weights) @ windows[m].T) ** options
        rest = ((windows[0] * weights) @ windows[0].T) ** (N_GATES - options)
        scale = (math.gamma(n * options) * math.gamma(m * options)) * (_STEPS * self.tau) ** 2
        return float((both * rest).sum()) / scale


def _matrix(entry: Callable[[int, int], float]) -> Array:
    return np.array([[entry(k, m) for m in range(N_GATES)] for k in range(N_GATES)])


def _exchangeable(*, diagonal: float, row_sum: float) -> Array:
    """Return the matrix [16, 16] with one diagonal entry and one other, from the sum of a row."""
    other = (row_sum - diagonal) / (N_GATES - 1)
    return np.full((N_GATES, N_GATES), other) + (diagonal - other) * np.eye(N_GATES)
