"""C8: is the trace of the Hessian smaller where noise was used in training?

The trace of the soft loss at the end of training, difference by seed, in the logits z (at tau 1 also in
u = z / tau): the share of the DLGN's trace that the GLGN lacks, a measure that a trace at or below
zero does not upset. The figure adds the traces over training and over tau, there in both
coordinates: tr_z = tr_u / tau², and a comparison over tau can turn over with the coordinate.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.claims.temperature import over_tau
from lgn_analysis.experiments.effects import difference, each_setting, effects_by_setting
from lgn_analysis.experiments.frames import last_step, pairs, probed, runs_of
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

TRACE: Final = Claim(
    id="C8 trace",
    title="Noise in training leads to a smaller trace of the Hessian",
    paper="smaller traces with noise (CIFAR-10, Hutchinson, 200 probes)",
    metric="trace of the Hessian of the soft loss at the end, DLGN − GLGN, over the mean of the DLGNs'",
    unit="%",
    smallest=20.0,
    null="the traces are equal",
    premise="both methods are trained",
)
CLAIMS: Final = (TRACE,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: the pair, and the GLGNs over tau for the figure."""
    return runs_of([*pairs(preset.pairs), *over_tau(preset.temperatures)])


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run and probed step, with the discrete test accuracy of that step."""
    by_name: dict[str, list[RunSpec]] = {}
    for setting, runs in [*pairs(preset.pairs), *over_tau(preset.temperatures)]:
        by_name.setdefault(setting.name, []).extend(runs)
    tables = []
    for setting in preset.pairs:
        table = probed(records, [(setting, by_name[setting.name])], "curvature")
        tables.append(table.assign(reference_tau=setting.network.tau))
    filled = [table for table in tables if len(table)]
    return pd.concat(filled or tables, ignore_index=True)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: ``effect``, the difference at the last step over the mean |trace| of the DLGNs.

    A ratio of a seed's own traces would mean nothing where one of them is near zero or below.
    """
    return effects_by_setting(frame[frame["tau"] == frame["reference_tau"]], _lacking)


def _lacking(rows: pd.DataFrame) -> list[tuple[Claim, pd.DataFrame]]:
    table = difference(last_step(rows), "trace_z")
    scale = abs(table["dlgn"].mean())
    return [(TRACE, table.assign(effect=100 * table["effect"] / scale))]


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict."""
    pair = frame[frame["tau"] == frame["reference_tau"]]
    return each_setting(CLAIMS, pair, effects(frame), source="hessian_trace.effects.csv")
