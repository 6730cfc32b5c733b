"""M5: do more noise draws a step train a GLGN in fewer steps?

The gradient of a Gumbel-ST network is that of the soft one inside noise of constant size, which the whole batch
shares: a larger batch does not average it away, and M independent draws a step multiply the squared
signal-to-noise ratio by M. While the signal is far below the noise, a step goes its way by their quotient, so that
16 draws should take 4 times fewer steps if logits drift, and 16 times fewer if it is their random walk that
has to be outdone. Time is measured as in C1: steps to the target on the validation split, paired by seed.
``work`` in the effects is the same quotient in forward and backward passes, draws times steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import pandas as pd

from lgn_analysis.experiments.claims.convergence import time_ratios
from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import Group, histories, runs_of
from lgn_analysis.experiments.settings import NOISY, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

DRAWS: Final = (1, 4, 16)

STEPS: Final = Claim(
    id="M5",
    title="More noise draws a step train GLGNs in fewer steps",
    paper="not in the paper: one draw a step",
    metric=f"iterations to the target discrete validation accuracy, {DRAWS[0]} draw / {DRAWS[-1]} draws a "
    "step",
    unit="×",
    smallest=math.log(2.0),
    log=True,
    null="both take equally many steps",
    premise="one of the two reaches the target",
)
CLAIMS: Final = (STEPS,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of GLGNs for every number of draws and every depth."""
    return runs_of(group for _, group in _groups(preset))


def _groups(preset: Preset) -> list[tuple[int, Group]]:
    return [
        (
            draws,
            (
                sweep.setting,
                [
                    run
                    for depth in sweep.whole
                    for run in sweep.setting.runs(
                        NOISY, training={"draws_per_step": draws}, depth=depth
                    )
                ],
            ),
        )
        for sweep in preset.draws
        for draws in DRAWS
    ]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the histories on validation and test split, a row a run, step and split."""
    columns = ["step", "split", "n", "seconds", "loss", "soft_accuracy", "discrete_accuracy"]
    parts = []
    for draws, group in _groups(preset):
        rows = histories(records, [group], columns)
        parts.append(rows[rows["split"] != "train"].assign(draws=draws))
    whole = [part for part in parts if len(part)]
    return pd.concat(whole, ignore_index=True) if whole else histories(records, [], columns)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and depth: ln of the steps of one draw over those of many."""
    return effects_by_setting(frame, _ratios)


def _ratios(runs: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    ends = runs[runs["draws"].isin([DRAWS[0], DRAWS[-1]])]
    methods = (str(DRAWS[0]), str(DRAWS[-1]))
    for depth, rows in ends.groupby("depth"):
        by_draws = rows.assign(relaxation=rows["draws"].astype(str))
        table = time_ratios(by_draws, "step", methods)
        if len(table):
            table = table.rename(columns={"dlgn": "one_draw", "glgn": "many_draws"})
            work = table["one_draw"] / (DRAWS[-1] * table["many_draws"])
            yield STEPS, table.assign(depth=depth, work=work)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict over the depths, of which one is enough."""
    return each_setting(
        CLAIMS, frame, effects(frame), source="draws_per_step.effects.csv", by=("depth",)
    )
