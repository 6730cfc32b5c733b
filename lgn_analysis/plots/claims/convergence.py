"""Figure of C1: accuracy over iterations and over seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lgn_analysis.plots.layout import setting_rows, targets_of, without_legends
from lgn_analysis.plots.style import (
    as_frame,
    axes_or_new,
    by_method,
    draw_band,
    level_line,
    percent_axis,
    step_axis,
)

_SPLITS = {"val": "validation", "test": "test", "train": "training"}


def accuracy_curves(
    history: Any, ax: Axes | None = None, *, split: str = "val", x: str = "step"
) -> Axes:
    """Draw discrete accuracy (strong) and soft accuracy (thin) over training.

    Args:
        history: a training history or a ``TrainResult``; a column ``relaxation`` separates methods,
            several seeds make a band.
        ax: where to draw; None makes a new figure.
        split: which split.
        x: ``"step"`` or ``"seconds"``.
    """
    ax = axes_or_new(ax)
    frame = as_frame(history)
    frame = frame[frame["split"] == split]
    for method_style, rows in by_method(frame):
        # Seeds are evaluated at equal steps, not at equal seconds.
        table = rows if x == "step" else _mean_seconds(rows)
        name = f"{method_style.label}, " if method_style.label else ""
        draw_band(ax, table, x, "discrete_accuracy", method_style, label=f"{name}discrete")
        thin = {"label": f"{name}soft", "linewidth": 0.7, "alpha": 0.8}
        draw_band(ax, table, x, "soft_accuracy", method_style, **thin)
    if x == "step":
        step_axis(ax)
    else:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("seconds of training")
    ax.set_ylabel(f"accuracy ({_SPLITS.get(split, split)})")
    percent_axis(ax)
    ax.legend(loc="lower right")
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: over iterations, and over seconds."""
    return setting_rows(frame, 2, _row, legend=4, note=f"dotted: target, {targets_of(frame)}")


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    accuracy_curves(part, axes[0])
    accuracy_curves(part[part["step"] > 0], axes[1], x="seconds")
    for ax in axes:
        level_line(ax, float(part["target"].iloc[0]), linestyle=":")
        ax.set_ylim(0, 1.02)
    without_legends(axes)
    return ["in iterations", "in time"]


def _mean_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    if "step" not in rows:
        return rows
    seconds = rows.groupby("step")["seconds"].transform("mean")
    return rows.assign(seconds=np.asarray(seconds))
