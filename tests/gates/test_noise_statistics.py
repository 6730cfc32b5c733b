"""A hundred million draws of the kernels' Gumbel noise against the law that they should follow.

Every check is a p-value under independent Gumbel(0, 1) draws, and the smallest of all checks must exceed
``FALSE_ALARM`` over their number: by Bonferroni, noise that is right fails this file with a probability
of at most 1e-6. Where a p-value is that of a normal limit, 1e7 terms and more stand behind it. What
float32 and 32-bit words take away is out of sight: values err by 4 · 2**-23 · max(1, |g|) at most, some 5e-7,
where the mean's standard error is 1.3e-4 and a bin's share has one of 3e-3 of itself.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special, stats

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.kernels import cpu

pytestmark = pytest.mark.slow

Array = NDArray[np.float64]

FALSE_ALARM = 1e-6
DRAWS, LAYERS, GATES, OPTIONS = 10, 5, 125_000, 16
N = DRAWS * LAYERS * GATES * OPTIONS
SEED = 2**63 + 11
BINS = 2**16
TAILS = (1e-1, 1e-2, 1e-4, 1e-6, 2e-7)
"""Probabilities beyond thresholds on either side; 20 draws are expected beyond the last."""
LAGS = (1, 2, 3, 4, 8, 16, 32, 64, 1024)
"""Along the noise of a layer, option by option and gate by gate: 16 is the same option of the next gate."""
LOGITS = {
    "equal": np.zeros(16),
    "spread": np.linspace(-1.5, 1.5, 16),
    "residual": np.where(np.arange(16) == 3, 5.0, 0.0),
    "alternating": np.where(np.arange(16) % 2, 2.0, -2.0),
}
SIDES = 16
"""Cells a side of a table of two neighbours."""
LOWEST, HIGHEST = -math.log(33 * math.log(2)), 33 * math.log(2)
"""Of u = ½ / 2**32 and 1 − u, to first order."""


def central_moment(k: int) -> float:
    """The k-th central moment of Gumbel(0, 1), from its cumulants (j − 1)! ζ(j)."""
    moments = [1.0, 0.0]
    for n in range(2, k + 1):
        cumulants = (math.factorial(j - 1) * special.zeta(j) for j in range(2, n + 1))
        terms = zip(range(2, n + 1), cumulants, strict=True)
        moments.append(sum(math.comb(n - 1, j - 1) * c * moments[n - j] for j, c in terms))
    return moments[k]


def two_sided(z: float) -> float:
    return float(2 * stats.norm.sf(abs(z)))


def of_counts(counts: NDArray[np.int64], probabilities: Array) -> float:
    """The p-value of Pearson's χ²."""
    expected = probabilities * counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return float(stats.chi2.sf(statistic, len(counts) - 1))


class Evidence:
    """What is kept of the draws, a network's noise at a time."""

    def __init__(self) -> None:
        self.n = 0
        self.all_finite = True
        self.lowest, self.highest = math.inf, -math.inf
        self.powers = np.zeros(5)
        self.bins = np.zeros(BINS, dtype=np.int64)
        self.above = np.zeros(len(TAILS), dtype=np.int64)
        self.below = np.zeros(len(TAILS), dtype=np.int64)
        self.choices = {name: np.zeros(16, dtype=np.int64) for name in LOGITS}
        self.products: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        self.tables: dict[str, NDArray[np.int64]] = {}

    def add(self, noise: NDArray[np.float32], before: Array | None) -> Array:
        """Take the noise [layers, gates, options] of one draw; return its probabilities."""
        self.n += noise.size
        self.all_finite &= bool(np.isfinite(noise).all())
        self.lowest = min(self.lowest, float(noise.min()))
        self.highest = max(self.highest, float(noise.max()))
        if not self.all_finite:
            noise = np.nan_to_num(noise, posinf=0.0, neginf=0.0)  # one test says it, and not all
        centred = noise.astype(np.float64) - np.euler_gamma
        power = np.ones_like(centred)
        for k in range(1, 5):
            power *= centred
            self.powers[k] += power.sum()
        u = np.exp(-np.exp(-noise.astype(np.float64)))
        places = np.minimum((u * BINS).astype(np.int64), BINS - 1)
        self.bins += np.bincount(places.reshape(-1), minlength=BINS)
        for k, p in enumerate(TAILS):
            self.above[k] += int((noise > -math.log(-math.log1p(-p))).sum())
            self.below[k] += int((noise < -math.log(-math.log(p))).sum())
        for name, z in LOGITS.items():
            best = (noise + z.astype(np.float32)).argmax(-1)
            self.choices[name] += np.bincount(best.reshape(-1), minlength=16)
        self.compare(u)
        if before is not None:
            self.neighbours("draws", before, u)
        return u

    def compare(self, u: Array) -> None:
        """Take the products of what stands at different places of one draw."""
        for name, score in scores(u):
            by_option = score.reshape(-1, OPTIONS)
            gram = by_option.T @ by_option
            for i in range(OPTIONS):
                for j in range(i):
                    self.products[f"options {j} and {i}, {name}"].append(
                        (float(gram[i, j]), len(by_option))
                    )
            streams = score.reshape(LAYERS, -1)
            for lag in LAGS:
                product = float(sum(row[:-lag] @ row[lag:] for row in streams))
                self.products[f"lag {lag}, {name}"].append((product, streams[:, lag:].size))
        self.neighbours("options", u[..., :-1], u[..., 1:])
        self.neighbours("gates", u[:, :-1], u[:, 1:])
        self.neighbours("layers", u[:-1], u[1:])

    def neighbours(self, name: str, first: Array, second: Array) -> None:
        """Take products of two arrays of probabilities, and a table of both for all that is joint."""
        first, second = first.reshape(-1), second.reshape(-1)
        for (what, a), (_, b) in zip(scores(first), scores(second), strict=True):
            self.products[f"{name}, {what}"].append((float(a @ b), len(a)))
        cells = (first * SIDES).astype(np.int64) * SIDES + (second * SIDES).astype(np.int64)
        counts = np.bincount(cells, minlength=SIDES**2)
        self.tables[name] = self.tables.get(name, np.zeros_like(counts)) + counts

    def moments(self) -> Iterator[tuple[str, float]]:
        for k, name in enumerate(("mean", "variance", "skewness", "kurtosis"), start=1):
            exact = central_moment(k)
            spread = math.sqrt((central_moment(2 * k) - exact**2) / self.n)
            yield name, two_sided((self.powers[k] / self.n - exact) / spread)

    def shape(self) -> Iterator[tuple[str, float]]:
        coarse = self.bins.reshape(1024, -1).sum(1)
        yield "1024 bins of equal probability", of_counts(coarse, np.full(1024, 1 / 1024))
        # At the bins' edges alone: never more than the distance over all values.
        shares = self.bins.cumsum() / self.n
        distance = float(np.abs(shares - np.arange(1, BINS + 1) / BINS).max())
        yield "Kolmogorov-Smirnov", float(stats.kstwobign.sf(distance * math.sqrt(self.n)))

    def tails(self) -> Iterator[tuple[str, float]]:
        for side, counts in (("above", self.above), ("below", self.below)):
            for p, count in zip(TAILS, counts, strict=True):
                low, high = stats.binom.cdf(count, self.n, p), stats.binom.sf(count - 1, self.n, p)
                yield f"{p:g} {side}", float(2 * min(low, high))
        largest = math.exp(-self.n * math.exp(-self.highest))
        yield "largest", 2 * min(largest, 1 - largest)
        smallest = math.exp(-self.n * math.exp(-math.exp(-self.lowest)))
        yield "smallest", 2 * min(smallest, 1 - smallest)

    def dependence(self) -> Iterator[tuple[str, float]]:
        squares: defaultdict[str, float] = defaultdict(float)
        for name, parts in self.products.items():
            total, n = (sum(column) for column in zip(*parts, strict=True))
            z = total / math.sqrt(n)
            yield name, two_sided(z)
            if name.startswith("options ") and " and " in name:
                squares[name.split(", ")[1]] += z**2
        for name, square in squares.items():
            yield f"every pair of options, {name}", float(stats.chi2.sf(square, 120))
        for name, table in self.tables.items():
            yield f"table of {name}", of_counts(table, np.full(SIDES**2, 1 / SIDES**2))

    def selection(self) -> Iterator[tuple[str, float]]:
        for name, counts in self.choices.items():
            yield name, of_counts(counts, special.softmax(LOGITS[name]))


def scores(u: Array) -> Iterator[tuple[str, Array]]:
    """Functions of a probability with mean 0 and variance 1: where it lies, and how far out."""
    centred = u - 0.5
    yield "place", math.sqrt(12) * centred
    yield "distance", math.sqrt(180) * (centred**2 - 1 / 12)


def noise_of(key: NoiseKey) -> NDArray[np.float32]:
    noise: NDArray[np.float32] = cpu.gumbel(key, torch.arange(LAYERS), GATES).numpy()
    return noise


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """The noise of ten steps of training, and how its first is related to other seeds and purposes."""
    evidence, before = Evidence(), None
    for draw in range(DRAWS):
        key = NoiseKey(SEED, Purpose.TRAINING, draw)
        u = evidence.add(noise_of(key), before)
        if draw == 0:
            others = {
                "seeds": NoiseKey(SEED + 1, Purpose.TRAINING),
                "purposes": NoiseKey(SEED, Purpose.EVALUATION),
                "seed and draw": NoiseKey(SEED + 2**32, Purpose.TRAINING, 2**32),
            }
            for name, other in others.items():
                far = np.exp(-np.exp(-noise_of(other).astype(np.float64)))
                evidence.neighbours(name, u, far)
        before = u
    return evidence


@pytest.fixture(scope="module")
def p_values(evidence: Evidence) -> dict[str, dict[str, float]]:
    kinds = ("moments", "shape", "tails", "dependence", "selection")
    return {kind: dict(getattr(evidence, kind)()) for kind in kinds}


def test_a_hundred_million_draws_are_finite_and_within_what_32_bits_allow(
    evidence: Evidence,
) -> None:
    assert evidence.n == N == 100_000_000
    assert evidence.all_finite
    rounding = 4 * 2.0**-23
    assert evidence.lowest >= LOWEST * (1 + rounding)
    assert evidence.highest <= HIGHEST * (1 + rounding)


@pytest.mark.parametrize(
    ("kind", "n_checks"),
    [("moments", 4), ("shape", 2), ("tails", 12), ("dependence", 281), ("selection", 4)],
)
def test_draws_follow_the_law_of_independent_gumbels(
    p_values: dict[str, dict[str, float]], kind: str, n_checks: int
) -> None:
    """False alarms of all five together: 1e-6, shared out evenly among the checks."""
    assert len(p_values[kind]) == n_checks
    threshold = FALSE_ALARM / sum(map(len, p_values.values()))
    suspicious = {name: p for name, p in p_values[kind].items() if not p > threshold}
    assert not suspicious
