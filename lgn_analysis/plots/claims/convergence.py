"""Figure of C1: accuracy over iterations and over seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lgn_analysis.plots.layout import setting_rows, targets_of
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
    history: Any,
    ax: Axes | None = None,
    *,
    split: str = "val",
    x: str = "step",
    beside: str | None = "soft",
) -> Axes:
    """Draw discrete accuracy (strong), and that of another forward (thin), over training.

    Args:
        history: a training history or a ``TrainResult``; a column ``relaxation`` separates methods,
            several seeds make a band.
        ax: where to draw; None makes a new figure.
        split: which split.
        x: ``"step"`` or ``"seconds"``.
        beside: the other forward: ``"soft"``, ``"training"`` (noisy for what trains with noise, soft for
            what does not), or None for no other.
    """
    ax = axes_or_new(ax)
    frame = as_frame(history)
    frame = frame[frame["split"] == split]
    for method_style, rows in by_method(frame):
        # Seeds are evaluated at equal steps, not at equal seconds.
        table = rows if x == "step" else _mean_seconds(rows)
        name = f"{method_style.label}, " if method_style.label else ""
        draw_band(ax, table, x, "discrete_accuracy", method_style, label=f"{name}discrete")
        if beside is not None:
            thin = {"label": f"{name}{beside}", "linewidth": 0.7, "alpha": 0.8}
            draw_band(
                ax, table.assign(other=_accuracy(table, beside)), x, "other", method_style, **thin
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
    """Return the figure, a row a setting: to the target over iterations and seconds; the training forward."""
    note = (
        f"dotted: target, {targets_of(frame)}; training: the forward that trains, noisy for GLGNs"
    )
    return setting_rows(frame, 3, _row, legend=2, note=note)


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    accuracy_curves(part, axes[0], beside=None)
    accuracy_curves(part[part["step"] > 0], axes[1], x="seconds", beside=None)
    accuracy_curves(part, axes[2], split="test", beside="training")
    for ax in axes[:2]:
        level_line(ax, float(part["target"].iloc[0]), linestyle=":")
    for ax in axes:
        ax.set_ylim(0, 1.02)
    return ["iterations to target", "seconds to target", "training and discrete"]


def _accuracy(rows: pd.DataFrame, forward: str) -> pd.Series:
    if forward == "training":
        return rows["noisy_accuracy"].fillna(rows["soft_accuracy"])
    return rows[f"{forward}_accuracy"]


def _mean_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    if "step" not in rows:
        return rows
    seconds = rows.groupby("step")["seconds"].transform("mean")
    return rows.assign(seconds=np.asarray(seconds))
