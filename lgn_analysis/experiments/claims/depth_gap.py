"""C4: does the gap of DLGNs grow with depth, and that of GLGNs stay low?

For each seed a least-squares slope of the gap over depth for each method, over the depths at which
both are trained; the effect is the slope of the DLGN less that of the GLGN, per layer. ``growth`` is
the first half of the claim alone: the slope of the DLGN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from lgn_analysis.experiments.effects import each_setting, effects_by_setting, gap_claims, paired
from lgn_analysis.experiments.frames import (
    MEASURES,
    gap_measure,
    gaps_at_end,
    pairs_by_size,
    runs_of,
)
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

MIN_DEPTHS: Final = 3
"""Depths at which both methods must be trained: two points make a slope of anything."""

ACCURACY, LOSS, FLIPS = gap_claims(
    "C4",
    titles=(
        "The gap grows faster with depth for DLGNs than for GLGNs",
        "The gap in loss grows faster with depth for DLGNs than for GLGNs",
        "Flipped predictions grow faster with depth for DLGNs than for GLGNs",
    ),
    metric="slope over depth of {the_gap} at the end, DLGN − GLGN",
    paper="depths 6, 8, 10, 12 (CIFAR-10)",
    per="/layer",
    smallest=(0.1, 0.002, 0.1),
    null="both gaps grow equally with depth",
)
GROWTH: Final = replace(
    ACCURACY,
    id="C4 growth",
    title="The gap of DLGNs grows with depth",
    metric="slope over depth of the DLGN's gap in test accuracy at the end",
    null="the gap does not change with depth",
)
CLAIMS: Final = (ACCURACY, LOSS, FLIPS, GROWTH)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of both methods at each depth."""
    return runs_of(pairs_by_size(preset.depths, "depth"))


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the gaps at the end of training on the test split, a row a run."""
    return gaps_at_end(records, pairs_by_size(preset.depths, "depth"))


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim: slopes over the depths that count, and their difference."""
    return effects_by_setting(frame, _slopes)


def _slopes(runs: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    for claim, measure in zip((ACCURACY, LOSS, FLIPS), MEASURES, strict=True):
        table = slopes(runs.assign(value=gap_measure(runs, measure)))
        yield claim, table.assign(effect=table["dlgn"] - table["glgn"])
        if claim is ACCURACY:
            yield GROWTH, table.assign(effect=table["dlgn"])


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
