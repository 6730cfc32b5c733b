"""What C4 and C5 draw alike: accuracy and gap at the end against a size of the network."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from lgn_analysis.plots.layout import footnote, legend_above, nothing, setting_rows, titled
from lgn_analysis.plots.style import as_frame, axes_or_new, by_method, draw_points, percent_axis

MIN_RUNS: Final = 3
"""Trained runs below which a size's gap is not drawn: its interval would fill the panel."""
_LABELS: Final = {
    "discrete_accuracy": "discrete accuracy",
    "gap": "gap (pp)",
    "gap_loss": "|gap in loss| (nats)",
    "flips": "flips (%)",
}
_TITLES: Final = {
    "discrete_accuracy": "trained?",
    "gap": "accuracy",
    "gap_loss": "loss",
    "flips": "predictions",
}


def gap_by_size(
    ends: Any, ax: Axes | None = None, *, size: str = "depth", column: str = "gap"
) -> Axes:
    """Draw accuracy or gap at the end of training against depth or width; untrained runs are left out, and sizes of too few.

    Args:
        ends: a row a run at its end, with ``depth``, ``width``, ``seed``, and ``floor``, the discrete
            accuracy below which a run's gap says nothing.
        ax: where to draw; None makes a new figure.
        size: ``"depth"`` or ``"width"``.
        column: ``"discrete_accuracy"``, ``"gap"``, ``"gap_loss"`` or ``"flips"``.
    """
    ax = axes_or_new(ax)
    frame = as_frame(ends)
    trained = frame["discrete_accuracy"] >= frame["floor"]
    if column == "discrete_accuracy":
        rows = frame.assign(value=frame[column])
        ax.axhline(frame["floor"].iloc[0], color="#555555", linewidth=0.8, linestyle=":")
        percent_axis(ax)
    else:
        rows = frame[trained]
        enough = rows.groupby([size, "relaxation"])["seed"].transform("nunique") >= MIN_RUNS
        rows = rows[enough]
        if column == "gap":
            rows = rows.assign(value=100 * rows["gap"])
        elif column == "gap_loss":
            rows = rows.assign(value=rows["gap_loss"].abs())
        else:
            rows = rows.assign(value=100 * rows["flips"] / rows["n"])
        ax.axhline(0, color="#555555", linewidth=0.8)
    for method_style, part in by_method(rows):
        draw_points(ax, part, size, "value", method_style)
    if size == "width":
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    sizes = sorted(frame[size].unique())
    ax.xaxis.set_major_locator(FixedLocator([float(value) for value in sizes]))
    ax.tick_params(axis="x", rotation=60 if size == "width" else 0)
    ax.set_xlabel(size)
    ax.set_ylabel(_LABELS[column])
    return ax


def figure_by_size(frame: pd.DataFrame, size: str) -> Figure:
    """Return the figure, a row a setting: accuracy, and the gap in accuracy, loss and predictions."""
    if frame.empty:
        return nothing()
    fig, rows = setting_rows(frame, 4, height=2.3)
    for index, (name, part, axes) in enumerate(rows):
        for ax, (column, text) in zip(axes, _TITLES.items(), strict=True):
            gap_by_size(part, ax, size=size, column=column)
            ax.set_title(titled(name if column == "discrete_accuracy" else "", text, 1))
        axes[0].set_title(name)
        if not index:
            legend_above(fig, axes[0])
    more = (
        f"dotted: floor below which a run's gap says nothing; gaps where {MIN_RUNS} runs are above"
    )
    footnote(fig, frame, more)
    return fig
