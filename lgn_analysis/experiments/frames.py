"""From the records of runs to tidy frames, and from frames to what the claims compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pandas as pd

from lgn_analysis.experiments.settings import NOISE_FREE, Preset, Setting, Sweep
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import Records

LEAST_TIMED: Final = 100
"""Steps between evaluations that are timed, where any two are so far apart."""

Group = tuple[Setting, list[RunSpec]]
"""A setting, which gives the rows their name, floor and target, and runs that belong to it."""

RUN_COLUMNS: Final = [
    "setting",
    "floor",
    "target",
    "run",
    "dataset",
    "relaxation",
    "tau",
    "tau_end",
    "width",
    "depth",
    "group_tau",
    "init",
    "steps",
    "seed",
    "options",
]
GAP_COLUMNS: Final = [
    *("step", "n", "soft_accuracy", "discrete_accuracy", "gap", "gap_loss", "gap_train"),
    *("flips", "flips_train"),
]
MEASURES: Final = ("gap", "soft gap", "loss", "flips")
"""The four measures of a gap, the primary one first; see :func:`gap_measure`."""


def runs_of(groups: Iterable[Group]) -> list[RunSpec]:
    """Return the runs of all groups."""
    return [run for _, runs in groups for run in runs]


def pairs(settings: Iterable[Setting]) -> list[Group]:
    """Return DLGN and GLGN of each setting, at its own network."""
    return [(setting, setting.pair()) for setting in settings]


def pair_specs(preset: Preset) -> list[RunSpec]:
    """Return the runs: DLGN and GLGN of each setting."""
    return runs_of(pairs(preset.pairs))


def pairs_by_size(sweeps: Iterable[Sweep], size: str) -> list[Group]:
    """Return DLGN and GLGN at each ``depth`` or ``width`` of the sweeps."""
    return [
        (sweep.setting, [run for n in sweep.whole for run in sweep.setting.pair(**{size: n})])
        for sweep in sweeps
    ]


def each_method(settings: Iterable[Setting], methods: Sequence[str]) -> list[Group]:
    """Return the runs of several methods on each setting."""
    return [(item, [run for method in methods for run in item.runs(method)]) for item in settings]


def pairs_and_deep_networks(preset: Preset) -> list[Group]:
    """Return DLGN and GLGN, and the deep DLGNs that are drawn beside them."""
    return [*pairs(preset.pairs), *each_method(preset.deep_networks, [NOISE_FREE])]


def mark_deep(frame: pd.DataFrame, preset: Preset) -> pd.DataFrame:
    """Add ``deep``, true for the deep DLGNs of :func:`pairs_and_deep_networks`."""
    return frame.assign(deep=frame["setting"].isin([item.name for item in preset.deep_networks]))


def gather(records: Records, groups: Iterable[Group], table: str) -> pd.DataFrame:
    """Return the rows of a table, marked with the setting that the run belongs to.

    Empty, with the columns that distinguish runs, where there are no such rows.
    """
    parts = []
    for setting, specs in groups:
        rows = records.of(specs, table)
        if len(rows):
            part = rows.assign(setting=setting.name, floor=setting.floor, target=setting.target)
            rest = [column for column in part if column not in RUN_COLUMNS]
            parts.append(part[[*RUN_COLUMNS, *rest]])
    if not parts:
        return pd.DataFrame(columns=RUN_COLUMNS)
    return pd.concat(parts, ignore_index=True)


def histories(records: Records, groups: Iterable[Group], columns: Sequence[str]) -> pd.DataFrame:
    """Return columns of the training histories, a row a run, step and split."""
    return gather(records, groups, "history").reindex(columns=[*RUN_COLUMNS, *columns])


def on_test_split(
    records: Records, groups: Iterable[Group], columns: Sequence[str] = GAP_COLUMNS
) -> pd.DataFrame:
    """Return columns of the histories on the test split, a row a run and step."""
    history = histories(records, groups, ["split", *columns])
    return history[history["split"] == "test"].drop(columns="split").reset_index(drop=True)


def probed(
    records: Records, groups: Sequence[Group], table: str, *, at_end: bool = False
) -> pd.DataFrame:
    """Return the rows of a probe's table with the discrete test accuracy, as :func:`with_accuracy`."""
    rows = gather(records, groups, table)
    if rows.empty:
        return rows
    return with_accuracy(rows, gather(records, groups, "history"), at_end=at_end)


def with_accuracy(
    table: pd.DataFrame, history: pd.DataFrame, *, at_end: bool = False
) -> pd.DataFrame:
    """Add the discrete test accuracy of a row's step, or that of the run's end."""
    rows = history[history["split"] == "test"].drop_duplicates(["run", "step"])
    if at_end:
        rows = rows[rows["step"] == rows["steps"]]
        return table.merge(rows[["run", "discrete_accuracy"]], on="run")
    return table.merge(rows[["run", "step", "discrete_accuracy"]], on=["run", "step"])


def undisturbed_seconds(histories: pd.DataFrame) -> pd.DataFrame:
    """Replace ``seconds`` by the steps times the undisturbed time of one, for each method and shape.

    Runs share a machine with others, and one that met a busy hour looks slow. The undisturbed time
    of a step is that of the fastest interval between evaluations, over all seeds, as timeit takes it;
    intervals of fewer than :data:`LEAST_TIMED` steps are too short to be timed.
    """
    keys = ["setting", "relaxation", "tau", "depth", "width", "init", "options"]
    points = histories.drop_duplicates(["run", "step"]).sort_values(["run", "step"])
    deltas = points.groupby("run")[["seconds", "step"]].diff()
    timed = deltas["step"] >= min(LEAST_TIMED, deltas["step"].max())
    rates = (deltas["seconds"] / deltas["step"])[timed].groupby([points[key] for key in keys])
    rate = rates.min().rename("rate").reset_index()
    priced = histories.merge(rate, on=keys, how="left")
    return priced.assign(seconds=priced["step"] * priced["rate"]).drop(columns="rate")


def last_step(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows at the end of training."""
    return frame[frame["step"] == frame["steps"]]


def gaps_at_end(records: Records, groups: Iterable[Group]) -> pd.DataFrame:
    """Return the gaps at the end of training on the test split, a row a run."""
    return last_step(on_test_split(records, groups)).reset_index(drop=True)


def gap_measure(frame: pd.DataFrame, measure: str) -> pd.Series:
    """Return the gap of each row: in accuracy and flips in percentage points, in loss in nats.

    ``gap`` is that of the training forward, what the paper's code measures, ``soft gap`` that of the soft
    network. The gap in loss is taken without its sign: discretising also sharpens a network, and so
    lowers the loss of a well trained one.
    """
    if measure == "gap":
        return 100 * frame["gap_train"]
    if measure == "soft gap":
        return 100 * frame["gap"]
    if measure == "loss":
        return frame["gap_loss"].abs()
    return 100 * frame["flips"] / frame["n"]


def accuracy_variance(accuracy: pd.Series, n: pd.Series | int) -> pd.Series:
    """Return what the choice of n test samples adds to the variance of an accuracy, in points squared."""
    return 1e4 * accuracy * (1 - accuracy) / n


def sample_variance(frame: pd.DataFrame, measure: str) -> pd.Series:
    """Return what the choice of n test samples adds to the variance of :func:`gap_measure`, in its unit.

    A gap in accuracy changes with the predictions that flip alone: at most their share over n. Where
    they were not counted, the two accuracies are taken as independent, which is more. That of a
    gap in loss is not known from a history, and is NaN. ``accuracy`` is the discrete accuracy itself.
    """
    n, discrete = frame["n"], frame["discrete_accuracy"]
    if measure == "accuracy":
        return accuracy_variance(discrete, n)
    if measure == "flips":
        return accuracy_variance(frame["flips"] / n, n)
    if measure == "gap":
        training = (discrete + frame["gap_train"]).clip(0, 1)
        independent = discrete * (1 - discrete) + training * (1 - training)
        share = (
            (frame["flips_train"] / n).fillna(independent)
            if "flips_train" in frame
            else independent
        )
    elif measure == "soft gap":
        share = frame["flips"] / n
    else:
        share = pd.Series(float("nan"), frame.index)
    return 1e4 * share / n
