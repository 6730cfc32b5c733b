"""The spectral density of the Hessian at the end of training, DLGN and GLGN.

No claim of its own: it shows what the traces of C8 are the sum of.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.presets import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.sweep import Records, RunSpec
from lgn_analysis.experiments.verdicts import Claim, Verdict

CLAIMS: Final[tuple[Claim, ...]] = ()


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN and GLGN at tau 1."""
    return preset.pair(NOISE_FREE) + preset.pair(NOISY)


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the quadrature nodes and weights, a row a run, probe and node."""
    return records.of(specs(preset), "density")


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return no rows: nothing is decided here."""
    return frame.iloc[:0]


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return no verdicts."""
    return []
