"""C2: is the discretization gap of GLGNs smaller?

The gap is that of the forward pass that trains, training − discrete accuracy at the end of training, on
the test split, paired by seed, as the paper's code measures it. Beside it, secondary: soft − discrete
accuracy, the gap in loss, and the flipped predictions, which few test samples resolve better. An
untrained network has no gap either, and where neither method has one there is none to reduce.
"""

from __future__ import annotations

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

CLAIMS: Final = gap_claims(
    "C2",
    titles=(
        "GLGNs have a smaller discretization gap",
        "GLGNs have a smaller gap of the soft network",
        "GLGNs have a smaller gap in loss",
        "Discretising GLGNs changes fewer predictions",
    ),
    metric="{gap} at the end, DLGN − GLGN",
    paper="gap reduced by 98 % (CIFAR-10, 12 × 256k)",
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
    """Return the verdicts on each measure of the gap."""
    pair = frame[~frame["deep"].astype(bool)]
    return each_setting(CLAIMS, pair, effects(frame), source="gap.effects.csv")
