"""From effects to verdicts, by rules that are written before the run.

An effect is oriented: positive is what is claimed. A claim names its premise, what has to be there for
the question to have a meaning: a gap to reduce, methods that train. It names the smallest effect that
counts, s, and a verdict compares an interval with it:

- ``supported``: the interval lies at s or above;
- ``reversed``: it lies at −s or below;
- ``negligible``: it lies between −s and s;
- ``inconclusive``: none of these, or too few seeds;
- ``not testable here``: the premise is absent from most seeds, or no run here can decide it.

A premise is met or not by a whole comparison: where most seeds meet it, all of them enter, so that
nothing is selected by its outcome. One measure of a claim is primary; p-values of all primary measures
are corrected together (:func:`corrected`), the others are secondary and say so.

Intervals are Student's t over seeds. Where accuracies are compared, ``test_variance`` adds what the
choice of the test samples contributes: all seeds share them, so that it does not shrink with seeds.
A censored measurement gives bounds of an effect instead of a value. An interval then runs from the
low end of the interval of the lower bounds to the high end of that of the upper bounds, and is open
where some seed has no bound: mean(lower) ≤ mean(effect) ≤ mean(upper), so its coverage is no less
than the level, whatever the censored values are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from scipy import stats

SUPPORTED: Final = "supported"
REVERSED: Final = "reversed"
NEGLIGIBLE: Final = "negligible"
INCONCLUSIVE: Final = "inconclusive"
NOT_TESTABLE: Final = "not testable here"
Outcome = Literal["supported", "reversed", "negligible", "inconclusive", "not testable here"]

LEVEL: Final = 0.95

MIN_SEEDS: Final = 5
"""Seeds that a claim needs to be decided."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and how it is decided here, fixed before any run.

    Attributes:
        id: the row of the ledger, C1 … C14, with a word where a claim has several measures.
        title: the claim in a few words.
        paper: the paper's figure and where it was measured.
        metric: what the effect is, oriented so that positive is as claimed.
        unit: the unit of the effect.
        smallest: the smallest effect that counts, in that unit.
        log: effects are natural logarithms of ratios, and are written as factors.
        null: what an effect of zero says.
        premise: what has to be there for the question to have a meaning; empty where nothing has.
        primary: whether this is the measure that decides the claim.
        most: the claim is that a quantity is this or less: the effect is ``most`` less the quantity, and
            what a reader is shown is the quantity. None where the effect itself is what is measured.
    """

    id: str
    title: str
    paper: str
    metric: str
    unit: str = ""
    smallest: float = 0.0
    log: bool = False
    null: str = "the methods do not differ"
    premise: str = ""
    primary: bool = True
    most: float | None = None

    @property
    def number(self) -> str:
        """The claim without its measure, ``C1``."""
        return self.id.split()[0]


@dataclass(frozen=True)
class Verdict:
    """What became of a claim, with its scale.

    Attributes:
        outcome: one of the five of this module.
        effect, low, high: mean effect over seeds and its interval; NaN where not testable.
        level: the confidence level of the interval.
        n: seeds behind it.
        p: probability of an effect as far beyond the smallest that counts if there is none that does.
        p_corrected: the same, corrected for the other primary measures of the ledger.
        alone: what the outcome was before that, where it is another one now; else empty.
        reason: one sentence.
        scale: the network, data and steps it was measured on.
        source: the CSV that holds the effects.
    """

    claim: Claim
    outcome: Outcome
    effect: float
    low: float
    high: float
    n: int
    reason: str
    scale: str
    source: str
    level: float = LEVEL
    p: float = math.nan
    p_corrected: float = math.nan
    alone: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the row of the ledger."""
        row = asdict(self)
        return {**row.pop("claim"), **row}


@dataclass(frozen=True)
class Estimate:
    """The mean of independent values with its standard error and degrees of freedom.

    ``variance`` is what the test samples add to the variance of the mean; it has no degrees of freedom
    of its own to lose (Welch and Satterthwaite).
    """

    mean: float
    stderr: float
    freedom: float

    @classmethod
    def of(cls, values: Sequence[float], variance: float = 0.0) -> Estimate:
        """Return the estimate from a value a seed."""
        sample = np.asarray(values, dtype=float)
        mean = float(sample.mean())
        if len(sample) < 2 or not np.isfinite(sample).all():
            return cls(mean, math.inf, 1.0)
        over_seeds = float(sample.var(ddof=1)) / len(sample)
        whole = over_seeds + variance
        freedom = (len(sample) - 1) * (whole / over_seeds) ** 2 if over_seeds else math.inf
        return cls(mean, math.sqrt(whole), freedom)

    def end(self, level: float, side: int) -> float:
        """Return the low (``side`` −1) or the high end (1) of the two-sided interval."""
        if math.isinf(self.stderr):
            return side * math.inf
        return self.mean + side * self.stderr * float(stats.t.ppf((1 + level) / 2, self.freedom))

    def tail(self, bound: float, side: int) -> float:
        """Return the p-value of "the mean is beyond ``bound``", above it (``side`` 1) or below (−1)."""
        if math.isinf(self.stderr):
            return 1.0
        distance = side * (self.mean - bound)
        if self.stderr == 0.0:
            return float(distance <= 0)
        return float(stats.t.sf(distance / self.stderr, self.freedom))


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """Return the mean and the two-sided t interval of independent values.

    >>> t_interval([1.0, 2.0, 3.0])
    (2.0, -0.4841377117503298, 4.48413771175033)
    """
    found = Estimate.of(values)
    return found.mean, found.end(level, -1), found.end(level, 1)


def decide(
    claim: Claim,
    effects: pd.DataFrame,
    *,
    scale: str,
    source: str,
    level: float = LEVEL,
) -> Verdict:
    """Return the verdict on the effects of one claim.

    Args:
        claim: what was claimed.
        effects: a row a seed: ``effect``, and ``counts``, whether it meets the premise; with ``lower``
            and ``upper`` where an effect may be known by its bounds alone, and ``test_variance``, in
            units of the effect squared, where the choice of test samples matters. A seed without an
            effect has no bound either.
        scale: the network, data and steps.
        source: the CSV that holds the effects.
        level: confidence level; above 0.95 where several effects share the claim.
    """
    n = len(effects)
    if not n:
        return replace(untested(claim, UNTESTED), scale=scale, source=source)
    meeting = int(effects["counts"].astype(bool).sum())
    low, middle, high = _estimates(effects)
    verdict = Verdict(
        claim,
        INCONCLUSIVE,
        middle.mean,
        low.end(level, -1),
        high.end(level, 1),
        n,
        f"{n} seeds, and it takes {MIN_SEEDS}",
        scale,
        source,
        level,
    )
    if 2 * meeting <= n:
        absent = f"in {n - meeting} of {n} seeds its premise is absent"
        reason = f"{absent}: {claim.premise}" if claim.premise else absent
        return replace(verdict, outcome=NOT_TESTABLE, reason=reason)
    if n < MIN_SEEDS:
        return verdict
    outcome, reason = outcome_of(verdict.low, verdict.high, claim.smallest)
    if meeting < n:
        reason += f"; {n - meeting} of {n} seeds lack the premise, and are not left out"
    censored = 0 if "lower" not in effects else int((effects["lower"] < effects["upper"]).sum())
    if censored:
        reason += f"; {censored} of {n} seeds give a bound, their run is censored"
    above, below = low.tail(claim.smallest, 1), high.tail(-claim.smallest, -1)
    return replace(verdict, outcome=outcome, reason=reason, p=min(1.0, 2 * min(above, below)))


def _estimates(effects: pd.DataFrame) -> tuple[Estimate, Estimate, Estimate]:
    """Return the estimates of the lower bounds, of the effects and of the upper bounds."""
    values = effects["effect"].astype(float)
    variance = float(effects["test_variance"].mean()) if "test_variance" in effects else 0.0
    variance = 0.0 if math.isnan(variance) else variance  # of another claim in the same table
    middle = Estimate.of(values.dropna().to_list() or [math.nan], variance)
    if "lower" not in effects:
        whole = Estimate.of(values.to_list(), variance)
        return whole, middle, whole
    # A claim without censored runs shares its table with one that has them.
    low, high = (
        Estimate.of(effects[name].fillna(values).to_list(), variance) for name in ("lower", "upper")
    )
    return low, middle, high


def decide_some(
    claim: Claim, effects: pd.DataFrame, *, by: Sequence[str], scale: str, source: str
) -> Verdict:
    """Return the verdict on "in some cell there is an effect", and name the cell.

    The intervals of the cells share the level (Bonferroni), since the best of them is reported:
    ``supported`` where some cell supports it, and denied only by every cell that can be tested.
    """
    groups = effects.groupby(list(by), sort=True)
    level = 1 - (1 - LEVEL) / groups.ngroups
    found: list[tuple[Verdict, str]] = []
    for key, rows in groups:
        cell = ", ".join(
            f"{name} {value:g}" if isinstance(value, (int, float)) else f"{name} {value}"
            for name, value in zip(by, key, strict=True)
        )
        found.append((decide(claim, rows, scale=scale, source=source, level=level), cell))
    tested = [item for item in found if item[0].outcome != NOT_TESTABLE]
    supporting = [item for item in tested if item[0].outcome == SUPPORTED]
    best, cell = max(supporting or tested or found, key=lambda item: _rank(item[0].effect))
    kinds = {verdict.outcome for verdict, _ in tested}
    outcome, p = best.outcome, best.p * groups.ngroups
    if tested and not supporting:
        denied = kinds <= {NEGLIGIBLE, REVERSED}
        outcome = (REVERSED if kinds == {REVERSED} else NEGLIGIBLE) if denied else INCONCLUSIVE
        p = max(verdict.p for verdict, _ in tested)  # every one of them has to deny it
    counts = ", ".join(
        f"{kind} in {sum(verdict.outcome == kind for verdict, _ in found)}"
        for kind in dict.fromkeys(verdict.outcome for verdict, _ in found)
    )
    return replace(
        best,
        outcome=outcome,
        p=min(1.0, p),
        scale=f"{scale}; best {cell}",
        reason=f"{best.reason}; {counts} of {len(found)} cells, intervals at {level:.2%}",
    )


def _rank(effect: float) -> float:
    return -math.inf if math.isnan(effect) else effect


def corrected(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts with the p-values of the primary ones corrected together (Holm, 1979).

    A primary claim that was supported or reversed by its own interval, and is no more so beside so
    many others, becomes inconclusive. At most one wrong decision among all of them is then made in
    one ledger of twenty.
    """
    primary = [i for i, one in enumerate(verdicts) if one.claim.primary and not math.isnan(one.p)]
    adjusted = dict(zip(primary, holm([verdicts[i].p for i in primary]), strict=True))
    found = []
    for index, verdict in enumerate(verdicts):
        p = adjusted.get(index, math.nan)
        verdict = replace(verdict, p_corrected=p)
        if verdict.outcome in (SUPPORTED, REVERSED) and p > 1 - LEVEL:
            reason = f"{verdict.outcome} by itself, and not beside {len(primary) - 1} other primary measures"
            verdict = replace(
                verdict,
                outcome=INCONCLUSIVE,
                alone=verdict.outcome,
                reason=f"{reason} (p = {p:.2g})",
            )
        found.append(verdict)
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by the step-down rule of Holm (1979), in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    steps = np.asarray(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(value) for value in corrected]


UNTESTED: Final = "no run here can decide it"


def outcome_of(low: float, high: float, smallest: float) -> tuple[Outcome, str]:
    """Return the outcome of an interval and a sentence, by the rule of this module.

    >>> outcome_of(1.0, 3.0, smallest=0.5)[0], outcome_of(-1.0, 5.0, smallest=0.5)[0]
    ('supported', 'inconclusive')
    """
    if low >= smallest:
        return SUPPORTED, "the whole interval is as claimed, and counts"
    if high <= -smallest:
        return REVERSED, "the whole interval is against the claim, and counts"
    if -smallest < low and high < smallest:
        return NEGLIGIBLE, "nothing in the interval counts"
    if low > 0:
        return INCONCLUSIVE, "there is an effect, and it may be too small to count"
    if high < 0:
        return INCONCLUSIVE, "there is an effect of the opposite sign, perhaps too small to count"
    return INCONCLUSIVE, "the interval contains both no effect and an effect that counts"


def untested(claim: Claim, reason: str) -> Verdict:
    """Return the verdict on a claim that no run here can decide."""
    nan = float("nan")
    return Verdict(claim, NOT_TESTABLE, nan, nan, nan, 0, reason, "", "")
