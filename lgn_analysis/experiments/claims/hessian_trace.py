"""C8: is the trace of the Hessian smaller where noise was used in training?

The trace of the soft loss at the end of training, paired by seed, in the logits z (at tau 1 also in
u = z / tau): the share of the DLGN's trace that the GLGN lacks, a measure that a trace at or below
zero does not upset. The figure adds the traces over training and over tau, there in both
coordinates: tr_z = tr_u / tau², and a comparison over tau can turn over with the coordinate.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.claims.temperature import over_tau
from lgn_analysis.experiments.effects import each_setting, effects_by_setting, paired
from lgn_analysis.experiments.frames import last_step, pairs, probed, runs_of
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

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
    """Return a row a seed: ``effect`` = 100 · (1 − GLGN / DLGN) at the last step.

    A DLGN whose own trace is not positive has none to lack, and does not count.
    """
    return effects_by_setting(frame[frame["tau"] == frame["reference_tau"]], _lacking)


def _lacking(rows: pd.DataFrame) -> list[tuple[Claim, pd.DataFrame]]:
    table = paired(last_step(rows), "trace_z")
    share = 100 * (1 - table["glgn"] / table["dlgn"])
    return [(TRACE, table.assign(effect=share, counts=table["counts"] & (table["dlgn"] > 0)))]


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict."""
    pair = frame[frame["tau"] == frame["reference_tau"]]
    return each_setting(CLAIMS, pair, effects(frame), source="hessian_trace.effects.csv")
