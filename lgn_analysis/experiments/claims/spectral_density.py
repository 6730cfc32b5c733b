"""The spectral density of the Hessian at the end of training, DLGN and GLGN.

No claim of its own: it shows what the traces of C8 are the sum of.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import no_effects, no_verdicts
from lgn_analysis.experiments.frames import gather, pair_specs, pairs
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim

CLAIMS: Final[tuple[Claim, ...]] = ()
effects, specs, verdicts = no_effects, pair_specs, no_verdicts


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the quadrature nodes and weights, a row a run, probe and node."""
    return gather(records, pairs(preset.pairs), "density")
