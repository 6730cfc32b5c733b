"""C14, not in the paper: does curvature predict the gap?

Over checkpoints and methods, on training samples: the change in loss from the soft to the discrete
network, against the trace of the Hessian in z and against the expansion in gate weights of
:mod:`lgn_analysis.theory.anatomy`. A rank correlation and a share of variance (of the identity, no
line is fitted: 1 − Σ(true − predicted)² / Σ(true − mean)², no lower than −1) for each seed, and
intervals over seeds. Checkpoints of untrained networks are left out: what they share is that nothing
has happened yet. Checkpoints of a run are not independent; seeds are, and only they are counted.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import pandas as pd
from scipy import stats

from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import each_method, gather, runs_of, with_accuracy
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

METHODS: Final = ("soft", "gumbel-soft", "gumbel-st", "hard-st")
CHECKPOINT_FLOOR: Final = 0.5
"""Discrete test accuracy that a checkpoint must have reached to count."""
MIN_CHECKPOINTS: Final = 8

_claim = partial(
    Claim,
    paper="not in the paper, which ties the gap to tr(H)",
    premise=f"{MIN_CHECKPOINTS} checkpoints are trained",
    primary=False,
)
TRACE: Final = _claim(
    id="C14 trace",
    title="A larger trace goes with a larger gap",
    metric="rank correlation of tr(H) in z with |soft − discrete| loss, over checkpoints and methods",
    smallest=0.5,
    null="no correlation",
)
PREDICTION: Final = _claim(
    id="C14 prediction",
    title="The second-order expansion predicts the gap",
    metric="R² of the second-order prediction of the change in loss, over checkpoints and methods",
    smallest=0.5,
    null="no better than the mean change",
    primary=True,
)
SECOND: Final = _claim(
    id="C14 second order",
    title="Curvature adds to what the gradient predicts",
    metric="R² of the second-order prediction − R² of the first-order one",
    smallest=0.05,
    null="the second order adds nothing",
)
CLAIMS: Final = (TRACE, PREDICTION, SECOND)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of all methods."""
    return runs_of(each_method(preset.curvature, METHODS))


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run and checkpoint: the whole change in loss, its expansion and the trace."""
    groups = each_method(preset.curvature, METHODS)
    anatomy, curvature = gather(records, groups, "anatomy"), gather(records, groups, "curvature")
    if anatomy.empty or curvature.empty:
        return anatomy.iloc[:0]
    whole = (anatomy["scheme"] == "from input") & (anatomy["n_discrete"] == anatomy["depth"])
    traces = curvature[["run", "step", "trace_z", "trace_u"]].drop_duplicates(["run", "step"])
    table = anatomy[whole].drop(columns=["scheme", "layer", "n_discrete"])
    merged = table.merge(traces, on=["run", "step"])
    return with_accuracy(merged, gather(records, groups, "history"))


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim."""
    return effects_by_setting(frame, _correlations)


def _correlations(rows: pd.DataFrame) -> list[tuple[Claim, pd.DataFrame]]:
    found: dict[Claim, list[dict[str, object]]] = {claim: [] for claim in CLAIMS}
    for seed, points in rows.groupby("seed", sort=False):
        used = points[points["discrete_accuracy"] >= CHECKPOINT_FLOOR]
        values = (np.nan, np.nan, np.nan)
        if len(used) >= MIN_CHECKPOINTS:
            second = share_of_variance(used["delta_loss"], used["prediction"])
            first = share_of_variance(used["delta_loss"], used["first_order"])
            rank = float(stats.spearmanr(used["trace_z"], used["delta_loss"].abs()).statistic)
            values = (rank, second, second - first)
        for claim, value in zip(CLAIMS, values, strict=True):
            row = {"seed": seed, "checkpoints": len(used), "effect": value}
            found[claim].append({**row, "counts": bool(np.isfinite(value))})
    return [(claim, pd.DataFrame(table)) for claim, table in found.items()]


def share_of_variance(true: pd.Series, predicted: pd.Series) -> float:
    """Return 1 − Σ(true − predicted)² / Σ(true − mean)², no lower than −1; NaN for a constant."""
    spread = float(((true - true.mean()) ** 2).sum())
    if spread == 0.0:
        return float("nan")
    return max(-1.0, 1 - float(((true - predicted) ** 2).sum()) / spread)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts."""
    return each_setting(CLAIMS, frame, effects(frame), source="curvature_gap.effects.csv")
