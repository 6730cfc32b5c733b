"""C8, its theory: does Lemma 1 predict what the noise adds to the loss?

The lemma says that Gumbel noise of scale s adds ``s² · π²/12 · tr_z(H)``. It is exact as s → 0; the
claim is decided at s = 1, the noise of training, separately for DLGNs and GLGNs, and at the earliest
step that the preset probes, while the noise still shapes the network. The last step is drawn beside
it: there the gain is nearly nothing, and a few rare draws make all of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pandas as pd

from lgn_analysis.experiments.presets import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.sweep import Records, RunSpec
from lgn_analysis.experiments.verdicts import Claim, Verdict, decide, describe

TOLERANCE: Final = 0.25

_LEMMA: Final = Claim(
    id="C8 lemma",
    title="Lemma 1 holds at the noise of training",
    paper="Lemma 1: the noise adds π²/12 · tr(H) to the loss, to second order",
    metric=f"{TOLERANCE} − |ratio − 1|, ratio = measured gain / predicted gain at scale 1",
    floor=0.90,
)
AT_DLGN: Final = replace(_LEMMA, id="C8 lemma (DLGN)", title=_LEMMA.title + ", at DLGNs")
AT_GLGN: Final = replace(_LEMMA, id="C8 lemma (GLGN)", title=_LEMMA.title + ", at GLGNs")
CLAIMS: Final = (AT_DLGN, AT_GLGN)
FIGURE_OPTIONS: Final = {"tolerance": TOLERANCE}


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN and GLGN at tau 1."""
    return preset.pair(NOISE_FREE) + preset.pair(NOISY)


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run, step and scale, with the discrete test accuracy of that step."""
    runs = specs(preset)
    history = records.of(runs, "history")
    test = history.loc[history["split"] == "test", ["run", "step", "discrete_accuracy"]]
    return records.of(runs, "lemma").merge(test, on=["run", "step"])


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a run: how far the ratio at scale 1 and the earliest step is inside."""
    at_one = frame[(frame["scale"] == 1.0) & (frame["step"] == frame["step"].min())]
    tables = [
        at_one.loc[
            at_one["relaxation"] == kind, ["seed", "step", "ratio", "discrete_accuracy"]
        ].assign(claim=claim.id)
        for claim, kind in ((AT_DLGN, NOISE_FREE), (AT_GLGN, NOISY))
    ]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(
        effect=TOLERANCE - (table["ratio"] - 1).abs(),
        counts=table["discrete_accuracy"] >= _LEMMA.floor,
    )


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts at DLGNs and at GLGNs."""
    table = effects(frame)
    return [
        decide(
            claim,
            table[table["claim"] == claim.id],
            scale=f"{describe(frame)}; at step {frame['step'].min()}",
            source="lemma_1.effects.csv",
        )
        for claim in CLAIMS
    ]
