"""Figure of M2 and M3: accuracy, unused gates and gap against depth, under two of Adam's ε."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.sizes import MIN_RUNS
from lgn_analysis.plots.style import (
    METHOD_STYLES,
    MethodStyle,
    as_frame,
    at_end,
    axes_or_new,
    draw_points,
    level_line,
    percent_axis,
)

_DLGN, _GLGN = METHOD_STYLES["soft"], METHOD_STYLES["gumbel-st"]
_LOOKS: Final[Mapping[str, MethodStyle]] = {
    "DLGN, ε 1e-8": replace(_DLGN, linestyle="--", marker="o"),
    "DLGN, ε 1e-16": replace(_DLGN, linestyle="-", marker="o"),
    "GLGN, ε 1e-8": replace(_GLGN, linestyle="--", marker="s"),
    "GLGN, ε 1e-16": replace(_GLGN, linestyle="-", marker="s"),
}
"""Colour tells the method, a dashed line and a hollow marker torch's ε."""
_DEFAULT: Final = "1e-8"
_PASSES: Final = 30
"""Over labels that overlap, each of which halves what is left."""
_LABELS: Final = {
    "discrete_accuracy": "discrete accuracy",
    "unused": "unused gates",
    "gap_train": "training − discrete (pp)",
}


def outcome_by_depth(
    ends: Any, ax: Axes | None = None, *, column: str = "discrete_accuracy"
) -> Axes:
    """Draw a number at the end of training against depth, for DLGN and GLGN under both ε.

    Args:
        ends: a row a run with ``arm``, ``depth``, ``seed``, ``floor``, and ``column``.
        ax: where to draw; None makes a new figure.
        column: ``"discrete_accuracy"``, ``"unused"``, or ``"gap_train"`` of runs above ``floor``.
    """
    ax = axes_or_new(ax)
    frame = as_frame(ends)
    rows = frame.assign(value=100 * frame["gap_train"] if column == "gap_train" else frame[column])
    if column == "gap_train":
        rows = rows[rows["discrete_accuracy"] >= rows["floor"]]
        rows = rows[rows.groupby(["arm", "depth"])["seed"].transform("nunique") >= MIN_RUNS]
        level_line(ax, 0)
    else:
        percent_axis(ax)
        ax.set_ylim(-0.03, 1.03)
    for name, look in _LOOKS.items():
        face = "white" if name.endswith(_DEFAULT) else look.color
        of_arm = rows[rows["arm"] == name]
        if len(of_arm):
            draw_points(
                ax, of_arm, "depth", "value", replace(look, label=name), markerfacecolor=face
            )
    if column == "discrete_accuracy":
        level_line(ax, frame["floor"].iloc[0], linestyle=":")
    ax.set_xticks(sorted(frame["depth"].unique()))
    ax.set_xlabel("depth")
    ax.set_ylabel(_LABELS[column])
    return ax


def label_lines(ax: Axes, *, apart: float = 0.085) -> None:
    """Write the name of each line at its right end, moved up or down where two would overlap."""
    low, high = ax.get_ylim()
    points = [item for item in ax.containers if isinstance(item, ErrorbarContainer)]
    ends = {item: float(np.asarray(item.lines[0].get_ydata())[-1]) for item in points}
    items = sorted(ends, key=lambda item: ends[item])
    places = np.array([(ends[item] - low) / (high - low) for item in items])
    for _ in range(_PASSES):
        overlap = np.clip(apart - np.diff(places), 0, None) / 2
        places[:-1] -= overlap
        places[1:] += overlap
    for item, place in zip(items, places, strict=True):
        ax.annotate(
            str(item.get_label()), (1.03, place), xycoords="axes fraction", va="center",
            fontsize=7, color=item.lines[0].get_color(),
        )  # fmt: skip


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting; other ways to train the deepest networks stand in the caption."""

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        ends = at_end(part)
        for ax, column in zip(axes, _LABELS, strict=True):
            outcome_by_depth(ends, ax, column=column)
        label_lines(axes[0])
        return ["accuracy", "unused gates", "gap (trained runs)"]

    note = f"dotted: floor above which a run is trained; {_other_ways(frame)}" if len(frame) else ""
    by_depth = frame[frame["arm"].isin(list(_LOOKS))]
    return setting_rows(by_depth, 3, draw, height=2.6, legend=None, note=note)


def _other_ways(frame: pd.DataFrame) -> str:
    """Return the accuracy of the arms that only the deepest networks have."""
    ends = at_end(frame)
    others = ends[(ends["depth"] == ends["depth"].max()) & ~ends["arm"].isin(list(_LOOKS))]
    means = others.groupby("arm", sort=False)["discrete_accuracy"].mean()
    said = ", ".join(
        f"{name.removesuffix(', ε ' + _DEFAULT).replace(', ', ' ')} {mean:.0%}"
        for name, mean in means.items()
    )
    return f"also at {ends['depth'].max()} layers and ε {_DEFAULT}: {said}"
