"""C7: does the gate temperature of GLGNs have a sweet spot?

There is one if some interior tau ends with a higher discrete test accuracy than both the lowest and
the highest tau. Each interior tau is compared with the better end, paired by seed; the intervals
share the level (Bonferroni), since the best of them is the one that is reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import (
    GAP_COLUMNS,
    Group,
    accuracy_variance,
    each_method,
    histories,
    last_step,
    runs_of,
)
from lgn_analysis.experiments.settings import NOISE_FREE, NOISY, Preset, Sweep
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict
from lgn_analysis.metrics import convergence

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
    """Return the GLGN runs over tau, and the DLGN's for the figure."""
    return runs_of([*over_tau(preset.temperatures), *_noise_free(preset)])


def over_tau(sweeps: Iterable[Sweep]) -> list[Group]:
    """Return the GLGNs at each tau of the sweeps."""
    return [
        (sweep.setting, [run for tau in sweep.values for run in sweep.setting.runs(NOISY, tau=tau)])
        for sweep in sweeps
    ]


def _noise_free(preset: Preset) -> list[Group]:
    """Return the DLGN of each sweep's setting."""
    return each_method((sweep.setting for sweep in preset.temperatures), [NOISE_FREE])


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return the test split over training, a row a run and step.

    ``reached`` is the step at which the run reached its target on the validation split, NaN where it did
    not.
    """
    groups = [*over_tau(preset.temperatures), *_noise_free(preset)]
    columns = ["split", "seconds", *GAP_COLUMNS, "noisy_accuracy", "unused"]
    both = histories(records, groups, columns)
    steps = {run: _reached(history) for run, history in both.groupby("run")}
    rows = both[both["split"] == "test"].drop(columns=["split", "seconds"])
    return rows.assign(reached=rows["run"].map(steps)).reset_index(drop=True)


def _reached(history: pd.DataFrame) -> float:
    found = convergence(history, float(history["target"].iloc[0]))
    return float(found.step) if found.reached else math.nan


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row an interior tau and seed: its accuracy less that of the better end."""
    return effects_by_setting(frame[frame["relaxation"] == NOISY], _over_the_better_end)


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
        test_variance=sum(accuracy_variance(share, last["n"].iloc[0]) for share in shares),
    )
    return [(SWEET_SPOT, table.reset_index())]


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdict on the best interior tau."""
    table = effects(frame)
    noisy = frame[frame["relaxation"] == NOISY]
    return each_setting(CLAIMS, noisy, table, source="temperature.effects.csv", by=("tau",))
