"""Figure of M2 and M3: accuracy, unused gates, gap and time to the target against depth and Adam's ε."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lgn_analysis.metrics import convergence
from lgn_analysis.plots.layout import setting_rows, targets_of
from lgn_analysis.plots.sizes import MIN_RUNS
from lgn_analysis.plots.style import (
    METHOD_STYLES,
    MethodStyle,
    as_frame,
    axes_or_new,
    draw_points,
    level_line,
    percent_axis,
)

_DLGN, _GLGN = METHOD_STYLES["soft"], METHOD_STYLES["gumbel-st"]
_LOOKS: Final[Mapping[str, MethodStyle]] = {
    "DLGN, ε 1e-8": replace(_DLGN, label="DLGN, ε 1e-8"),
    "DLGN, ε 1e-16": replace(_DLGN, label="DLGN, ε 1e-16", linestyle="-", marker="o"),
    "GLGN, ε 1e-8": replace(_GLGN, label="GLGN, ε 1e-8", linestyle="--", marker="s"),
    "GLGN, ε 1e-16": replace(_GLGN, label="GLGN, ε 1e-16"),
}
_LABELS: Final = {
    "discrete_accuracy": "discrete accuracy",
    "unused": "unused gates",
    "gap": "gap (pp), trained runs",
    "reached": "steps to target",
}


def outcome_by_depth(
    ends: Any, ax: Axes | None = None, *, column: str = "discrete_accuracy"
) -> Axes:
    """Draw a number at the end of training against depth, for DLGN and GLGN under both ε.

    Args:
        ends: a row a run with ``arm``, ``depth``, ``seed``, ``floor``, and ``column``.
        ax: where to draw; None makes a new figure.
        column: ``"discrete_accuracy"``, ``"unused"``, ``"gap"`` of runs above ``floor``, or
            ``"reached"``, the step at which a run reached its target, NaN where it did not.
    """
    ax = axes_or_new(ax)
    frame = as_frame(ends)
    rows = frame.assign(value=100 * frame["gap"] if column == "gap" else frame[column])
    if column == "gap":
        trained = rows["discrete_accuracy"] >= rows["floor"]
        counts = rows[trained].groupby(["arm", "depth"])["seed"].transform("nunique")
        rows = rows[trained].loc[counts >= MIN_RUNS]
        level_line(ax, 0)
    rows = rows.dropna(subset=["value"])
    for name, look in _LOOKS.items():
        draw_points(ax, rows[rows["arm"] == name], "depth", "value", look)
    if column in ("discrete_accuracy", "unused"):
        percent_axis(ax)
    if column == "discrete_accuracy":
        level_line(ax, frame["floor"].iloc[0], linestyle=":")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[2, 4, 5, 10]))
    ax.set_xlabel("depth")
    ax.set_ylabel(_LABELS[column])
    return ax


def arms(ends: Any, ax: Axes | None = None, *, column: str = "discrete_accuracy") -> Axes:
    """Draw a number at the end of training of the deepest networks, a line a way of training them.

    Args:
        ends: as for :func:`outcome_by_depth`.
        ax: where to draw; None makes a new figure.
        column: ``"discrete_accuracy"``, ``"unused"`` or ``"gap"``.
    """
    ax = axes_or_new(ax)
    frame = as_frame(ends)
    frame = frame[frame["depth"] == frame["depth"].max()]
    names = list(dict.fromkeys(frame["arm"]))[::-1]
    scale = 100 if column == "gap" else 1
    for place, name in enumerate(names):
        rows = frame[frame["arm"] == name].assign(place=place)
        color = _LOOKS[name].color if name in _LOOKS else "#000000"
        values = scale * rows[column]
        ax.scatter(values, rows["place"], s=10, color=color, alpha=0.35, linewidths=0)
        ax.plot(values.mean(), place, "D", color=color, markersize=4)
    ax.set_yticks(range(len(names)), names)
    if column == "gap":
        ax.axvline(0, color="#555555", linewidth=0.8)
    else:
        percent_axis(ax, "x")
    ax.set_xlabel(_LABELS[column].replace(", trained runs", ""))
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, two rows a setting: over depth, and every way to train the deepest networks."""

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        ends = part[(part["split"] == "test") & (part["step"] == part["steps"])]
        ends = ends.merge(_reached(part), on="run", how="left")
        for ax, column in zip(axes[:4], _LABELS, strict=True):
            outcome_by_depth(ends, ax, column=column)
        for ax, column in zip(axes[4:7], _LABELS, strict=False):
            arms(ends, ax, column=column)
            if ax is not axes[4]:
                ax.set_yticklabels([])
        axes[7].set_axis_off()
        deepest = int(part["depth"].max())
        return ["accuracy", "unused gates", "gap", "time", f"{deepest} layers", "", "", ""]

    note = f"dotted: floor above which a run is trained; target {targets_of(frame)} (validation)"
    return setting_rows(frame, 4, draw, rows=2, height=4.4, legend=4, note=note)


def _reached(part: pd.DataFrame) -> pd.DataFrame:
    """Return by run the step at which it reached its target on the validation split."""
    rows = []
    for run, history in part.groupby("run"):
        found = convergence(history, float(history["target"].iloc[0]))
        rows.append({"run": run, "reached": found.step if found.reached else np.nan})
    return pd.DataFrame(rows, columns=["run", "reached"])
