"""The spectral density of the Hessian at the end of training, DLGN and GLGN.

No claim of its own: it shows what the traces of C8 are the sum of.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import no_effects as effects
from lgn_analysis.experiments.effects import no_verdicts as verdicts
from lgn_analysis.experiments.frames import gather, pairs, runs_of
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim

__all__ = ["CLAIMS", "effects", "frame", "specs", "verdicts"]

CLAIMS: Final[tuple[Claim, ...]] = ()


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN and GLGN at the reference tau."""
    return runs_of(pairs(preset.pairs))


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the quadrature nodes and weights, a row a run, probe and node."""
    return gather(records, pairs(preset.pairs), "density")
