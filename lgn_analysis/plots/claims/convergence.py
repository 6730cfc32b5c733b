"""Figure of C1: accuracy over iterations and over seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lgn_analysis.plots.layout import (
    footnote,
    legend_above,
    nothing,
    setting_rows,
    targets_of,
    titled,
)
from lgn_analysis.plots.style import (
    as_frame,
    axes_or_new,
    by_method,
    draw_band,
    percent_axis,
    step_axis,
)


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
        draw_band(
            ax,
            table,
            x,
            "soft_accuracy",
            method_style,
            label=f"{name}soft",
            linewidth=0.7,
            alpha=0.8,
        )
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
    if frame.empty:
        return nothing()
    fig, rows = setting_rows(frame, 2)
    settings = frame["setting"].nunique()
    for index, (name, part, (left, right)) in enumerate(rows):
        target = float(part["target"].iloc[0])
        accuracy_curves(part, left)
        left.set_title(titled(name, "in iterations", settings))
        accuracy_curves(part[part["step"] > 0], right, x="seconds")
        right.set_title(titled(name, "in time", settings))
        for ax in (left, right):
            ax.axhline(target, color="#555555", linewidth=0.8, linestyle=":")
            ax.set_ylim(0, 1.02)
            ax.legend().remove()
        if not index:
            legend_above(fig, left, columns=4)
    footnote(fig, frame, f"dotted: target, {targets_of(frame)}")
    return fig


_SPLITS = {"val": "validation", "test": "test", "train": "training"}


def _mean_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    if "step" not in rows:
        return rows
    seconds = rows.groupby("step")["seconds"].transform("mean")
    return rows.assign(seconds=np.asarray(seconds))
