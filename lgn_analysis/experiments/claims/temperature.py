"""C7: does the gate temperature of GLGNs have a sweet spot?

There is one if some interior tau ends with a higher discrete test accuracy than both the lowest and
the highest tau. Each interior tau is compared with the better end, paired by seed; the intervals
share the level (Bonferroni), since the best of them is the one that is reported.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from lgn_analysis.experiments.frames import GAP_COLUMNS, last_step, on_test_split
from lgn_analysis.experiments.settings import NOISY, Preset, Sweep
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict, each_setting, label, table_of

SWEET_SPOT: Final = Claim(
    id="C7",
    title="The gate temperature has a sweet spot",
    paper="0.25 to 1 beat 0.01 and 2 in final discrete accuracy (CIFAR-10, 12 × 256k)",
    metric="discrete test accuracy at the end, best interior tau − the better of the end taus",
    unit="pp",
    smallest=1.0,
    null="no interior tau beats both ends",
)
CLAIMS: Final = (SWEET_SPOT,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the GLGN runs over tau."""
    return [run for sweep in preset.temperatures for run in runs_over_tau(sweep, NOISY)]


def runs_over_tau(sweep: Sweep, relaxation: str) -> list[RunSpec]:
    """Return the runs of one method at each tau."""
    return [run for tau in sweep.values for run in sweep.setting.runs(relaxation, tau=tau)]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the test split over training, a row a run and step."""
    groups = [(sweep.setting, runs_over_tau(sweep, NOISY)) for sweep in preset.temperatures]
    return on_test_split(records, groups, [*GAP_COLUMNS, "noisy_accuracy", "unused"])


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row an interior tau and seed: its accuracy less that of the better end."""
    settings = list(frame["setting"].unique())
    parts = []
    for setting, runs in frame.groupby("setting", sort=False):
        last = last_step(runs)
        accuracy = 100 * last.pivot(index="seed", columns="tau", values="discrete_accuracy")
        accuracy = accuracy.dropna()
        taus = sorted(accuracy.columns)
        better_end = accuracy[[taus[0], taus[-1]]].max(axis=1)
        # A tau may fail to train, that is part of the effect; where all fail there is none to see.
        trained = accuracy.max(axis=1) >= 100 * last["floor"].max()
        rows = [
            {
                "setting": setting,
                "claim": label(SWEET_SPOT, str(setting), settings),
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
        parts.append(pd.DataFrame(rows))
    return table_of(parts)


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict on the best interior tau."""
    table = effects(frame)
    return each_setting(CLAIMS, frame, table, source="temperature.effects.csv", by=("tau",))
