"""C2: is the discretization gap of GLGNs smaller?

The gap is soft − discrete accuracy at the end of training, on the test split, paired by seed;
beside it the gap in loss and the flipped predictions, which a few hundred test samples resolve
better. Only runs above the setting's floor count: an untrained network has no gap either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import (
    each_setting,
    effects_by_setting,
    gap_claims,
    gap_differences,
)
from lgn_analysis.experiments.frames import (
    last_step,
    mark_deep,
    on_test_split,
    pairs_and_deep_networks,
    runs_of,
)
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Verdict

_ACCURACY, _LOSS, _FLIPS = gap_claims(
    "C2",
    titles=(
        "GLGNs have a smaller discretization gap",
        "GLGNs have a smaller gap in loss",
        "Discretising GLGNs changes fewer predictions",
    ),
    metric="{gap} at the end, DLGN − GLGN",
    paper="not reported",
)
CLAIMS: Final = (
    replace(_ACCURACY, paper="gap reduced by 98 % (CIFAR-10, 12 × 256k)"),
    _LOSS,
    replace(_FLIPS, metric="share of test predictions that flip at the end, DLGN − GLGN"),
)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: the pair, and the deep DLGN for the figure."""
    return runs_of(pairs_and_deep_networks(preset))


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the gaps over training on the test split; ``deep`` marks the deep DLGN."""
    return mark_deep(on_test_split(records, pairs_and_deep_networks(preset)), preset)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim, from the last step of the pair."""
    last = last_step(frame[~frame["deep"].astype(bool)])
    return effects_by_setting(last, lambda runs: gap_differences(CLAIMS, runs))


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on accuracy, loss and flipped predictions."""
    pair = frame[~frame["deep"].astype(bool)]
    return each_setting(CLAIMS, pair, effects(frame), source="gap.effects.csv")
