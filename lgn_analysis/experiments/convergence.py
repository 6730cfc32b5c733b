"""C1: does Gumbel noise with a straight-through estimator converge faster?

Time to a stated discrete accuracy on the validation split, in iterations and in seconds of
training, DLGN over GLGN, paired by seed. A run that never gets there is censored: its last step
bounds the ratio, and the bound stands in for it, marked.
"""

from __future__ import annotations

import math
from typing import Final

import pandas as pd

from lgn_analysis.experiments.presets import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.sweep import Records, RunSpec
from lgn_analysis.experiments.verdicts import Claim, Verdict, decide, describe
from lgn_analysis.metrics import convergence

TARGET: Final = 0.90
"""Discrete validation accuracy that counts as converged."""

ITERATIONS: Final = Claim(
    id="C1 iterations",
    title="GLGNs converge in fewer iterations",
    paper="4.75× fewer iterations (CIFAR-10, 12 × 256k)",
    metric=f"iterations to {TARGET:.0%} discrete validation accuracy, DLGN / GLGN",
    unit="×",
    smallest=math.log(1.25),
    log=True,
)
SECONDS: Final = Claim(
    id="C1 seconds",
    title="GLGNs converge in less time",
    paper="4.5× less wall-clock time (CIFAR-10, 12 × 256k)",
    metric=f"seconds of training to {TARGET:.0%} discrete validation accuracy, DLGN / GLGN",
    unit="×",
    smallest=math.log(1.25),
    log=True,
)
CLAIMS: Final = (ITERATIONS, SECONDS)
FIGURE_OPTIONS: Final = {"target": TARGET}


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN and GLGN at tau 1."""
    return preset.pair(NOISE_FREE) + preset.pair(NOISY)


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the training histories, a row a run, step and split."""
    columns = ["run", "dataset", "relaxation", "tau", "width", "depth", "group_tau", "init"]
    columns += ["steps", "seed", "step", "split", "n", "seconds", "loss"]
    columns += ["soft_accuracy", "noisy_accuracy", "discrete_accuracy"]
    return records.of(specs(preset), "history")[columns]


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim: ``effect`` = ln(DLGN / GLGN)."""
    rows = []
    for seed, runs in frame.groupby("seed"):
        reached = {
            kind: convergence(history, TARGET) for kind, history in runs.groupby("relaxation")
        }
        if {NOISE_FREE, NOISY} - set(reached):
            continue
        slow, fast = reached[NOISE_FREE], reached[NOISY]
        for claim, measure in ((ITERATIONS, "step"), (SECONDS, "seconds")):
            values = getattr(slow, measure), getattr(fast, measure)
            counts = (slow.reached or fast.reached) and min(values) > 0
            rows.append(
                {
                    "claim": claim.id,
                    "seed": seed,
                    "dlgn": values[0],
                    "glgn": values[1],
                    "censored": ", ".join(
                        name for name, run in (("dlgn", slow), ("glgn", fast)) if not run.reached
                    ),
                    "effect": math.log(values[0] / values[1]) if counts else math.nan,
                    "counts": counts,
                }
            )
    return pd.DataFrame(rows)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on iterations and on seconds."""
    table = effects(frame)
    return [
        decide(
            claim,
            table[table["claim"] == claim.id],
            scale=describe(frame),
            source="convergence.effects.csv",
        )
        for claim in CLAIMS
    ]
