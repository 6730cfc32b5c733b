"""From effects to verdicts, by rules that are written before the run.

An effect is oriented: positive is what the paper claims. A verdict compares its interval with the
null and with the smallest effect that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from scipy import stats

Outcome = Literal["holds", "fails", "inconclusive", "untested"]

LEVEL: Final = 0.95


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and how it is decided here, fixed before any run.

    Attributes:
        id: the row of the ledger, C1 … C11, with a letter where a claim has several measures.
        title: the claim in a few words.
        paper: the paper's figure and where it was measured.
        metric: what the effect is, oriented so that positive is as claimed.
        unit: the unit of the effect.
        smallest: the smallest effect that counts, in that unit; the null is zero.
        floor: discrete test accuracy that a run must reach at its end to count; 0 for none.
        log: effects are natural logarithms of ratios, and are written as factors.
    """

    id: str
    title: str
    paper: str
    metric: str
    unit: str = ""
    smallest: float = 0.0
    floor: float = 0.0
    log: bool = False


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
        effects: a row a seed: ``effect``, and ``counts``, false where a run was not trained.
        scale: the network, data and steps.
        source: the CSV that holds the effects.
        level: confidence level; above 0.95 where several effects share the claim.
    """
    values = effects.loc[effects["counts"], "effect"].to_list()
    left_out = len(effects) - len(values)
    aside = f"; {left_out} of {len(effects)} seeds not trained" if left_out else ""
    if len(values) < 2:
        return Verdict(
            claim,
            "inconclusive",
            *((values[0] if values else float("nan")), float("nan"), float("nan")),
            len(values),
            f"fewer than two seeds above {claim.floor:.0%} discrete accuracy{aside}",
            scale,
            source,
            level,
        )
    effect, low, high = t_interval(values, level)
    outcome, reason = outcome_of(effect, low, high, claim.smallest)
    return Verdict(
        claim, outcome, effect, low, high, len(values), reason + aside, scale, source, level
    )


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


def describe(frame: pd.DataFrame) -> str:
    """Return the scale of the runs in a frame: data, networks, steps and seeds."""
    parts = []
    shapes = frame[["dataset", "depth", "width", "group_tau", "init", "steps"]].drop_duplicates()
    for row in shapes.itertuples():
        parts.append(
            f"{row.dataset}, {row.depth} × {row.width} gates, group_tau {row.group_tau:g}, "
            f"{row.init} init, {row.steps} steps"
        )
    return f"{'; '.join(parts)}; {frame['seed'].nunique()} seeds"


def paired(
    frame: pd.DataFrame, column: str, *, floor: float, accuracy: str = "discrete_accuracy"
) -> pd.DataFrame:
    """Return a row a seed with ``column`` of the DLGN and of the GLGN, and whether both count.

    Args:
        frame: a row a run, with ``relaxation``, ``seed``, ``column`` and ``accuracy``.
        column: what to pair.
        floor: accuracy that both runs must reach.
        accuracy: the column that is compared with ``floor``.
    """
    kinds = {"soft": "dlgn", "gumbel-st": "glgn"}
    chosen = frame[frame["relaxation"].isin(kinds)]
    values = chosen.pivot(index="seed", columns="relaxation", values=column).rename(columns=kinds)
    trained = chosen.pivot(index="seed", columns="relaxation", values=accuracy).min(axis=1)
    return values.assign(accuracy=trained, counts=trained >= floor).dropna().reset_index()
