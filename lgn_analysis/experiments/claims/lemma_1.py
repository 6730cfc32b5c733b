"""C8, its theory: does Lemma 1 predict what the noise adds to the loss?

The lemma says that Gumbel noise of scale s adds ``s² · π²/12 · tr_z(H)``. It is exact as s → 0; the
claim is decided at s = 1, the noise of training, separately for DLGNs and GLGNs, and at the earliest
step that the preset probes, while the noise still shapes the network. It is decided in nats, by the
distance of measured and predicted gain, since a ratio says nothing where the gain is nearly nothing.

Where the lemma stops, and why: ``radius`` is the largest measured scale up to which the ratio of
measured to predicted gain stays within the tolerance of 1. The third and fourth order of the same
expansion, where the preset asks for them, show what the second leaves out: third moments, since
Gumbel noise is skewed, and fourth derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import pair_specs, pairs, probed
from lgn_analysis.experiments.settings import PAIR, Preset
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

TOLERANCE: Final = 0.25
LEAST: Final = 0.005
"""Nats that the noise must add, or be predicted to add, for the lemma to say anything."""

_LEMMA: Final = Claim(
    id="C8 lemma",
    title="Lemma 1 holds at the noise of training",
    paper="Lemma 1: the noise adds π²/12 · tr(H) to the loss, to second order",
    metric=f"{100 * TOLERANCE:g} % of the measured gain − |measured − predicted gain|, at scale 1",
    unit="nats",
    null=f"the prediction is {100 * TOLERANCE:g} % of the gain away from it",
    premise=f"the network is trained, and the gain or its prediction is {LEAST} nats or more",
    primary=False,
)
AT_DLGN: Final = replace(_LEMMA, id="C8 lemma DLGN", title=_LEMMA.title + ", at DLGNs")
AT_GLGN: Final = replace(_LEMMA, id="C8 lemma GLGN", title=_LEMMA.title + ", at GLGNs")
CLAIMS: Final = (AT_DLGN, AT_GLGN)
_RATIOS: Final = {"ratio": "radius", "ratio_3": "radius_3", "ratio_4": "radius_4"}
FIGURE_OPTIONS: Final = {"tolerance": TOLERANCE}
specs = pair_specs


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run, step and scale, with the discrete test accuracy of that step.

    ``radius``, ``radius_3`` and ``radius_4`` are those of the row's run and step.
    """
    lemma = probed(records, pairs(preset.pairs), "lemma")
    return lemma if lemma.empty else with_radii(lemma)


def with_radii(lemma: pd.DataFrame) -> pd.DataFrame:
    """Add the radius of each run and step, for each order that was measured."""
    columns = [column for column in _RATIOS if column in lemma]
    parts = []
    for _, rows in lemma.groupby(["run", "step"], sort=False):
        found = {_RATIOS[column]: radius(rows, column) for column in columns}
        parts.append(rows.assign(**found))
    return pd.concat(parts, ignore_index=True)


def radius(rows: pd.DataFrame, column: str) -> float:
    """Return the largest scale up to which ``column`` is within the tolerance of 1.

    0 where even the smallest measured scale is outside.
    """
    ordered = rows.sort_values("scale")
    inside = ((ordered[column] - 1).abs() <= TOLERANCE).to_numpy()
    n_inside = len(inside) if inside.all() else int(inside.argmin())
    return float(ordered["scale"].iloc[n_inside - 1]) if n_inside else 0.0


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a run: how far the prediction at scale 1 and the earliest step is inside.

    Beside it the radius, and the ratios to the predictions of higher order.
    """
    return effects_by_setting(frame, _at_scale_one)


def _at_scale_one(rows: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    early = rows[rows["step"] == rows["step"].min()]
    columns = [
        "seed",
        "step",
        "gain",
        "prediction",
        *_RATIOS,
        *_RATIOS.values(),
        "discrete_accuracy",
        "floor",
    ]
    table = early[early["scale"] == 1.0]
    for claim, kind in zip(CLAIMS, PAIR, strict=True):
        found = table.loc[table["relaxation"] == kind, [name for name in columns if name in table]]
        yield (
            claim,
            found.assign(
                effect=TOLERANCE * found["gain"].abs()
                - (found["gain"] - found["prediction"]).abs(),
                counts=(found["discrete_accuracy"] >= found["floor"])
                & (found[["gain", "prediction"]].abs().max(axis=1) >= LEAST),
            ),
        )


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts at DLGNs and at GLGNs."""
    table = effects(frame)
    found = each_setting(CLAIMS, frame, table, source="lemma_1.effects.csv")
    if frame.empty:
        return found
    steps = table.groupby("claim")["step"].first()  # each setting has one
    return [
        replace(verdict, scale=f"{verdict.scale}; at step {steps[verdict.claim.id]:g}")
        if verdict.claim.id in steps
        else verdict
        for verdict in found
    ]
