"""C3: do GLGNs leave fewer gates unused?

Unused by the paper's definition: the entropy of softmax(z) still lies above the lower edge of its
central 95 % at normal initialisation. With residual initialisation a gate starts below it, and is unused
only where training has undecided it. The figure shows
beside it what is unused in function, constant outputs and gates that no path reads, and the whole
distribution of entropies, layer by layer.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import differing, each_setting, effects_by_setting
from lgn_analysis.experiments.frames import mark_deep, pairs_and_deep_networks, probed, runs_of
from lgn_analysis.experiments.settings import Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

UNUSED: Final = Claim(
    id="C3",
    title="GLGNs leave fewer gates unused",
    paper="49.81 % → 0.00 % (CIFAR-10, 12 × 256k)",
    metric="share of unused gates at the end, DLGN − GLGN",
    unit="pp",
    smallest=5.0,
    null="equal shares are unused",
    premise="both methods are trained, and one of them leaves gates unused",
)
CLAIMS: Final = (UNUSED,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: the pair, and the deep DLGN for the figure."""
    return runs_of(pairs_and_deep_networks(preset))


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run and layer, with the run's final discrete test accuracy."""
    usage = probed(records, pairs_and_deep_networks(preset), "usage", at_end=True)
    return mark_deep(usage, preset)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: the difference of the shares over all layers, in percentage points."""
    return effects_by_setting(frame[~frame["deep"].astype(bool)], _shares)


def _shares(rows: pd.DataFrame) -> list[tuple[Claim, pd.DataFrame]]:
    weighted = rows.assign(unused_gates=rows["unused"] * rows["n_gates"])
    runs = weighted.groupby(["relaxation", "seed"], as_index=False).agg(
        unused_gates=("unused_gates", "sum"),
        n_gates=("n_gates", "sum"),
        discrete_accuracy=("discrete_accuracy", "first"),
        floor=("floor", "first"),
    )
    runs["share"] = 100 * runs["unused_gates"] / runs["n_gates"]
    return [(UNUSED, differing(runs, "share", UNUSED))]


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict."""
    pair = frame[~frame["deep"].astype(bool)]
    return each_setting(CLAIMS, pair, effects(frame), source="unused_gates.effects.csv")
