"""C8: is the trace of the Hessian smaller where noise was used in training?

The trace of the soft loss at the end of training, paired by seed, in the logits z (at tau 1 also in
u = z / tau): the share of the DLGN's trace that the GLGN lacks, a measure that a trace at or below
zero does not upset. The figure adds the traces over training and over tau, there in both
coordinates: tr_z = tr_u / tau², and a comparison over tau can turn over with the coordinate.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.presets import NOISE_FREE, Preset
from lgn_analysis.experiments.sweep import Records, RunSpec
from lgn_analysis.experiments.verdicts import Claim, Verdict, decide, describe, paired

TRACE: Final = Claim(
    id="C8 trace",
    title="Noise in training leads to a smaller trace of the Hessian",
    paper="smaller traces with noise (CIFAR-10, Hutchinson, 200 probes)",
    metric="1 − GLGN / DLGN of the trace of the Hessian of the soft loss at the end",
    unit="%",
    smallest=20.0,
    floor=0.90,
)
CLAIMS: Final = (TRACE,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: the pair, and the GLGNs over tau for the figure."""
    return preset.pair(NOISE_FREE) + preset.temperatures()


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run and probed step, with the discrete test accuracy of that step."""
    runs = specs(preset)
    curvature = records.of(runs, "curvature")
    history = records.of(runs, "history")
    test = history[history["split"] == "test"]
    merged = curvature.merge(test[["run", "step", "discrete_accuracy"]], on=["run", "step"])
    return merged.assign(reference_tau=preset.network.tau)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: ``effect`` = 100 · (1 − GLGN / DLGN) at the last step.

    A DLGN whose own trace is not positive has none to lack, and does not count.
    """
    last = frame[(frame["step"] == frame["steps"]) & (frame["tau"] == frame["reference_tau"])]
    table = paired(last, "trace_z", floor=TRACE.floor)
    share = 100 * (1 - table["glgn"] / table["dlgn"])
    return table.assign(claim=TRACE.id, effect=share, counts=table["counts"] & (table["dlgn"] > 0))


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict."""
    pair = frame[frame["tau"] == frame["reference_tau"]]
    return [decide(TRACE, effects(frame), scale=describe(pair), source="hessian_trace.effects.csv")]
