"""Figure of C2: the discretization gap over training."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import setting_rows, without_legends
from lgn_analysis.plots.style import (
    METHOD_STYLES,
    as_frame,
    axes_or_new,
    by_method,
    draw_band,
    fit_means,
    gap_values,
    legend_where_named,
    level_line,
    on_split,
    percent_axis,
    step_axis,
)


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
    kind = "flips" if column == "flips" else "loss" if column.endswith("loss") else "accuracy"
    frame = frame.assign(value=gap_values(frame, column))
    for method_style, rows in by_method(frame):
        draw_band(ax, rows, "step", "value", method_style)
    level_line(ax, 0)
    fit_means(ax)
    if column == "flips":
        ax.set_ylim(bottom=0)
    step_axis(ax)
    ax.set_ylabel(_LABELS[kind])
    legend_where_named(ax, loc="upper right")
    return ax


_LABELS: Final = {
    "accuracy": "gap in accuracy (pp)",
    "loss": "gap in loss (nats)",
    "flips": "flipped predictions (%)",
}


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: gap in accuracy and loss, flips; the deep DLGN's below."""
    note = "gap = soft − discrete accuracy, discrete − soft loss"
    return setting_rows(frame, 3, _row, height=2.1, note=note)


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    for ax, column in zip(axes, ("gap", "gap_loss", "flips"), strict=True):
        gap_curves(part, ax, column=column)
    without_legends(axes)
    if part["deep"].all():
        _two_accuracies(axes[0], part)
        return ["both accuracies", "loss", "flips"]
    return ["accuracy", "loss", "flips"]


def _two_accuracies(ax: Axes, deep: pd.DataFrame) -> None:
    """Replace the gap of a DLGN by the two accuracies that it lies between."""
    ax.clear()
    method_style = METHOD_STYLES["soft"]
    draw_band(ax, deep, "step", "soft_accuracy", method_style, label="soft")
    other = {"label": "discrete", "color": "#000000", "linestyle": "-"}
    draw_band(ax, deep, "step", "discrete_accuracy", method_style, **other)
    step_axis(ax)
    ax.grid(visible=True)
    ax.set_ylabel("test accuracy")
    ax.set_ylim(0, 1.02)
    percent_axis(ax)
    ax.legend(loc="upper left")
