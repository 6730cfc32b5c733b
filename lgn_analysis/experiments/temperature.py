"""C7: does the gate temperature of GLGNs have a sweet spot?

There is one if some interior tau ends with a higher discrete test accuracy than both the lowest and
the highest tau. Each interior tau is compared with the better end, paired by seed; the intervals
share the level (Bonferroni), since the best of them is the one that is reported.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.presets import Preset
from lgn_analysis.experiments.sweep import Records, RunSpec
from lgn_analysis.experiments.verdicts import LEVEL, Claim, Verdict, decide, describe

SWEET_SPOT: Final = Claim(
    id="C7",
    title="The gate temperature has a sweet spot",
    paper="0.25 to 1 beat 0.01 and 2 in final discrete accuracy (CIFAR-10, 12 × 256k)",
    metric="discrete test accuracy at the end, best interior tau − the better of the end taus",
    unit="pp",
    smallest=1.0,
    floor=0.90,
)
CLAIMS: Final = (SWEET_SPOT,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the GLGN runs over tau."""
    return preset.temperatures()


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the test split over training, a row a run and step."""
    history = records.of(specs(preset), "history")
    columns = ["run", "dataset", "relaxation", "tau", "width", "depth", "group_tau", "init"]
    columns += ["steps", "seed", "step", "n", "soft_accuracy", "noisy_accuracy"]
    columns += ["discrete_accuracy", "gap", "unused"]
    return history[history["split"] == "test"][columns].reset_index(drop=True)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row an interior tau and seed: its accuracy less that of the better end."""
    last = frame[frame["step"] == frame["steps"]]
    accuracy = 100 * last.pivot(index="seed", columns="tau", values="discrete_accuracy")
    accuracy = accuracy.dropna()
    taus = sorted(accuracy.columns)
    better_end = accuracy[[taus[0], taus[-1]]].max(axis=1)
    # A tau may fail to train, that is part of the effect; where all fail there is nothing to see.
    trained = accuracy.max(axis=1) >= 100 * SWEET_SPOT.floor
    rows = [
        {
            "claim": SWEET_SPOT.id,
            "tau": tau,
            "seed": seed,
            "accuracy": accuracy.loc[seed, tau],
            "better_end": better_end[seed],
            "effect": accuracy.loc[seed, tau] - better_end[seed],
            "counts": trained[seed],
        }
        for tau in taus[1:-1]
        for seed in accuracy.index
    ]
    return pd.DataFrame(rows)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict on the best interior tau."""
    table = effects(frame)
    best = table.groupby("tau")["effect"].mean().idxmax()
    level = 1 - (1 - LEVEL) / table["tau"].nunique()
    taus = ", ".join(f"{tau:g}" for tau in sorted(frame["tau"].unique()))
    scale = f"{describe(frame)}; tau {taus}, best {best:g}"
    chosen = table[table["tau"] == best]
    return [decide(SWEET_SPOT, chosen, scale=scale, source="temperature.effects.csv", level=level)]
