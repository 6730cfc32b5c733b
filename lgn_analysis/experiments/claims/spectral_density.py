"""The spectral density of the Hessian at the end of training, DLGN and GLGN.

No claim of its own: it shows what the traces of C8 are the sum of.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.frames import gather
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

CLAIMS: Final[tuple[Claim, ...]] = ()


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN and GLGN at the reference tau."""
    return [run for setting in preset.pairs for run in setting.pair()]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the quadrature nodes and weights, a row a run, probe and node."""
    groups = [(setting, setting.pair()) for setting in preset.pairs]
    return gather(records, groups, "density")


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return no rows: nothing is decided here."""
    return frame.iloc[:0]


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return no verdicts."""
    return []
