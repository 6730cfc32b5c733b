"""C7: does the gate temperature of GLGNs have a sweet spot?

There is one if some interior tau ends with a higher discrete test accuracy than both the lowest and
the highest tau. Each interior tau is compared with the better end, paired by seed; the intervals
share the level (Bonferroni), since the best of them is the one that is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import GAP_COLUMNS, Group, last_step, on_test_split, runs_of
from lgn_analysis.experiments.settings import NOISY, Preset, Sweep
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

SWEET_SPOT: Final = Claim(
    id="C7",
    title="The gate temperature has a sweet spot",
    paper="0.25 to 1 beat 0.01 and 2 in final discrete accuracy (CIFAR-10, 12 × 256k)",
    metric="discrete test accuracy at the end, best interior tau − the better of the end taus",
    unit="pp",
    smallest=1.0,
    null="no interior tau beats both ends",
    premise="some tau trains",
)
CLAIMS: Final = (SWEET_SPOT,)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the GLGN runs over tau."""
    return runs_of(over_tau(preset.temperatures))


def over_tau(sweeps: Iterable[Sweep]) -> list[Group]:
    """Return the GLGNs at each tau of the sweeps."""
    return [
        (sweep.setting, [run for tau in sweep.values for run in sweep.setting.runs(NOISY, tau=tau)])
        for sweep in sweeps
    ]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the test split over training, a row a run and step."""
    columns = [*GAP_COLUMNS, "noisy_accuracy", "unused"]
    return on_test_split(records, over_tau(preset.temperatures), columns)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row an interior tau and seed: its accuracy less that of the better end."""
    return effects_by_setting(frame, _over_the_better_end)


def _over_the_better_end(runs: pd.DataFrame) -> list[tuple[Claim, pd.DataFrame]]:
    last = last_step(runs)
    accuracy = 100 * last.pivot(index="seed", columns="tau", values="discrete_accuracy")
    accuracy = accuracy.dropna()
    lowest, *interior, highest = sorted(accuracy.columns)
    table = accuracy[interior].melt(ignore_index=False, value_name="accuracy")
    better_end = accuracy[[lowest, highest]].max(axis=1).reindex(table.index)
    # A tau may fail to train, that is part of the effect; where all fail there is none to see.
    trained = accuracy.max(axis=1) >= 100 * last["floor"].max()
    shares = table["accuracy"] / 100, better_end / 100
    table = table.assign(
        better_end=better_end,
        effect=table["accuracy"] - better_end,
        counts=trained.reindex(table.index),
        test_variance=1e4 * sum(share * (1 - share) for share in shares) / last["n"].iloc[0],
    )
    return [(SWEET_SPOT, table.reset_index())]


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict on the best interior tau."""
    table = effects(frame)
    return each_setting(CLAIMS, frame, table, source="temperature.effects.csv", by=("tau",))
