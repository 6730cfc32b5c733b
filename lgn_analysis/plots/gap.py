"""Figure of C2: the discretization gap over training."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.style import (
    LOOKS,
    as_frame,
    axes_or_new,
    by_method,
    caption,
    draw_band,
    fit_means,
    panels,
    percent_axis,
    scale_of,
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
        column: ``"gap"``, ``"gap_train"``, ``"gap_loss"`` or ``"gap_train_loss"``.
    """
    ax = axes_or_new(ax)
    frame = as_frame(history)
    if "split" in frame:
        frame = frame[frame["split"] == split]
    in_loss = column.endswith("loss")
    frame = frame.assign(value=frame[column] * (1 if in_loss else 100))
    for look, rows in by_method(frame):
        draw_band(ax, rows, "step", "value", look)
    ax.axhline(0, color="#555555", linewidth=0.8)
    fit_means(ax)
    step_axis(ax)
    ax.set_ylabel("gap in loss (nats)" if in_loss else "gap in accuracy (pp)")
    if any(label for label in ax.get_legend_handles_labels()[1]):
        ax.legend(loc="upper right")
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure: the pair in accuracy and loss, and the deep DLGN's two accuracies."""
    pair, deep = frame[~frame["deep"]], frame[frame["deep"]]
    fig, (left, middle, right) = panels(3)
    gap_curves(pair, left)
    left.set_title("Shallow pair, accuracy")
    gap_curves(pair, middle, column="gap_loss")
    middle.set_title("Shallow pair, loss")
    middle.legend().remove()
    look = LOOKS["soft"]
    draw_band(right, deep, "step", "soft_accuracy", look, label="soft", linestyle="--")
    draw_band(
        right,
        deep,
        "step",
        "discrete_accuracy",
        look,
        label="discrete",
        color="#000000",
        linestyle="-",
    )
    right.set_title("Deep DLGN")
    step_axis(right)
    right.set_ylabel("test accuracy")
    right.set_ylim(0, 1.02)
    percent_axis(right)
    right.legend(loc="upper left")
    caption(fig, scale_of(frame))
    return fig
