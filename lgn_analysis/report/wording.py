"""Verdicts in words, alike in the ledger, the report, the README and on the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from lgn_analysis.experiments import Verdict
from lgn_analysis.experiments.verdicts import Outcome

OUTCOMES: Final[tuple[Outcome, ...]] = ("holds", "fails", "inconclusive", "untested")


def format_effect(verdict: Verdict) -> str:
    """Return the effect with its interval, in the claim's unit; ratios as factors."""
    if math.isnan(verdict.effect):
        return "–"
    effect, low, high = _values(verdict, verdict.effect, verdict.low, verdict.high)
    interval = "" if math.isnan(verdict.low) else f"[{low}, {high}]"
    return " ".join(f"{effect} {verdict.claim.unit} {interval}".split())


def format_smallest(verdict: Verdict) -> str:
    """Return the smallest effect that counts, in the claim's unit."""
    (smallest,) = _values(verdict, verdict.claim.smallest)
    return f"{smallest} {verdict.claim.unit}".strip()


def format_interval(verdict: Verdict) -> str:
    """Return what kind of interval it is and over how many seeds."""
    if math.isnan(verdict.low):
        return f"n = {verdict.n}"
    return f"{100 * verdict.level:.4g} % t interval, n = {verdict.n}"


def tally(verdicts: Sequence[Verdict]) -> str:
    """Return how many verdicts there are of each outcome."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])


def _values(verdict: Verdict, *numbers: float) -> list[str]:
    if verdict.claim.log:
        numbers = tuple(math.exp(number) for number in numbers)
    # What is left where seeds cancel is rounding.
    numbers = tuple(0.0 if abs(number) < 1e-12 else number for number in numbers)
    return [f"{number:.3g}".replace("inf", "∞").replace("-", "−") for number in numbers]
