"""Verdicts in words, alike in the ledger, the report, the README and on the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from lgn_analysis.experiments import Verdict
from lgn_analysis.experiments.verdicts import (
    INCONCLUSIVE,
    NEGLIGIBLE,
    NOT_TESTABLE,
    REVERSED,
    SUPPORTED,
    Outcome,
)

OUTCOMES: Final[tuple[Outcome, ...]] = (
    SUPPORTED,
    REVERSED,
    NEGLIGIBLE,
    INCONCLUSIVE,
    NOT_TESTABLE,
)


def format_effect(verdict: Verdict) -> str:
    """Return what was measured with its interval, in the claim's unit; ratios as factors."""
    if math.isnan(verdict.effect):
        return "–"
    measured = (verdict.effect, verdict.low, verdict.high)
    if verdict.claim.most is not None:
        most = verdict.claim.most
        measured = (most - verdict.effect, most - verdict.high, most - verdict.low)
    effect, low, high = _values(verdict, *measured)
    interval = "" if math.isnan(verdict.low) else f"[{low}, {high}]"
    return " ".join(f"{effect} {verdict.claim.unit} {interval}".split())


def format_smallest(verdict: Verdict) -> str:
    """Return the smallest effect that counts, or the most that the claim allows, in its unit."""
    most = verdict.claim.most
    (bound,) = _values(verdict, verdict.claim.smallest if most is None else most)
    return f"{'' if most is None else '≤ '}{bound} {verdict.claim.unit}".strip()


def format_interval(verdict: Verdict) -> str:
    """Return what kind of interval it is and over how many seeds."""
    if math.isnan(verdict.low):
        return f"n = {verdict.n}"
    return f"{100 * verdict.level:.4g} % t interval, n = {verdict.n}"


def format_p(verdict: Verdict) -> str:
    """Return the p-value, that of a primary measure corrected for the others; empty without one."""
    corrected = not math.isnan(verdict.p_corrected)
    value = verdict.p_corrected if corrected else verdict.p
    if math.isnan(value):
        return ""
    shown = f"p {'< 0.0001' if value < 1e-4 else f'= {value:.2g}'}"
    return f"{shown} (Holm)" if corrected else shown


def tally(verdicts: Sequence[Verdict]) -> str:
    """Return how many primary measures have each outcome, and how many measures are secondary."""
    primary = [verdict.outcome for verdict in verdicts if verdict.claim.primary]
    counts = Counter(primary)
    listed = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    return f"{listed}; beside these {len(verdicts) - len(primary)} secondary measures"


def css_class(outcome: Outcome) -> str:
    """Return the name of an outcome as a class of the style sheet."""
    return outcome.replace(" ", "-")


def _values(verdict: Verdict, *numbers: float) -> list[str]:
    if verdict.claim.log:
        numbers = tuple(math.exp(number) for number in numbers)
    # What is left where seeds cancel is rounding.
    numbers = tuple(0.0 if abs(number) < 1e-12 else number for number in numbers)
    return [f"{number:.3g}".replace("inf", "∞").replace("-", "−") for number in numbers]
