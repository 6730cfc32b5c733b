"""C9: is the loss landscape of GLGNs smoother?

Smoothness has many measures, and one that divides a slice's curvature by its own height misleads:
along random directions a GLGN sits in a flat basin between steep walls, which is rough for its
height however low its curvature. So the measure does not depend on the height: the mean |d²L/ds²|
of the soft loss along a line through the trained network, over the unit ball |s| ≤ 1. s = 1 moves
every gate by the length of its own logits (filter normalisation), so that large logits cannot buy
smoothness by making a step of fixed length small. Along the top eigenvector s = 1 is the length
that :mod:`lgn_analysis.theory.directions` gives it. The concave share is the part of the curvature
that is negative, 0 for a convex basin. The column ``bend`` is d²L/ds², from second differences on
the line's grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
import pandas as pd

from lgn_analysis.experiments.effects import (
    each_setting,
    effects_by_setting,
    factor_claim,
    paired,
)
from lgn_analysis.experiments.frames import pair_specs, pairs, probed
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

_PAPER: Final = "2-D slices look smoother (CIFAR-10)"
_FACTOR: Final = partial(
    factor_claim,
    paper=_PAPER,
    null="both are equally curved",
    premise="both methods are trained",
)
FILTER: Final = _FACTOR(
    "C9 curvature",
    "The loss of GLGNs is less curved along random directions",
    metric="mean |d²L/ds²| within the unit ball, filter-normalised directions, DLGN / GLGN",
)
EIGEN: Final = _FACTOR(
    "C9 eigen",
    "The loss of GLGNs is less curved along its top eigenvector",
    metric="mean |d²L/ds²| within the unit ball, along the top eigenvector, DLGN / GLGN",
    primary=False,
)
CONCAVE: Final = Claim(
    id="C9 concave",
    title="The loss of GLGNs is less concave along random directions",
    paper=_PAPER,
    metric="share of the curvature that is negative within the unit ball, DLGN − GLGN",
    unit="pp",
    smallest=5.0,
    null="equal shares are negative",
    premise="both methods are trained",
    primary=False,
)
CLAIMS: Final = (FILTER, EIGEN, CONCAVE)
specs = pair_specs


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run, direction and point, with the run's final discrete test accuracy."""
    table = probed(records, pairs(preset.pairs), "landscape", at_end=True)
    return table if table.empty else with_second_derivatives(table)


def with_second_derivatives(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``bend``, d²L/ds² at each inner point of a line; NaN at its ends and on planes."""
    parts = []
    for (_, kind, _), line in table.groupby(["run", "kind", "direction"], sort=False):
        if kind == "plane":
            parts.append(line.assign(bend=math.nan))
            continue
        ordered = line.sort_values("x")
        step = float(np.diff(ordered["x"]).mean())
        bend = np.full(len(ordered), math.nan)
        bend[1:-1] = np.diff(ordered["loss"], 2) / step**2
        parts.append(ordered.assign(bend=bend))
    return pd.concat(parts, ignore_index=True)


def curvature_of_lines(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a run, kind and direction: curvature and concave share of its line.

    ``curvature`` is per unit of s squared, ``curvature_z`` per distance in z squared.
    """
    inside = frame[(frame["kind"] != "plane") & (frame["x"].abs() <= 1) & frame["bend"].notna()]
    down = (-inside["bend"]).clip(lower=0)
    table = inside.assign(size=inside["bend"].abs(), down=down)
    keys = ["kind", "relaxation", "seed", "direction"]
    lines = table.groupby(keys, as_index=False).agg(
        curvature=("size", "mean"),
        down=("down", "mean"),
        length=("length", "first"),
        discrete_accuracy=("discrete_accuracy", "first"),
        floor=("floor", "first"),
    )
    return lines.assign(
        curvature_z=lines["curvature"] / lines["length"] ** 2,
        concave=lines["down"] / lines["curvature"],
    )


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim: means over the directions of a run, compared."""
    return effects_by_setting(frame, _comparisons)


def _comparisons(rows: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    means = curvature_of_lines(rows).groupby(["kind", "relaxation", "seed"], as_index=False).mean()
    for claim, kind, column in (
        (FILTER, "filter", "curvature"),
        (EIGEN, "eigen", "curvature"),
        (CONCAVE, "filter", "concave"),
    ):
        table = paired(means[means["kind"] == kind], column)
        dlgn, glgn = table["dlgn"], table["glgn"]
        effect = np.log(dlgn) - np.log(glgn) if claim.log else 100 * (dlgn - glgn)
        yield claim, table.assign(effect=effect)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on curvature and on the concave share."""
    return each_setting(CLAIMS, frame, effects(frame), source="landscape.effects.csv")
