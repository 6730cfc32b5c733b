"""C1: does Gumbel noise with a straight-through estimator converge faster?

Time to the setting's target accuracy on the validation split, in iterations and in seconds of
training, DLGN over GLGN, paired by seed. A run that never gets there is censored at its last step,
and its pair gives a bound of the ratio instead of a value: see
:mod:`lgn_analysis.experiments.verdicts` for the interval of bounds. A pair of which neither arrives
says nothing and does not count. Seconds are those of an undisturbed machine, see
:func:`lgn_analysis.experiments.frames.undisturbed_seconds`.
"""

from __future__ import annotations

import math
from typing import Final

import pandas as pd

from lgn_analysis.experiments.frames import RUN_COLUMNS, gather, undisturbed_seconds
from lgn_analysis.experiments.settings import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import (
    Claim,
    Verdict,
    decide,
    describe,
    each_setting,
    label,
    smaller_scale,
    table_of,
    untested,
)
from lgn_analysis.metrics import Convergence, convergence

_NULL: Final = "both methods take equally long"
ITERATIONS: Final = Claim(
    id="C1 iterations",
    title="GLGNs converge in fewer iterations",
    paper="4.75× fewer iterations (CIFAR-10, 12 × 256k)",
    metric="iterations to the target discrete validation accuracy, DLGN / GLGN",
    unit="×",
    smallest=math.log(1.25),
    log=True,
    null=_NULL,
)
SECONDS: Final = Claim(
    id="C1 seconds",
    title="GLGNs converge in less time",
    paper="4.5× less wall-clock time (CIFAR-10, 12 × 256k)",
    metric="seconds of training to the target discrete validation accuracy, DLGN / GLGN",
    unit="×",
    smallest=math.log(1.25),
    log=True,
    null=_NULL,
)
PAPER_FACTOR: Final = 4.75
SIZE: Final = Claim(
    id="C1 size",
    title="The factor is that of the paper",
    paper="4.75× fewer iterations (CIFAR-10, 12 × 256k)",
    metric="iterations DLGN / GLGN at the paper's size, over half the paper's factor",
    unit="×",
    log=True,
    null="the factor is half the paper's",
)
CLAIMS: Final = (ITERATIONS, SECONDS, SIZE)
_MEASURES: Final = ((ITERATIONS, "step"), (SECONDS, "seconds"))
_SOURCE: Final = "convergence.effects.csv"


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN and GLGN."""
    return [run for setting in preset.pairs for run in setting.pair()]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the training histories, a row a run, step and split; seconds undisturbed by others."""
    groups = [(setting, setting.pair()) for setting in preset.pairs]
    columns = ["step", "split", "n", "seconds", "loss"]
    columns += ["soft_accuracy", "noisy_accuracy", "discrete_accuracy"]
    history = gather(records, groups, "history").reindex(columns=[*RUN_COLUMNS, *columns])
    return history if history.empty else undisturbed_seconds(history)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim: ``effect`` = ln(DLGN / GLGN), and its bounds.

    A censored run stands in ``effect`` with its last step; ``lower`` and ``upper`` say what is known.
    """
    parts = []
    settings = list(frame["setting"].unique())
    for setting, runs in frame.groupby("setting", sort=False):
        for claim, measure in _MEASURES:
            table = time_ratios(runs, measure, (NOISE_FREE, NOISY))
            named = label(claim, str(setting), settings)
            parts.append(table.assign(setting=setting, claim=named))
            if claim is ITERATIONS and _is_paper_size(runs):
                shift = math.log(PAPER_FACTOR / 2)
                shifted = {name: table[name] - shift for name in ("effect", "lower", "upper")}
                named = label(SIZE, str(setting), settings)
                parts.append(table.assign(**shifted, setting=setting, claim=named))
    return table_of(parts)


def time_ratios(runs: pd.DataFrame, measure: str, methods: tuple[str, str]) -> pd.DataFrame:
    """Return a row a seed: the time of the first method to the target over that of the second.

    Args:
        runs: histories of one setting.
        measure: ``"step"`` or ``"seconds"``.
        methods: the two relaxations.
    """
    rows = []
    for seed, both in runs.groupby("seed"):
        reached = {
            kind: convergence(history, float(history["target"].iloc[0]))
            for kind, history in both.groupby("relaxation")
        }
        if set(methods) <= set(reached):
            rows.append({"seed": seed, **_ratio(reached[methods[0]], reached[methods[1]], measure)})
    return pd.DataFrame(rows)


def _ratio(first: Convergence, second: Convergence, measure: str) -> dict[str, object]:
    a, b = float(getattr(first, measure)), float(getattr(second, measure))
    counts = (first.reached or second.reached) and min(a, b) > 0
    value = math.log(a / b) if counts else math.nan
    censored = [name for name, run in (("dlgn", first), ("glgn", second)) if not run.reached]
    return {
        "dlgn": a,
        "glgn": b,
        "censored": ", ".join(censored),
        "effect": value,
        "lower": value if second.reached else -math.inf,
        "upper": value if first.reached else math.inf,
        "counts": counts,
    }


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on iterations and seconds, and at the paper's size on the factor."""
    table = effects(frame)
    found = each_setting((ITERATIONS, SECONDS), frame, table, source=_SOURCE)
    settings = list(frame["setting"].unique())
    sized = [
        (setting, runs)
        for setting, runs in frame.groupby("setting", sort=False)
        if _is_paper_size(runs)
    ]
    if not sized:
        smaller = smaller_scale(found, ITERATIONS, lambda effect: f"{math.exp(effect):.2g}×")
        return [*found, untested(SIZE, f"needs CIFAR-10 at 12 × 256k; {smaller}")]
    for setting, runs in sized:
        named = label(SIZE, str(setting), settings)
        rows = table[(table["setting"] == setting) & (table["claim"] == named)]
        found.append(decide(SIZE, rows, scale=describe(runs), source=_SOURCE))
    return found


def _is_paper_size(runs: pd.DataFrame) -> bool:
    return bool(
        (runs["dataset"] == "cifar10").all()
        and (runs["width"] >= 256_000).all()
        and (runs["depth"] >= 12).all()
    )
