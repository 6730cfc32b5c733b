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
    "discrete_accuracy": "trained?",
    "gap_train": "gap of the training forward",
    "gap": "gap of the soft network",
    "flips": "predictions",
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


def figure_by_size(frame: pd.DataFrame, size: str) -> Figure:
    """Return the figure, a row a setting: accuracy, both gaps, and flipped predictions."""

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        for ax, (column, text) in zip(axes, _TITLES.items(), strict=True):
            gap_by_size(part, ax, size=size, column=column)
            ax.set_title(text)
        axes[0].set_title(part["setting"].iloc[0])
        return [""] * len(axes)

    note = (
        f"dotted: floor below which a run's gap says nothing; gaps where {MIN_RUNS} runs are above"
    )
    return setting_rows(frame, 4, draw, note=note)
