"""Expectations of truth-table entries over an initialisation and logistic noise, by quadrature.

Entries are independent: each is a function of one normal variable t (a parameter, or a Walsh transform
of four) and its own noise l, ``s = σ((z(t) + l) / tau)`` with the log-odds z. The trapezoidal rule
converges exponentially for both, as in :mod:`lgn_analysis.gates.softmax_moments`; where z is infinite at
some t, as for ``light`` with noise, with the fifth power of the step. Relative errors are below 1e-7, of
``light`` with noise, and 1e-11 else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from lgn_analysis.gates.parametrisations import WALSH_BASIS, Light, TruthTable, Walsh
from lgn_analysis.gates.relaxations import Relaxation
from lgn_analysis.gates.table import ENTRY_COEFFICIENTS

Array = NDArray[np.float64]

_REACH: Final = 14
"""Standard normal variables beyond it have probability 2e-44: slopes far out may be all there is."""
_NOISE_REACH: Final = 45
"""Logistic noise beyond it has probability 6e-20."""
_STEPS: Final = 4
"""Steps of the trapezoidal rule in one unit of t, or in tau where that is shorter."""
_SINGULAR_STEPS: Final = 200
"""The same for a function that is not analytic."""
_ROWS: Final = 512


class EntryMoments(NamedTuple):
    """Moments of the coefficients that truth tables give, and of their gradient, float64.

    Attributes:
        mean: E c [4].
        coefficients, coefficients_between: E c c^T [4, 4], of one draw of the noise and of two.
        gradient, gradient_between: ``E (∂c/∂θ)^T ∂c/∂θ`` [4, 4], the same.
    """

    mean: Array
    coefficients: Array
    coefficients_between: Array
    gradient: Array
    gradient_between: Array


def entry_moments(law: TruthTable, init: str, relaxation: Relaxation) -> EntryMoments:
    """Return the moments at an initialisation, in the training forward of a relaxation."""
    means, deviation = law.distribution(init)
    centres, factor = np.array(means), 1.0
    if isinstance(law, Walsh):  # log-odds -Hθ: H is orthogonal but for a factor 2
        centres, deviation, factor = -(WALSH_BASIS.double().numpy() @ centres), 2 * deviation, 4.0
    found = {
        float(centre): _of_entry(isinstance(law, Light), float(centre), deviation, relaxation)
        for centre in centres
    }
    mean, within, between, slope, slope_between = np.array([found[c] for c in centres]).T
    to_c = ENTRY_COEFFICIENTS.double().numpy()

    def products(squares: Array) -> Array:
        table = np.outer(mean, mean)
        np.fill_diagonal(table, squares)
        return np.asarray(to_c.T @ table @ to_c)

    def slopes(squares: Array) -> Array:
        return np.asarray(to_c.T @ np.diag(factor * squares) @ to_c)

    return EntryMoments(
        mean @ to_c, products(within), products(between), slopes(slope), slopes(slope_between)
    )


def _of_entry(
    sine: bool, centre: float, deviation: float, relaxation: Relaxation
) -> tuple[float, float, float, float, float]:
    """Return E v, E v², E v v', E (∂s/∂t)² and E ∂s/∂t ∂s'/∂t for one entry v and its relaxed s."""
    noisy, tau = relaxation.noisy, relaxation.tau
    totals = np.zeros(5)
    for t, weights in _nodes(sine and noisy, centre, deviation, tau):
        log_odds, slope = _log_odds(sine, t)
        s, ds = expit(log_odds / tau), expit(log_odds / tau) * expit(-log_odds / tau) / tau
        rows = [s, s**2, s**2, (ds * slope) ** 2, (ds * slope) ** 2]
        if noisy:
            rows = _over_noise(log_odds, slope, tau)
            if relaxation.hard:  # one with the probability σ(z), whatever tau is
                chance = expit(log_odds)
                rows[:3] = [chance, chance, chance**2]
        totals += np.array(rows) @ weights
    if relaxation.hard and not noisy:
        totals[:3] = _probability_of_one(sine, centre, deviation)
    mean, within, between, slope_within, slope_between = totals.tolist()
    return mean, within, between, slope_within, slope_between


def _log_odds(sine: bool, t: Array) -> tuple[Array, Array]:
    """Return z and ∂z/∂t."""
    if not sine:
        return t, np.ones_like(t)
    return 2 * np.arctanh(np.sin(t)), 2 / np.cos(t)


def _over_noise(log_odds: Array, slope: Array, tau: float) -> list[Array]:
    """Return E s, E s², (E s)², E (∂s/∂t)² and (E ∂s/∂t)² over the noise, at every log-odds."""
    step = min(1.0, tau) / _STEPS
    noise = np.arange(-_NOISE_REACH, _NOISE_REACH + step, step)
    density = step * expit(noise) * expit(-noise)
    s = expit((log_odds[:, None] + noise) / tau)
    ds = s * expit(-(log_odds[:, None] + noise) / tau) * (slope[:, None] / tau)
    mean, square, slope_mean, slope_square = (v @ density for v in (s, s**2, ds, ds**2))
    return [mean, square, mean**2, slope_square, slope_mean**2]


def _nodes(
    singular: bool, centre: float, deviation: float, tau: float
) -> Iterator[tuple[Array, Array]]:
    """Yield nodes and weights for t ~ N(centre, deviation²), some at a time."""
    if deviation == 0:
        yield np.array([centre]), np.ones(1)
        return
    per_unit = _STEPS * max(1.0, deviation / tau)
    step = 1 / (_SINGULAR_STEPS if singular else per_unit)
    # Off the centre: no node where a log-odds is infinite.
    x = np.arange(-_REACH, _REACH, step) + step / math.e
    weights = step * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    for first in range(0, len(x), _ROWS):
        rows = slice(first, first + _ROWS)
        yield centre + deviation * x[rows], weights[rows]


def _probability_of_one(sine: bool, centre: float, deviation: float) -> float:
    """Return the probability that log-odds are above zero: t > 0, or t in (0, π) modulo 2π."""
    if deviation == 0:
        return float(math.sin(centre) > 0 if sine else centre > 0)
    if not sine:
        return float(ndtr(centre / deviation))
    turns = 2 * math.pi * np.arange(-8, 9)
    ends = ndtr((np.stack([turns + math.pi, turns]) - centre) / deviation)
    return float((ends[0] - ends[1]).sum())
