"""C1: does Gumbel noise with a straight-through estimator converge faster?

Time to the setting's target accuracy on the validation split, in iterations and in seconds of
training, DLGN over GLGN, paired by seed. A run that never gets there is censored at its last step,
and its pair gives a bound of the ratio instead of a value: see
:mod:`lgn_analysis.experiments.verdicts` for the interval of bounds. So does a run that had arrived by
its first evaluation after step 0. A pair of which neither arrives says nothing. Seconds are those of an undisturbed machine, see
:func:`lgn_analysis.experiments.frames.undisturbed_seconds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import (
    at_paper_size,
    each_setting,
    effects_by_setting,
    factor_claim,
    smaller_scale,
)
from lgn_analysis.experiments.frames import histories, pair_specs, pairs, undisturbed_seconds
from lgn_analysis.experiments.settings import PAIR, Preset
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict
from lgn_analysis.metrics import convergence

ITERATIONS: Final = factor_claim(
    "C1 iterations",
    "GLGNs converge in fewer iterations",
    paper="4.75× fewer iterations (CIFAR-10, 12 × 256k)",
    metric="iterations to the target discrete validation accuracy, DLGN / GLGN",
    null="both methods take equally long",
    premise="one of the methods reaches the target",
)
SECONDS: Final = factor_claim(
    "C1 seconds",
    "GLGNs converge in less time",
    paper="4.5× less wall-clock time (CIFAR-10, 12 × 256k)",
    metric="seconds of training to the target discrete validation accuracy, DLGN / GLGN",
    null="both methods take equally long",
    premise="one of the methods reaches the target",
    primary=False,
)
PAPER_FACTOR: Final = 4.75
SIZE: Final = Claim(
    id="C1 size",
    title="The factor is that of the paper",
    paper=ITERATIONS.paper,
    metric="iterations DLGN / GLGN at the paper's size, over half the paper's factor",
    unit="×",
    log=True,
    null="the factor is half the paper's",
    premise="CIFAR-10 at 12 × 256k",
    primary=False,
)
CLAIMS: Final = (ITERATIONS, SECONDS, SIZE)
_SOURCE: Final = "convergence.effects.csv"
specs = pair_specs


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the training histories, a row a run, step and split; seconds undisturbed by others."""
    columns = ["step", "split", "n", "seconds", "loss"]
    columns += ["soft_accuracy", "noisy_accuracy", "discrete_accuracy"]
    history = histories(records, pairs(preset.pairs), columns)
    return history if history.empty else undisturbed_seconds(history)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim: ``effect`` = ln(DLGN / GLGN), and its bounds.

    A censored run stands in ``effect`` with the step that bounds it; ``lower`` and ``upper`` say what is
    known.
    """
    return effects_by_setting(frame, _ratios)


def _ratios(runs: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    iterations = time_ratios(runs, "step", PAIR)
    yield ITERATIONS, iterations
    if _is_paper_size(runs):
        known = ["effect", "lower", "upper"]
        yield SIZE, iterations.assign(**iterations[known] - math.log(PAPER_FACTOR / 2))
    yield SECONDS, time_ratios(runs, "seconds", PAIR)


def time_ratios(runs: pd.DataFrame, measure: str, methods: tuple[str, str]) -> pd.DataFrame:
    """Return a row a seed: the time of the first method to the target over that of the second.

    Args:
        runs: histories of one setting.
        measure: ``"step"`` or ``"seconds"``.
        methods: the two relaxations.
    """
    rows = []
    for seed, both in runs.groupby("seed"):
        histories = dict(list(both.groupby("relaxation")))
        if set(methods) <= set(histories):
            first, second = (_Time.of(histories[kind], measure) for kind in methods)
            rows.append({"seed": seed, **_ratio(first, second)})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Time:
    """A time to the target: ``known`` is what was seen, ``least`` and ``most`` what it may be."""

    known: float
    least: float
    most: float

    @classmethod
    def of(cls, history: pd.DataFrame, measure: str) -> _Time:
        found = convergence(history, float(history["target"].iloc[0]))
        value = float(getattr(found, measure))
        if not found.reached:
            return cls(value, value, math.inf)
        steps = history["step"]
        at_first = found.step <= steps[steps > 0].min()
        return cls(value, 0.0 if at_first else value, value)

    @property
    def censored(self) -> bool:
        return self.least < self.most


def _ratio(first: _Time, second: _Time) -> dict[str, object]:
    arrived = math.isfinite(first.most) or math.isfinite(second.most)
    counts = arrived and min(first.known, second.known) > 0
    censored = [name for name, run in (("dlgn", first), ("glgn", second)) if run.censored]
    return {
        "dlgn": first.known,
        "glgn": second.known,
        "censored": ", ".join(censored),
        "effect": math.log(first.known / second.known) if counts else math.nan,
        "lower": _log(first.least) - _log(second.most) if counts else -math.inf,
        "upper": _log(first.most) - _log(second.least) if counts else math.inf,
        "counts": counts,
    }


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on iterations and seconds, and at the paper's size on the factor."""
    table = effects(frame)
    found = each_setting((ITERATIONS, SECONDS), frame, table, source=_SOURCE)
    smaller = smaller_scale(found, ITERATIONS, lambda effect: f"{math.exp(effect):.2g}×")
    otherwise = f"needs CIFAR-10 at 12 × 256k; {smaller}"
    return found + at_paper_size(
        SIZE, frame, table, _is_paper_size, source=_SOURCE, otherwise=otherwise
    )


def _is_paper_size(runs: pd.DataFrame) -> bool:
    return bool(
        (runs["dataset"] == "cifar10").all()
        and (runs["width"] >= 256_000).all()
        and (runs["depth"] >= 12).all()
    )
