"""C14, not in the paper: does curvature predict the gap?

Over checkpoints and methods, on training samples: the change in loss from the soft to the discrete
network, against the trace of the Hessian in z and against the expansion in gate weights of
:mod:`lgn_analysis.theory.anatomy`. A rank correlation and a share of variance (of the identity, no
line is fitted: 1 − Σ(true − predicted)² / Σ(true − mean)², no lower than −1) for each seed, and
intervals over seeds. Checkpoints of untrained networks are left out: what they share is that nothing
has happened yet. Checkpoints of a run are not independent; seeds are, and only they are counted.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from scipy import stats

from lgn_analysis.experiments.frames import gather, with_accuracy
from lgn_analysis.experiments.settings import Preset, Setting
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict, each_setting, label, table_of

METHODS: Final = ("soft", "gumbel-soft", "gumbel-st", "hard-st")
CHECKPOINT_FLOOR: Final = 0.5
"""Discrete test accuracy that a checkpoint must have reached to count."""
MIN_CHECKPOINTS: Final = 8

_PAPER: Final = "not in the paper, which ties the gap to tr(H)"
TRACE: Final = Claim(
    id="C14 trace",
    title="A larger trace goes with a larger gap",
    paper=_PAPER,
    metric="rank correlation of tr(H) in z with |soft − discrete| loss, over checkpoints and methods",
    smallest=0.5,
    null="no correlation",
)
PREDICTION: Final = Claim(
    id="C14 prediction",
    title="The second-order expansion predicts the gap",
    paper=_PAPER,
    metric="R² of the second-order prediction of the change in loss, over checkpoints and methods",
    smallest=0.5,
    null="no better than the mean change",
)
SECOND: Final = Claim(
    id="C14 second order",
    title="Curvature adds to what the gradient predicts",
    paper=_PAPER,
    metric="R² of the second-order prediction − R² of the first-order one",
    smallest=0.05,
    null="the second order adds nothing",
)
CLAIMS: Final = (TRACE, PREDICTION, SECOND)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of all methods."""
    return [run for setting in preset.curvature for run in _runs(setting)]


def _runs(setting: Setting) -> list[RunSpec]:
    return [run for method in METHODS for run in setting.runs(method)]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run and checkpoint: the whole change in loss, its expansion and the trace."""
    groups = [(setting, _runs(setting)) for setting in preset.curvature]
    anatomy = gather(records, groups, "anatomy")
    curvature = gather(records, groups, "curvature")
    if anatomy.empty or curvature.empty:
        return anatomy.iloc[:0]
    whole = (anatomy["scheme"] == "from input") & (anatomy["n_discrete"] == anatomy["depth"])
    table = anatomy[whole].drop(columns=["scheme", "layer", "n_discrete"])
    traces = curvature[["run", "step", "trace_z", "trace_u"]].drop_duplicates(["run", "step"])
    merged = table.merge(traces, on=["run", "step"])
    return with_accuracy(merged, gather(records, groups, "history"))


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim."""
    settings = list(frame["setting"].unique())
    rows = []
    for (setting, seed), points in frame.groupby(["setting", "seed"], sort=False):
        used = points[points["discrete_accuracy"] >= CHECKPOINT_FLOOR]
        counts = len(used) >= MIN_CHECKPOINTS
        values = dict.fromkeys(("TRACE", "PREDICTION", "SECOND"), np.nan)
        if counts:
            second = share_of_variance(used["delta_loss"], used["prediction"])
            first = share_of_variance(used["delta_loss"], used["first_order"])
            rank = float(stats.spearmanr(used["trace_z"], used["delta_loss"].abs()).statistic)
            values = {"TRACE": rank, "PREDICTION": second, "SECOND": second - first}
        for claim, key in ((TRACE, "TRACE"), (PREDICTION, "PREDICTION"), (SECOND, "SECOND")):
            rows.append(
                {
                    "setting": setting,
                    "claim": label(claim, str(setting), settings),
                    "seed": seed,
                    "checkpoints": len(used),
                    "effect": values[key],
                    "counts": bool(counts and np.isfinite(values[key])),
                }
            )
    return table_of([pd.DataFrame(rows)])


def share_of_variance(true: pd.Series, predicted: pd.Series) -> float:
    """Return 1 − Σ(true − predicted)² / Σ(true − mean)², no lower than −1; NaN for a constant."""
    spread = float(((true - true.mean()) ** 2).sum())
    if spread == 0.0:
        return float("nan")
    return max(-1.0, 1 - float(((true - predicted) ** 2).sum()) / spread)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts."""
    return each_setting(CLAIMS, frame, effects(frame), source="curvature_gap.effects.csv")
