"""C10: do GLGNs converge on CIFAR-100 where DLGNs do not?

The paper saw a GLGN converge in about 400k iterations and a DLGN not within 48 GPU hours. Decided as
C1 is, by the ratio of iterations to the target with censored runs as bounds, and by CIFAR-100 alone:
smaller data say nothing of a hundred classes.
"""

from __future__ import annotations

import math
from typing import Final

import pandas as pd

from lgn_analysis.experiments.claims.convergence import time_ratios
from lgn_analysis.experiments.frames import RUN_COLUMNS, gather
from lgn_analysis.experiments.settings import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import (
    Claim,
    Verdict,
    each_setting,
    label,
    table_of,
    untested,
)

CIFAR100: Final = Claim(
    id="C10",
    title="GLGNs converge on CIFAR-100, DLGNs do not in 48 GPU hours",
    paper="about 400k iterations (CIFAR-100)",
    metric="iterations to the target discrete validation accuracy on CIFAR-100, DLGN / GLGN",
    unit="×",
    smallest=math.log(1.25),
    log=True,
    null="both methods take equally long",
)
CLAIMS: Final = (CIFAR100,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN and GLGN on CIFAR-100."""
    return [run for setting in preset.cifar100 for run in setting.pair()]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the training histories, a row a run, step and split."""
    groups = [(setting, setting.pair()) for setting in preset.cifar100]
    columns = ["step", "split", "n", "seconds", "soft_accuracy", "discrete_accuracy"]
    return gather(records, groups, "history").reindex(columns=[*RUN_COLUMNS, *columns])


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: ``effect`` = ln(DLGN / GLGN), and its bounds."""
    settings = list(frame["setting"].unique())
    return table_of(
        [
            time_ratios(runs, "step", (NOISE_FREE, NOISY)).assign(
                setting=setting, claim=label(CIFAR100, str(setting), settings)
            )
            for setting, runs in frame.groupby("setting", sort=False)
        ]
    )


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict."""
    if frame.empty:
        return [untested(CIFAR100, "needs CIFAR-100 and a GPU; C1 says what smaller data show")]
    return each_setting(CLAIMS, frame, effects(frame), source="cifar100.effects.csv")
