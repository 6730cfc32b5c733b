"""C5: is the gap of GLGNs smaller for shallow and wide networks too?

Decided at the widest network of the sweep, paired by seed; the effects list every width. The paper's
own size, 6 × 2048k, is a claim by itself that only runs of that size decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import (
    at_paper_size,
    each_setting,
    effects_by_setting,
    gap_claims,
    gap_differences,
    smaller_scale,
)
from lgn_analysis.experiments.frames import MEASURES, gaps_at_end, pairs_by_size, runs_of
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

GAPS: Final = gap_claims(
    "C5",
    titles=(
        "GLGNs have a smaller gap in shallow and wide networks",
        "GLGNs have a smaller gap of the soft network in shallow and wide networks",
        "GLGNs have a smaller gap in loss in shallow and wide networks",
        "Discretising shallow and wide GLGNs changes fewer predictions",
    ),
    metric="{gap} at the end of the widest network, DLGN − GLGN",
    paper="6 × 2048k (CIFAR-10)",
)
GAP: Final = GAPS[0]
SIZE: Final = replace(
    GAP,
    id="C5 size",
    title="GLGNs have a smaller gap at the paper's width",
    metric="training − discrete test accuracy at the end at 6 × 2048k, DLGN − GLGN",
    premise="CIFAR-10 at 6 × 2048k",
    primary=False,
)
CLAIMS: Final = (*GAPS, SIZE)
_PAPER_WIDTH: Final = 2_048_000
_SOURCE: Final = "width_gap.effects.csv"


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of both methods at each width."""
    return runs_of(pairs_by_size(preset.widths, "width"))


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the gaps at the end of training on the test split, a row a run."""
    return gaps_at_end(records, pairs_by_size(preset.widths, "width"))


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed, claim and width; the claim is named at the width that decides it."""
    return effects_by_setting(frame, _differences)


def _differences(runs: pd.DataFrame) -> Iterator[tuple[Claim | None, pd.DataFrame]]:
    widest = runs["width"].max()
    for width, rows in runs.groupby("width"):
        for (claim, gaps), measure in zip(gap_differences(GAPS, rows), MEASURES, strict=True):
            table = gaps.assign(measure=measure, width=width)
            at_size = claim is GAP and _is_paper_size(rows)
            if width == widest or not at_size:
                yield (claim if width == widest else None), table
            if at_size:
                yield SIZE, table


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts at the widest network, and on the paper's size."""
    table = effects(frame)
    widest = frame[frame["width"] == frame.groupby("setting")["width"].transform("max")]
    found = each_setting(GAPS, widest, table, source=_SOURCE)
    smaller = smaller_scale(found, GAP, lambda effect: f"{effect:+.2g} pp")
    otherwise = f"needs CIFAR-10 at 6 × 2048k; {smaller}"
    return found + at_paper_size(
        SIZE, widest, table, _is_paper_size, source=_SOURCE, otherwise=otherwise
    )


def _is_paper_size(rows: pd.DataFrame) -> bool:
    return bool((rows["dataset"] == "cifar10").all() and (rows["width"] >= _PAPER_WIDTH).all())
