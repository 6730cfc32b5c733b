"""C13, not in the paper: where does it pay to train with noise?

A map over width, depth, initialisation and training length of GLGN − DLGN in discrete test accuracy,
at equal steps and at equal seconds (of an undisturbed machine). Equal seconds are read from the histories: what the GLGN had
reached when it had trained as long as the DLGN took for that many steps. The claim is that it pays
somewhere; the intervals of the cells share the level. A cell counts where at least one of the two is
trained: that the other is not is the effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import pandas as pd

from lgn_analysis.experiments.effects import each_setting, effects_by_setting
from lgn_analysis.experiments.frames import accuracy_variance, on_test_split, undisturbed_seconds
from lgn_analysis.experiments.settings import NOISE_FREE, NOISY, Preset
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.verdicts import Claim, Verdict

STEPS: Final = Claim(
    id="C13 steps",
    title="Somewhere GLGNs are more accurate at equal steps",
    paper="not in the paper",
    metric="discrete test accuracy at equal steps, GLGN − DLGN, in the best cell of the map",
    unit="pp",
    smallest=1.0,
    null="in no cell the GLGN is more accurate",
    premise="one of the methods is trained",
)
SECONDS: Final = replace(
    STEPS,
    id="C13 seconds",
    title="Somewhere GLGNs are more accurate at equal seconds",
    metric="discrete test accuracy at equal seconds, GLGN − DLGN, in the best cell of the map",
    primary=False,
)
CLAIMS: Final = (STEPS, SECONDS)
CELL: Final = ("init", "depth", "width", "steps")
BY_STEPS: Final = "steps"
BY_SECONDS: Final = "seconds"


def specs(preset: Preset) -> list[RunSpec]:
    """Return the runs of the map."""
    return [run for item in preset.maps for run in item.runs]


def frame(records: Records, preset: Preset) -> pd.DataFrame:
    """Return a row a cell, seed and comparison (``steps`` or ``seconds``): both accuracies.

    ``glgn_steps`` is how far the GLGN had come; ``steps`` is the length that is compared.
    """
    parts = []
    for item in preset.maps:
        columns = ["step", "n", "seconds", "discrete_accuracy"]
        history = on_test_split(records, [(item.setting, item.runs)], columns)
        if len(history):
            parts.append(compared(undisturbed_seconds(history), item.lengths))
    return pd.concat(parts, ignore_index=True) if parts else on_test_split(records, [])


def compared(history: pd.DataFrame, lengths: Sequence[int]) -> pd.DataFrame:
    """Return the comparisons that the histories of one setting allow."""
    rows = []
    cells = ["init", "depth", "width", "seed"]
    for _, both in history.groupby(cells, sort=False):
        runs = {kind: run.sort_values("step") for kind, run in both.groupby("relaxation")}
        if not {NOISE_FREE, NOISY} <= set(runs):
            continue
        noise_free, noisy = runs[NOISE_FREE], runs[NOISY]
        shape = ["setting", "floor", "dataset", *cells, "group_tau", "n"]
        marks = both.iloc[0][shape].to_dict()
        for length in lengths:
            row = noise_free[noise_free["step"] == length].iloc[-1]
            for comparison in (BY_STEPS, BY_SECONDS):
                column = "step" if comparison == BY_STEPS else "seconds"
                reached = noisy[noisy[column] <= row[column]].iloc[-1]
                rows.append(
                    {
                        **marks,
                        "steps": length,
                        "comparison": comparison,
                        "dlgn": row["discrete_accuracy"],
                        "glgn": reached["discrete_accuracy"],
                        "seconds": row["seconds"],
                        "glgn_steps": int(reached["step"]),
                    }
                )
    return pd.DataFrame(rows)


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row a claim, cell and seed: the difference in percentage points."""
    return effects_by_setting(frame, _differences)


def _differences(rows: pd.DataFrame) -> Iterator[tuple[Claim, pd.DataFrame]]:
    for claim, comparison in ((STEPS, BY_STEPS), (SECONDS, BY_SECONDS)):
        chosen = rows[rows["comparison"] == comparison]
        both = chosen[["dlgn", "glgn"]]
        best = both.max(axis=1)
        variances = [accuracy_variance(both[name], chosen["n"]) for name in both]
        yield (
            claim,
            chosen[[*CELL, "seed", "dlgn", "glgn", "glgn_steps"]].assign(
                effect=100 * (chosen["glgn"] - chosen["dlgn"]),
                counts=best >= chosen["floor"],
                test_variance=sum(variances),
            ),
        )


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """Return the verdicts on the best cell at equal steps and at equal seconds."""
    return each_setting(CLAIMS, frame, effects(frame), source="where_it_pays.effects.csv", by=CELL)
