"""C5: is the gap of GLGNs smaller for shallow and wide networks too?

Decided at the widest network of the sweep, paired by seed; the effects list every width. The paper's
own size, 6 × 2048k, is a claim by itself that only runs of that size decide.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.frames import MEASURES, gap_measure, gaps_at_end
from lgn_analysis.experiments.settings import Preset, Sweep
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import (
    Claim,
    Verdict,
    decide,
    describe,
    each_setting,
    label,
    paired,
    smaller_scale,
    table_of,
    untested,
)

_PAPER: Final = "6 × 2048k (CIFAR-10)"
_NULL: Final = "the gaps are equal"
ACCURACY: Final = Claim(
    id="C5 accuracy",
    title="GLGNs have a smaller gap in shallow and wide networks",
    paper=_PAPER,
    metric="gap in test accuracy at the end of the widest network, DLGN − GLGN",
    unit="pp",
    smallest=0.5,
    null=_NULL,
)
LOSS: Final = Claim(
    id="C5 loss",
    title="GLGNs have a smaller gap in loss in shallow and wide networks",
    paper=_PAPER,
    metric="|soft − discrete| test loss at the end of the widest network, DLGN − GLGN",
    unit="nats",
    smallest=0.01,
    null=_NULL,
)
FLIPS: Final = Claim(
    id="C5 flips",
    title="Discretising shallow and wide GLGNs changes fewer predictions",
    paper=_PAPER,
    metric="share of flipped test predictions at the end of the widest network, DLGN − GLGN",
    unit="pp",
    smallest=0.5,
    null="equally many predictions flip",
)
SIZE: Final = Claim(
    id="C5 size",
    title="GLGNs have a smaller gap at the paper's width",
    paper=_PAPER,
    metric="gap in test accuracy at the end at 6 × 2048k, DLGN − GLGN",
    unit="pp",
    smallest=0.5,
    null=_NULL,
)
CLAIMS: Final = (ACCURACY, LOSS, FLIPS, SIZE)
_PAPER_WIDTH: Final = 2_048_000
_SOURCE: Final = "width_gap.effects.csv"


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of both methods at each width."""
    return [run for sweep in preset.widths for run in _runs(sweep)]


def _runs(sweep: Sweep) -> list[RunSpec]:
    return [run for width in sweep.whole for run in sweep.setting.pair(width=width)]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the gaps at the end of training on the test split, a row a run."""
    return gaps_at_end(records, [(sweep.setting, _runs(sweep)) for sweep in preset.widths])


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed, claim and width; the claim is named at the width that decides it."""
    settings = list(frame["setting"].unique())
    parts = []
    for setting, runs in frame.groupby("setting", sort=False):
        widest = runs["width"].max()
        for width, rows in runs.groupby("width"):
            for claim, measure in zip((ACCURACY, LOSS, FLIPS), MEASURES, strict=True):
                table = paired(rows.assign(value=gap_measure(rows, measure)), "value")
                table = table.assign(
                    setting=setting,
                    claim="",
                    measure=measure,
                    width=width,
                    effect=table["dlgn"] - table["glgn"],
                )
                deciding = [claim] if width == widest else []
                if claim is ACCURACY and _is_paper_size(rows):
                    deciding.append(SIZE)
                names = [label(item, str(setting), settings) for item in deciding]
                parts += [table.assign(claim=name) for name in names or [""]]
    return table_of(parts)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts at the widest network, and on the paper's size."""
    table = effects(frame)
    found = []
    if frame.empty:
        found = each_setting((ACCURACY, LOSS, FLIPS), frame, table, source=_SOURCE)
    else:
        widest = frame["width"] == frame.groupby("setting")["width"].transform("max")
        found = each_setting((ACCURACY, LOSS, FLIPS), frame[widest], table, source=_SOURCE)
    settings = list(frame["setting"].unique())
    sized = [
        (setting, rows)
        for setting, rows in frame.groupby("setting", sort=False)
        if _is_paper_size(rows[rows["width"] == rows["width"].max()])
    ]
    if not sized:
        smaller = smaller_scale(found, ACCURACY, lambda effect: f"{effect:+.2g} pp")
        return [*found, untested(SIZE, f"needs CIFAR-10 at 6 × 2048k; {smaller}")]
    for setting, rows in sized:
        named = label(SIZE, str(setting), settings)
        chosen = table[(table["setting"] == setting) & (table["claim"] == named)]
        at_size = rows[rows["width"] == rows["width"].max()]
        found.append(decide(SIZE, chosen, scale=describe(at_size), source=_SOURCE))
    return found


def _is_paper_size(rows: pd.DataFrame) -> bool:
    return bool((rows["dataset"] == "cifar10").all() and (rows["width"] >= _PAPER_WIDTH).all())
