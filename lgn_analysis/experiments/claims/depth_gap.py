"""C4: does the gap of DLGNs grow with depth, and that of GLGNs stay low?

For each seed a least-squares slope of the gap over depth for each method, over the depths at which
most seeds are trained by both; the effect is the slope of the DLGN less that of the GLGN, per layer. ``growth`` is
the first half of the claim alone: the slope of the DLGN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import each_setting, effects_by_setting, gap_claims
from lgn_analysis.experiments.frames import (
    MEASURES,
    gap_measure,
    gaps_at_end,
    pairs_by_size,
    runs_of,
    sample_variance,
)
from lgn_analysis.experiments.settings import NOISE_FREE, PAIR, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

MIN_DEPTHS: Final = 3
"""Depths at which the methods must be trained: two points make a slope of anything."""
LEAST_GAP: Final = 0.5
"""Percentage points of gap that some depth must have for one to grow."""

DIFFERENCES: Final = gap_claims(
    "C4",
    titles=(
        "The gap grows faster with depth for DLGNs than for GLGNs",
        "The gap of the soft network grows faster with depth for DLGNs than for GLGNs",
        "The gap in loss grows faster with depth for DLGNs than for GLGNs",
        "Flipped predictions grow faster with depth for DLGNs than for GLGNs",
    ),
    metric="slope over depth of {the_gap} at the end, DLGN − GLGN",
    paper="depths 6, 8, 10, 12 (CIFAR-10)",
    per="/layer",
    smallest=(0.1, 0.002, 0.1),
    null="both gaps grow equally with depth",
    premise=f"at {MIN_DEPTHS} depths both methods are trained, at one of which one of them has a gap",
)
GROWTH: Final = replace(
    DIFFERENCES[0],
    id="C4 growth",
    title="The gap of DLGNs grows with depth",
    metric="slope over depth of the DLGN's training − discrete test accuracy at the end",
    null="the gap does not change with depth",
    premise=f"at {MIN_DEPTHS} depths the DLGN is trained, at one of which it has a gap",
    primary=False,
)
CLAIMS: Final = (*DIFFERENCES, GROWTH)


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
    for claim, measure in zip(DIFFERENCES, MEASURES, strict=True):
        values = runs.assign(
            value=gap_measure(runs, measure), variance=sample_variance(runs, measure)
        )
        yield claim, slopes(values, PAIR)
        if measure == MEASURES[0]:
            yield GROWTH, slopes(values, (NOISE_FREE,))


def slopes(runs: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Return a row a seed: the least-squares slope of ``value`` over depth of each method.

    ``effect`` is that of the first method, less that of the second if there is one. The depths are those
    at which most seeds are trained by all the methods, the same for every seed.
    """
    chosen = runs[runs["relaxation"].isin(methods)]
    trained = (chosen["discrete_accuracy"] >= chosen["floor"]).groupby(
        [chosen["depth"], chosen["seed"]]
    )
    share = trained.all().groupby("depth").mean()
    depths = sorted(share[share > 0.5].index)
    used = chosen[chosen["depth"].isin(depths)]
    counts = len(depths) >= MIN_DEPTHS and _largest_gap(used) >= LEAST_GAP
    table = pd.DataFrame({"seed": sorted(runs["seed"].unique())})
    table = table.assign(depths=" ".join(map(str, depths)), effect=0.0, test_variance=0.0)
    for sign, method in zip((1, -1), methods, strict=False):
        of_seed = used[used["relaxation"] == method].groupby("seed")
        found = {seed: _slope(points) for seed, points in of_seed if len(depths) >= MIN_DEPTHS}
        table[method] = table["seed"].map({seed: slope for seed, (slope, _) in found.items()})
        table["effect"] += sign * table[method]
        table["test_variance"] += table["seed"].map({seed: v for seed, (_, v) in found.items()})
    return table.assign(counts=counts)


def _slope(points: pd.DataFrame) -> tuple[float, float]:
    """Return the least-squares slope of ``value`` over depth, and its variance by ``variance``."""
    weights = points["depth"] - points["depth"].mean()
    weights = weights / (weights**2).sum()
    variance = (weights**2 * points["variance"]).sum(skipna=False)
    return float((weights * points["value"]).sum()), float(variance)


def _largest_gap(runs: pd.DataFrame) -> float:
    """Return the largest gap in accuracy of any method at any depth, a mean over seeds."""
    gaps = 100 * runs.groupby(["relaxation", "depth"])["gap_train"].mean()
    return float(gaps.max()) if len(gaps) else math.nan


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on slopes."""
    return each_setting(CLAIMS, frame, effects(frame), source="depth_gap.effects.csv")
