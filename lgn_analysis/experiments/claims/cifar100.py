"""C10: do GLGNs converge on CIFAR-100 where DLGNs do not?

The paper saw a GLGN converge in about 400k iterations and a DLGN not within 48 GPU hours. Decided as
C1 is, by the ratio of iterations to the target with censored runs as bounds, and by CIFAR-100 alone:
smaller data say nothing of a hundred classes.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.claims.convergence import time_ratios
from lgn_analysis.experiments.effects import each_setting, effects_by_setting, factor_claim
from lgn_analysis.experiments.frames import histories, pairs, runs_of
from lgn_analysis.experiments.settings import PAIR, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Verdict, untested

CIFAR100: Final = factor_claim(
    "C10",
    "GLGNs converge on CIFAR-100, DLGNs do not in 48 GPU hours",
    paper="about 400k iterations (CIFAR-100)",
    metric="iterations to the target discrete validation accuracy on CIFAR-100, DLGN / GLGN",
    null="both methods take equally long",
    premise="one of the methods reaches the target",
)
CLAIMS: Final = (CIFAR100,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN and GLGN on CIFAR-100."""
    return runs_of(pairs(preset.cifar100))


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the training histories, a row a run, step and split."""
    columns = ["step", "split", "n", "seconds", "soft_accuracy"]
    columns += ["noisy_accuracy", "discrete_accuracy"]
    return histories(records, pairs(preset.cifar100), columns)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: ``effect`` = ln(DLGN / GLGN), and its bounds."""
    return effects_by_setting(frame, lambda runs: [(CIFAR100, time_ratios(runs, "step", PAIR))])


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict."""
    if frame.empty:
        return [untested(CIFAR100, "needs CIFAR-100 and a GPU; C1 says what smaller data show")]
    return each_setting(CLAIMS, frame, effects(frame), source="cifar100.effects.csv")
