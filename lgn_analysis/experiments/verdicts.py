"""From effects to verdicts, by rules that are written before the run.

An effect is oriented: positive is what is claimed. A verdict compares its interval with the null,
zero, and with the smallest effect that counts. Intervals are Student's t over seeds.

A censored measurement gives bounds of an effect instead of a value. An interval then runs from the
low end of the interval of the lower bounds to the high end of that of the upper bounds, and is open
where some seed has no bound: mean(lower) ≤ mean(effect) ≤ mean(upper), so its coverage is no less
than the level, whatever the censored values are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from scipy import stats

Outcome = Literal["holds", "fails", "inconclusive", "untested"]

LEVEL: Final = 0.95

MIN_SEEDS: Final = 5
"""Seeds that must count for a claim to be decided."""


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
    """

    id: str
    title: str
    paper: str
    metric: str
    unit: str = ""
    smallest: float = 0.0
    log: bool = False
    null: str = "the methods do not differ"

    @property
    def number(self) -> str:
        """The claim without its measure, ``C1``."""
        return self.id.split()[0]


@dataclass(frozen=True)
class Verdict:
    """What became of a claim, with its scale.

    Attributes:
        outcome: ``holds``: the interval lies above the null and the estimate counts. ``fails``: the
            interval lies below the smallest effect that counts. ``inconclusive``: neither.
            ``untested``: never run at a scale that can decide it.
        effect, low, high: mean effect over seeds and its interval; NaN where untested.
        level: the confidence level of the interval.
        n: seeds behind it.
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

    def to_row(self) -> dict[str, Any]:
        """Return the row of the ledger."""
        row = asdict(self)
        return {**row.pop("claim"), **row}


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """Return the mean and the two-sided t interval of independent values.

    >>> t_interval([1.0, 2.0, 3.0])
    (2.0, -0.48413771175033027, 4.48413771175033)
    """
    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean())
    if len(sample) < 2:
        return mean, float("-inf"), float("inf")
    half = float(stats.t.ppf((1 + level) / 2, len(sample) - 1) * stats.sem(sample))
    return mean, mean - half, mean + half


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
        effects: a row a seed: ``effect``, and ``counts``, false where a run was not trained; with
            ``lower`` and ``upper`` where an effect may be known by its bounds alone.
        scale: the network, data and steps.
        source: the CSV that holds the effects.
        level: confidence level; above 0.95 where several effects share the claim.
    """
    counted = effects[effects["counts"].astype(bool)] if len(effects) else effects
    left_out = len(effects) - len(counted)
    aside = f"; {left_out} of {len(effects)} seeds not trained" if left_out else ""
    nan = float("nan")
    if len(counted) < 2:
        effect = float(counted["effect"].iloc[0]) if len(counted) else nan
        effect, low, high = effect, nan, nan
    else:
        effect, low, high = _interval(counted, level)
    if len(counted) < MIN_SEEDS:
        outcome: Outcome = "inconclusive"
        reason = f"fewer than {MIN_SEEDS} seeds whose runs are trained"
    else:
        outcome, reason = outcome_of(effect, low, high, claim.smallest)
        censored = int((counted["lower"] < counted["upper"]).sum()) if "lower" in counted else 0
        if censored:
            aside += f"; {censored} of {len(counted)} seeds give a bound, their run is censored"
    return Verdict(
        claim, outcome, effect, low, high, len(counted), reason + aside, scale, source, level
    )


def _interval(counted: pd.DataFrame, level: float) -> tuple[float, float, float]:
    effect, low, high = t_interval(counted["effect"].to_list(), level)
    if "lower" not in counted:
        return effect, low, high
    infinite = float("inf")
    # A claim without censored runs shares its table with one that has them.
    lower = counted["lower"].fillna(counted["effect"]).to_list()
    upper = counted["upper"].fillna(counted["effect"]).to_list()
    low = -infinite if -infinite in lower else t_interval(lower, level)[1]
    high = infinite if infinite in upper else t_interval(upper, level)[2]
    return effect, low, high


def decide_some(
    claim: Claim, effects: pd.DataFrame, *, by: Sequence[str], scale: str, source: str
) -> Verdict:
    """Return the verdict on "in some cell there is an effect", and name the cell.

    The intervals of the cells share the level (Bonferroni), since the best of them is reported:
    ``holds`` where it holds in some cell, ``fails`` where it fails in every one that is trained.
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
    decided = [item for item in found if item[0].n >= MIN_SEEDS]
    holding = [item for item in decided if item[0].outcome == "holds"]
    best, cell = max(holding or decided or found, key=lambda item: item[0].effect)
    outcome: Outcome = best.outcome
    if outcome == "fails" and any(verdict.outcome != "fails" for verdict, _ in decided):
        outcome = "inconclusive"
    counts = {kind: sum(v.outcome == kind for v, _ in decided) for kind in ("holds", "fails")}
    return replace(
        best,
        outcome=outcome,
        scale=f"{scale}; best {cell}",
        reason=f"{best.reason}; holds in {counts['holds']} and fails in {counts['fails']} of "
        f"{len(decided)} cells with enough trained seeds, intervals at {level:.2%}",
    )


UNTESTED: Final = "no run here can decide it"


def outcome_of(effect: float, low: float, high: float, smallest: float) -> tuple[Outcome, str]:
    """Return the outcome and a sentence, by the rule in :class:`Verdict`.

    >>> outcome_of(2.0, 1.0, 3.0, smallest=0.5)[0], outcome_of(2.0, -1.0, 5.0, smallest=0.5)[0]
    ('holds', 'inconclusive')
    """
    if high < 0:
        return "fails", "the effect has the opposite sign"
    if high < smallest:
        return "fails", "the interval excludes an effect that counts"
    if low > 0 and effect >= smallest:
        return "holds", "the interval excludes no effect, and the effect counts"
    if low > 0:
        return "inconclusive", "there is an effect, and it may be too small to count"
    return "inconclusive", "the interval contains both no effect and an effect that counts"


def untested(claim: Claim, reason: str) -> Verdict:
    """Return the verdict on a claim that no run here can decide."""
    nan = float("nan")
    return Verdict(claim, "untested", nan, nan, nan, 0, reason, "", "")
