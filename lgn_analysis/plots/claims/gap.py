"""Figure of C2: the discretization gap over training."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import footnote, legend_above, nothing, setting_rows, titled
from lgn_analysis.plots.style import (
    METHOD_STYLES,
    as_frame,
    axes_or_new,
    by_method,
    draw_band,
    fit_means,
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
    frame = as_frame(history)
    if "split" in frame:
        frame = frame[frame["split"] == split]
    if column == "flips":
        value, text = 100 * frame["flips"] / frame["n"], "flipped predictions (%)"
    elif column.endswith("loss"):
        value, text = frame[column], "gap in loss (nats)"
    else:
        value, text = 100 * frame[column], "gap in accuracy (pp)"
    frame = frame.assign(value=value)
    for method_style, rows in by_method(frame):
        draw_band(ax, rows, "step", "value", method_style)
    ax.axhline(0, color="#555555", linewidth=0.8)
    fit_means(ax)
    if column == "flips":
        ax.set_ylim(bottom=0)
    step_axis(ax)
    ax.set_ylabel(text)
    if any(label for label in ax.get_legend_handles_labels()[1]):
        ax.legend(loc="upper right")
    return ax


_COLUMNS: Final = {"gap": "accuracy", "gap_loss": "loss", "flips": "flips"}


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: gap in accuracy and loss, flips; the deep DLGN's below."""
    if frame.empty:
        return nothing()
    fig, rows = setting_rows(frame, 3, height=2.1)
    settings = frame["setting"].nunique()
    for index, (name, part, axes) in enumerate(rows):
        for ax, (column, text) in zip(axes, _COLUMNS.items(), strict=True):
            gap_curves(part, ax, column=column)
            ax.set_title(titled(name, text, settings))
            ax.legend().remove()
        if not index:
            legend_above(fig, axes[0])
        if part["deep"].all():
            _two_accuracies(axes[0], part)
            axes[0].set_title(titled(name, "both accuracies", settings))
    footnote(fig, frame, "gap = soft − discrete accuracy, discrete − soft loss")
    return fig


def _two_accuracies(ax: Axes, deep: pd.DataFrame) -> None:
    """Replace the gap of a DLGN by the two accuracies that it lies between."""
    ax.clear()
    method_style = METHOD_STYLES["soft"]
    draw_band(ax, deep, "step", "soft_accuracy", method_style, label="soft")
    draw_band(
        ax,
        deep,
        "step",
        "discrete_accuracy",
        method_style,
        label="discrete",
        color="#000000",
        linestyle="-",
    )
    step_axis(ax)
    ax.grid(visible=True)
    ax.set_ylabel("test accuracy")
    ax.set_ylim(0, 1.02)
    percent_axis(ax)
    ax.legend(loc="upper left")
