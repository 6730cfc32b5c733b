"""C3: do GLGNs leave fewer gates unused?

Unused by the paper's definition: the entropy of softmax(z) still lies above the lower edge of its
central 95 % at initialisation. It presumes normal initialisation; the preset has that. The figure
shows beside it what is unused in function: constant outputs, and gates that no path reads.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.presets import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.sweep import Records, RunSpec
from lgn_analysis.experiments.verdicts import Claim, Verdict, decide, describe, paired

UNUSED: Final = Claim(
    id="C3",
    title="GLGNs leave fewer gates unused",
    paper="49.81 % → 0.00 % (CIFAR-10, 12 × 256k)",
    metric="share of unused gates at the end, DLGN − GLGN",
    unit="pp",
    smallest=5.0,
    floor=0.90,
)
CLAIMS: Final = (UNUSED,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: the pair, and the deep DLGN for the figure."""
    return preset.pair(NOISE_FREE) + preset.pair(NOISY) + preset.deep_runs()


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a run and layer, with the run's final discrete test accuracy."""
    runs = specs(preset)
    usage = records.of(runs, "usage")
    history = records.of(runs, "history")
    last = history[(history["step"] == history["steps"]) & (history["split"] == "test")]
    deep = {spec.key for spec in preset.deep_runs()}
    merged = usage.merge(last[["run", "discrete_accuracy"]], on="run")
    return merged.assign(deep=merged["run"].isin(deep))


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed: the difference of the shares over all layers, in percentage points."""
    pair = frame[~frame["deep"]]
    weighted = pair.assign(unused_gates=pair["unused"] * pair["n_gates"])
    runs = weighted.groupby(["relaxation", "seed"], as_index=False).agg(
        unused_gates=("unused_gates", "sum"),
        n_gates=("n_gates", "sum"),
        discrete_accuracy=("discrete_accuracy", "first"),
    )
    runs["share"] = 100 * runs["unused_gates"] / runs["n_gates"]
    table = paired(runs, "share", floor=UNUSED.floor)
    return table.assign(claim=UNUSED.id, effect=table["dlgn"] - table["glgn"])


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict."""
    return [
        decide(
            UNUSED,
            effects(frame),
            scale=describe(frame[~frame["deep"]]),
            source="unused_gates.effects.csv",
        )
    ]
