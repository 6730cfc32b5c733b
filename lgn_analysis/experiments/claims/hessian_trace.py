"""C8: is the trace of the Hessian smaller where noise was used in training?

The trace of the soft loss at the end of training, paired by seed, in the logits z (at tau 1 also in
u = z / tau): the share of the DLGN's trace that the GLGN lacks, a measure that a trace at or below
zero does not upset. The figure adds the traces over training and over tau, there in both
coordinates: tr_z = tr_u / tau², and a comparison over tau can turn over with the coordinate.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.claims.temperature import runs_over_tau
from lgn_analysis.experiments.frames import gather, last_step, with_accuracy
from lgn_analysis.experiments.settings import NOISY, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import (
    Claim,
    Verdict,
    each_setting,
    label,
    paired,
    table_of,
)

TRACE: Final = Claim(
    id="C8 trace",
    title="Noise in training leads to a smaller trace of the Hessian",
    paper="smaller traces with noise (CIFAR-10, Hutchinson, 200 probes)",
    metric="1 − GLGN / DLGN of the trace of the Hessian of the soft loss at the end",
    unit="%",
    smallest=20.0,
    null="the traces are equal",
)
CLAIMS: Final = (TRACE,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: the pair, and the GLGNs over tau for the figure."""
    pairs = [run for setting in preset.pairs for run in setting.pair()]
    return pairs + [run for sweep in preset.temperatures for run in runs_over_tau(sweep, NOISY)]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run and probed step, with the discrete test accuracy of that step."""
    tables = []
    over_tau = {sweep.setting.name: runs_over_tau(sweep, NOISY) for sweep in preset.temperatures}
    for setting in preset.pairs:
        runs = {run.key: run for run in [*setting.pair(), *over_tau.get(setting.name, [])]}
        groups = [(setting, list(runs.values()))]
        curvature, history = (
            gather(records, groups, "curvature"),
            gather(records, groups, "history"),
        )
        if len(curvature):
            merged = with_accuracy(curvature, history)
            tables.append(merged.assign(reference_tau=setting.network.tau))
    if not tables:
        return gather(records, [], "curvature").assign(reference_tau=1.0)
    return pd.concat(tables, ignore_index=True)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: ``effect`` = 100 · (1 − GLGN / DLGN) at the last step.

    A DLGN whose own trace is not positive has none to lack, and does not count.
    """
    settings = list(frame["setting"].unique())
    parts = []
    for setting, rows in frame[frame["tau"] == frame["reference_tau"]].groupby(
        "setting", sort=False
    ):
        table = paired(last_step(rows), "trace_z")
        share = 100 * (1 - table["glgn"] / table["dlgn"])
        counts = table["counts"] & (table["dlgn"] > 0)
        named = label(TRACE, str(setting), settings)
        parts.append(table.assign(setting=setting, claim=named, effect=share, counts=counts))
    return table_of(parts)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict."""
    pair = frame[frame["tau"] == frame["reference_tau"]]
    return each_setting(CLAIMS, pair, effects(frame), source="hessian_trace.effects.csv")
