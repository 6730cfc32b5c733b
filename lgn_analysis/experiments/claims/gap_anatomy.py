"""Where the gap lies at the end of training: by layer, and to second order in gate weights.

No claim of its own: C14 asks whether the expansion predicts the gap, this shows where it sits.
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
    """Return the layers made discrete alone and the whole, at the first and last probed step.

    The first is while the network still learns: there the gap is largest.
    """
    table = gather(records, pairs(preset.pairs), "anatomy")
    if table.empty:
        return table
    whole = (table["scheme"] == "from input") & (table["n_discrete"] == table["depth"])
    kept = table[(table["scheme"] == "alone") | whole]
    steps = kept.groupby("setting")["step"]
    # The probe at step 0 is of a network that knows nothing.
    learnt = kept["step"].where(kept["step"] > 0).groupby(kept["setting"]).transform("min")
    chosen = (kept["step"] == learnt) | (kept["step"] == steps.transform("max"))
    return kept[chosen].reset_index(drop=True)
