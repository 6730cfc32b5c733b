"""C2: is the discretization gap of GLGNs smaller?

The gap is soft − discrete accuracy at the end of training, on the test split, paired by seed;
beside it the gap in loss and the flipped predictions, which a few hundred test samples resolve
better. Only runs above the setting's floor count: an untrained network has no gap either.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.frames import MEASURES, gap_measure, last_step, on_test_split
from lgn_analysis.experiments.settings import NOISE_FREE, Preset
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

ACCURACY: Final = Claim(
    id="C2 accuracy",
    title="GLGNs have a smaller discretization gap",
    paper="gap reduced by 98 % (CIFAR-10, 12 × 256k)",
    metric="gap in test accuracy at the end, DLGN − GLGN",
    unit="pp",
    smallest=0.5,
    null="the gaps are equal",
)
LOSS: Final = Claim(
    id="C2 loss",
    title="GLGNs have a smaller gap in loss",
    paper="not reported",
    metric="|soft − discrete| test loss at the end, DLGN − GLGN",
    unit="nats",
    smallest=0.01,
    null="the gaps are equal",
)
FLIPS: Final = Claim(
    id="C2 flips",
    title="Discretising GLGNs changes fewer predictions",
    paper="not reported",
    metric="share of test predictions that flip at the end, DLGN − GLGN",
    unit="pp",
    smallest=0.5,
    null="equally many predictions flip",
)
CLAIMS: Final = (ACCURACY, LOSS, FLIPS)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: the pair, and the deep DLGN for the figure."""
    pairs = [run for setting in preset.pairs for run in setting.pair()]
    return pairs + [run for setting in preset.symptoms for run in setting.runs(NOISE_FREE)]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the gaps over training on the test split; ``deep`` marks the deep DLGN."""
    pairs = [(setting, setting.pair()) for setting in preset.pairs]
    deep = [(setting, setting.runs(NOISE_FREE)) for setting in preset.symptoms]
    names = [setting.name for setting in preset.symptoms]
    history = on_test_split(records, [*pairs, *deep])
    return history.assign(deep=history["setting"].isin(names))


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim, from the last step of the pair."""
    last = last_step(frame[~frame["deep"].astype(bool)])
    settings = list(last["setting"].unique())
    parts = []
    for setting, runs in last.groupby("setting", sort=False):
        for claim, measure in zip(CLAIMS, MEASURES, strict=True):
            table = paired(runs.assign(value=gap_measure(runs, measure)), "value")
            named = label(claim, str(setting), settings)
            effect = table["dlgn"] - table["glgn"]
            parts.append(table.assign(setting=setting, claim=named, effect=effect))
    return table_of(parts)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on accuracy, loss and flipped predictions."""
    pair = frame[~frame["deep"].astype(bool)]
    return each_setting(CLAIMS, pair, effects(frame), source="gap.effects.csv")
