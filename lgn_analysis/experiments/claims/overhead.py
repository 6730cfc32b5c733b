"""C11: what does the noise cost per iteration?

Training steps of the methods are timed in turns, in one process, in mirrored order, so that a drift
of the machine falls on all alike; a seed's cost is the median over rounds of the ratio within a
round. Here a GLGN runs on packed bits wherever its forward is hard, which the paper's kernels did
not, so the cost of the noise alone is asked too: soft Gumbel against the DLGN, on equal kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import Group, gather, runs_of
from lgn_analysis.experiments.settings import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

MOST: Final = 10.0
"""Per cent of a DLGN's iteration that the paper's "about 5 %" is taken to allow."""

STEP: Final = Claim(
    id="C11 step",
    title="An iteration of a GLGN costs little more than one of a DLGN",
    paper="about 5 % (CIFAR-10, CUDA)",
    metric="extra seconds per training step, GLGN over DLGN",
    unit="%",
    most=MOST,
    null=f"the extra cost is {MOST:g} %",
    primary=False,
)
NOISE: Final = replace(
    STEP,
    id="C11 noise",
    title="The noise itself costs little",
    metric="extra seconds per training step, soft Gumbel over DLGN",
    primary=True,
)
CLAIMS: Final = (STEP, NOISE)


def specs(preset: Preset) -> list[RunSpec]:
    """Return the timings."""
    return runs_of(_timings(preset))


def _timings(preset: Preset) -> list[Group]:
    return [(item.setting, item.setting.timings(item.plan)) for item in preset.overhead]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a seed, method and round; ``relaxation`` names the method."""
    table = gather(records, _timings(preset), "timing")
    if table.empty:
        return table
    # The steps of these runs are those that were timed.
    taken = table["turn_steps"] * (table["round"].groupby(table["run"]).transform("max") + 1)
    return table.assign(relaxation=table["method"], steps=taken).drop(columns="method")


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a seed and claim: ``extra``, in per cent, and ``effect``, what is left of MOST."""
    return effects_by_setting(frame, _costs)


def _costs(runs: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    for claim, method in ((STEP, NOISY), (NOISE, "gumbel-soft")):
        table = extra_cost(runs, method).rename("extra").reset_index()
        yield claim, table.assign(effect=MOST - table["extra"], counts=True)


def extra_cost(runs: pd.DataFrame, method: str) -> pd.Series:
    """Return for each seed the median over rounds of the extra seconds, in per cent of the DLGN's."""
    turns = runs.pivot_table(index=["seed", "round"], columns="relaxation", values="seconds")
    ratio = turns[method] / turns[NOISE_FREE]
    extra: pd.Series = 100 * (ratio.groupby("seed").median() - 1)
    return extra


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on the whole step and on the noise alone."""
    return each_setting(CLAIMS, frame, effects(frame), source="overhead.effects.csv")
