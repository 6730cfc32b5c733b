"""What C4, C5 and M9 draw alike: accuracy and gap at the end against a size of the network."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    as_frame,
    axes_or_new,
    by_method,
    draw_points,
    gap_values,
    level_line,
    percent_axis,
    share_limits,
    state,
)

MIN_RUNS: Final = 3
"""Trained runs below which a size's gap is not drawn: its interval would fill the panel."""
_LABELS: Final = {
    "discrete_accuracy": "discrete accuracy",
    "gap_train": "training − discrete (pp)",
    "gap": "soft − discrete (pp)",
    "flips": "flips (%)",
}
_SIZES: Final = {"depth": "depth", "width": "width", "r": "largest logit R"}
_TITLES: Final = {
    "discrete_accuracy": "accuracy",
    "gap_train": "gap (primary)",
    "gap": "soft gap (secondary)",
}


def gap_by_size(
    ends: Any, ax: Axes | None = None, *, size: str = "depth", column: str = "gap"
) -> Axes:
    """Draw accuracy or gap at the end of training against a size; untrained runs are left out, and sizes of too few.

    Args:
        ends: a row a run at its end, with ``depth``, ``width``, ``seed``, and ``floor``, the discrete
            accuracy below which a run's gap says nothing.
        ax: where to draw; None makes a new figure.
        size: ``"depth"``, ``"width"``, or ``"r"``, the largest logit.
        column: ``"discrete_accuracy"``, ``"gap_train"``, ``"gap"`` or ``"flips"``.
    """
    ax = axes_or_new(ax)
    frame = as_frame(ends)
    if column == "discrete_accuracy":
        rows = frame.assign(value=frame[column])
        level_line(ax, frame["floor"].iloc[0], linestyle=":")
        percent_axis(ax)
    else:
        rows = frame[frame["discrete_accuracy"] >= frame["floor"]]
        rows = rows[rows.groupby([size, "relaxation"])["seed"].transform("nunique") >= MIN_RUNS]
        rows = rows.assign(value=gap_values(rows, column))
        level_line(ax, 0)
    for method_style, part in by_method(rows):
        draw_points(ax, part, size, "value", method_style)
    if column != "discrete_accuracy":
        _state_missing(ax, frame, rows, size)
    if size != "depth":
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    sizes = sorted(frame[size].unique())
    ax.xaxis.set_major_locator(FixedLocator([float(value) for value in sizes]))
    ax.tick_params(axis="x", rotation=60 if size == "width" else 0)
    ax.set_xlabel(_SIZES[size])
    ax.set_ylabel(_LABELS[column])
    return ax


def _state_missing(ax: Axes, frame: pd.DataFrame, drawn: pd.DataFrame, size: str) -> None:
    """Say of which methods at which sizes too few runs are trained."""
    said = []
    for method_style, runs in by_method(frame):
        shown = set(drawn.loc[drawn["relaxation"] == runs["relaxation"].iloc[0], size])
        missing = sorted(set(runs[size]) - shown)
        if missing:
            where = f" at {', '.join(f'{value:g}' for value in missing)}" if shown else ""
            said.append(f"{method_style.label.split(' (')[0]} untrained{where}")
    state(ax, "\n".join(said))


def figure_by_size(frame: pd.DataFrame, size: str) -> Figure:
    """Return the figure, a row a setting: accuracy, and both gaps, on one scale in all settings."""

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        for ax, column in zip(axes, _TITLES, strict=True):
            gap_by_size(part, ax, size=size, column=column)
        share_limits(axes, "x")
        return list(_TITLES.values())

    note = (
        f"dotted: floor below which a run is untrained and its gap says nothing; gaps where {MIN_RUNS} "
        "runs are above it"
    )
    figure = setting_rows(frame, len(_TITLES), draw, note=note)
    if frame.empty:
        return figure
    axes = figure.axes
    share_limits(axes[::3])
    gaps = [*axes[1::3], *axes[2::3]]
    share_limits(gaps)
    low, high = gaps[0].get_ylim()
    for ax in gaps:  # room for what is not drawn
        ax.set_ylim(top=high + 0.25 * (high - low))
    return figure
