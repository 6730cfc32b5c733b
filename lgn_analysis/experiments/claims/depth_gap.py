"""C4: does the gap of DLGNs grow with depth, and that of GLGNs stay low?

For each seed a least-squares slope of the gap over depth for each method, over the depths at which
both are trained; the effect is the slope of the DLGN less that of the GLGN, per layer. ``growth`` is
the first half of the claim alone: the slope of the DLGN.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from lgn_analysis.experiments.frames import MEASURES, gap_measure, gaps_at_end
from lgn_analysis.experiments.settings import Preset, Sweep
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

MIN_DEPTHS: Final = 3
"""Depths at which both methods must be trained: two points make a slope of anything."""

_PAPER: Final = "depths 6, 8, 10, 12 (CIFAR-10)"
_NULL: Final = "both gaps grow equally with depth"
ACCURACY: Final = Claim(
    id="C4 accuracy",
    title="The gap grows faster with depth for DLGNs than for GLGNs",
    paper=_PAPER,
    metric="slope over depth of the gap in test accuracy at the end, DLGN − GLGN",
    unit="pp/layer",
    smallest=0.1,
    null=_NULL,
)
LOSS: Final = Claim(
    id="C4 loss",
    title="The gap in loss grows faster with depth for DLGNs than for GLGNs",
    paper=_PAPER,
    metric="slope over depth of |soft − discrete| test loss at the end, DLGN − GLGN",
    unit="nats/layer",
    smallest=0.002,
    null=_NULL,
)
FLIPS: Final = Claim(
    id="C4 flips",
    title="Flipped predictions grow faster with depth for DLGNs than for GLGNs",
    paper=_PAPER,
    metric="slope over depth of the share of flipped test predictions at the end, DLGN − GLGN",
    unit="pp/layer",
    smallest=0.1,
    null=_NULL,
)
GROWTH: Final = Claim(
    id="C4 growth",
    title="The gap of DLGNs grows with depth",
    paper=_PAPER,
    metric="slope over depth of the DLGN's gap in test accuracy at the end",
    unit="pp/layer",
    smallest=0.1,
    null="the gap does not change with depth",
)
CLAIMS: Final = (ACCURACY, LOSS, FLIPS, GROWTH)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of both methods at each depth."""
    return [run for sweep in preset.depths for run in _runs(sweep)]


def _runs(sweep: Sweep) -> list[RunSpec]:
    return [run for depth in sweep.whole for run in sweep.setting.pair(depth=depth)]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the gaps at the end of training on the test split, a row a run."""
    return gaps_at_end(records, [(sweep.setting, _runs(sweep)) for sweep in preset.depths])


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim: slopes over the depths that count, and their difference."""
    settings = list(frame["setting"].unique())
    parts = []
    for setting, runs in frame.groupby("setting", sort=False):
        for claim, measure in zip((ACCURACY, LOSS, FLIPS), MEASURES, strict=True):
            table = slopes(runs.assign(value=gap_measure(runs, measure)))
            named = label(claim, str(setting), settings)
            effect = table["dlgn"] - table["glgn"]
            parts.append(table.assign(setting=setting, claim=named, effect=effect))
            if claim is ACCURACY:
                named = label(GROWTH, str(setting), settings)
                parts.append(table.assign(setting=setting, claim=named, effect=table["dlgn"]))
    return table_of(parts)


def slopes(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: the slope of ``value`` over depth of each method, and the depths used."""
    pairs = [paired(rows, "value").assign(depth=depth) for depth, rows in runs.groupby("depth")]
    rows = []
    for seed, points in pd.concat(pairs).groupby("seed"):
        used = points[points["counts"].astype(bool)]
        counts = used["depth"].nunique() >= MIN_DEPTHS
        row: dict[str, object] = {"seed": seed, "dlgn": np.nan, "glgn": np.nan}
        if counts:
            for method in ("dlgn", "glgn"):
                row[method] = float(np.polyfit(used["depth"], used[method], 1)[0])
        row["depths"] = " ".join(str(depth) for depth in sorted(used["depth"]))
        rows.append({**row, "counts": counts})
    return pd.DataFrame(rows)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on slopes."""
    return each_setting(CLAIMS, frame, effects(frame), source="depth_gap.effects.csv")
