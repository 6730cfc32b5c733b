"""Figure of C2: the discretization gap over training."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    as_frame,
    axes_or_new,
    by_method,
    draw_band,
    fit_means,
    gap_values,
    legend_where_named,
    level_line,
    on_split,
    share_limits,
    state,
    step_axis,
    untrained,
)

LABELS: Final = {
    "gap_train": "training − discrete (pp)",
    "gap": "soft − discrete (pp)",
    "gap_train_loss": "discrete − training loss (nats)",
    "gap_loss": "discrete − soft loss (nats)",
    "flips": "flipped predictions (%)",
}


def gap_curves(
    history: Any, ax: Axes | None = None, *, split: str = "test", column: str = "gap"
) -> Axes:
    """Draw the gap over training, in percentage points for ``gap`` and in nats for ``gap_loss``.

    Args:
        history: a training history or a ``TrainResult``.
        ax: where to draw; None makes a new figure.
        split: which split, where the history has several.
        column: ``"gap"``, ``"gap_train"``, ``"gap_loss"``, ``"gap_train_loss"``, or ``"flips"``, the
            share of predictions that differ.
    """
    ax = axes_or_new(ax)
    frame = on_split(as_frame(history), split)
    frame = frame.assign(value=gap_values(frame, column))
    for method_style, rows in by_method(frame):
        draw_band(ax, rows, "step", "value", method_style)
    level_line(ax, 0)
    fit_means(ax)
    if column == "flips":
        ax.set_ylim(bottom=0)
    step_axis(ax)
    ax.set_ylabel(LABELS[column])
    legend_where_named(ax, loc="upper right")
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: the gap of the training forward, of the soft network, and flips."""
    note = "gaps in test accuracy; the training forward is what the paper's code measures"
    return setting_rows(frame, 3, _row, note=note)


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    trained_gaps(part, axes[:2])
    trained_curves(part, axes[2], "flips")
    return ["gap (primary)", "soft gap (secondary)", "flips, soft to discrete"]


def trained_gaps(part: pd.DataFrame, axes: list[Axes]) -> None:
    """Draw the gap of the training forward and that of the soft network on one scale."""
    for ax, column in zip(axes, ("gap_train", "gap"), strict=True):
        trained_curves(part, ax, column)
    share_limits(axes)


def trained_curves(part: pd.DataFrame, ax: Axes, column: str) -> None:
    """Draw a gap of the methods that train, and say which do not: theirs would mean nothing."""
    left_out = untrained(part)
    rows = part[~part["relaxation"].isin(left_out)]
    if len(rows):
        gap_curves(rows, ax, column=column)
    state(ax, "\n".join(left_out.values()))
