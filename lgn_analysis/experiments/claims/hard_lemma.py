"""M7: which lemma predicts what the noise adds to the loss of a hard, noisy forward?

A Gumbel-ST network evaluates one gate a node, drawn by its logits and the noise. Lemma 1 speaks of another
loss: that of soft gates whose logits are perturbed. The hard lemma (:func:`lgn_analysis.hard_lemma`)
speaks of the one that is used, ``½ Σ Var_p(h) ∂²L/∂y²`` at tau 1. Both predictions are held against the
measured gain of the hard noisy forward, in nats: a ratio says little where the gain is nearly nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import gather, pairs, runs_of
from lgn_analysis.experiments.settings import PAIR, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

_NEARER: Final = Claim(
    id="M7",
    title="The hard lemma predicts the gain of the hard forward better than Lemma 1",
    paper="Lemma 1 is given for the noise of Gumbel-ST networks",
    metric="|gain − Lemma 1's prediction| − |gain − hard lemma's prediction|, gain of the hard noisy "
    "forward over the soft loss at tau 1, mean over the steps that are probed",
    unit="nats",
    smallest=0.005,
    null="both lemmas err equally",
)
CLAIMS: Final = tuple(
    replace(
        _NEARER,
        id=f"M7 {name}",
        title=f"{_NEARER.title}, at {name}s",
        primary=name == "GLGN",
    )
    for name in ("DLGN", "GLGN")
)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of DLGN and GLGN."""
    return runs_of(pairs(preset.lemmas))


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run and step: the gains of hard and of soft noise, and what is predicted."""
    return gather(records, pairs(preset.lemmas), "hard_lemma")


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and method: the errors of both lemmas, means over steps, and their difference."""
    return effects_by_setting(frame, _errors)


def _errors(rows: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    errors = rows.assign(
        lemma_error=(rows["gain"] - rows["lemma_prediction"]).abs(),
        hard_error=(rows["gain"] - rows["prediction"]).abs(),
    )
    for claim, kind in zip(CLAIMS, PAIR, strict=True):
        part = errors[errors["relaxation"] == kind]
        table = part.groupby("seed", as_index=False)[["lemma_error", "hard_error"]].mean()
        yield claim, table.assign(effect=table["lemma_error"] - table["hard_error"], counts=True)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts at DLGNs and at GLGNs."""
    return each_setting(CLAIMS, frame, effects(frame), source="hard_lemma.effects.csv")
