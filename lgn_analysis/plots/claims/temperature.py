"""Figure of C7: what the gate temperature of GLGNs does."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    METHOD_STYLES,
    MethodStyle,
    as_frame,
    axes_or_new,
    draw_band,
    draw_points,
    on_split,
    percent_axis,
    step_axis,
)

_STYLES: Final = ("-", "--", "-.", ":")


def accuracy_by_tau(history: Any, ax: Axes | None = None, *, split: str = "test") -> Axes:
    """Draw soft and discrete accuracy at the end of training against the gate temperature.

    Args:
        history: histories of runs that differ in ``tau`` and ``seed``.
        ax: where to draw; None makes a new figure.
        split: which split, where the history has several.
    """
    ax = axes_or_new(ax)
    frame = on_split(as_frame(history), split)
    last = frame[frame["step"] == frame["steps"]]
    draw_points(ax, last, "tau", "discrete_accuracy", METHOD_STYLES["gumbel-st"], label="discrete")
    draw_points(
        ax, last, "tau", "soft_accuracy", METHOD_STYLES["soft"], label="soft", color="#7F7F7F"
    )
    tau_axis(ax, last["tau"])
    ax.set_ylabel(f"{split} accuracy at the end")
    percent_axis(ax)
    ax.legend()
    return ax


def tau_axis(ax: Axes, taus: pd.Series) -> None:
    """Make x a logarithmic axis of gate temperatures with a tick at each."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sorted(taus.unique())))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if taus.nunique() > 4:  # side by side they would run into each other
        ax.tick_params(axis="x", rotation=60)
    ax.set_xlabel("gate temperature tau")


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: curves of each tau, accuracies and unused gates at the end."""
    return setting_rows(frame, 3, _row, height=2.5, legend=None)


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    left, middle, right = axes
    taus = sorted(part["tau"].unique())
    for index, tau in enumerate(taus):
        shade = colormaps["viridis"](0.9 * index / max(1, len(taus) - 1))
        method_style = MethodStyle(f"tau = {tau:g}", shade, _STYLES[index % len(_STYLES)], "")
        draw_band(left, part[part["tau"] == tau], "step", "discrete_accuracy", method_style)
    step_axis(left)
    left.set_ylabel("discrete test accuracy")
    left.set_ylim(0, 1.02)
    percent_axis(left)
    left.legend(loc="upper left", fontsize=7)
    accuracy_by_tau(part, middle)
    last = part[part["step"] == part["steps"]]
    draw_points(right, last, "tau", "unused", METHOD_STYLES["gumbel-st"], label="")
    tau_axis(right, last["tau"])
    right.set_ylabel("share of unused gates")
    percent_axis(right)
    return ["GLGN over training", "accuracy at the end", "unused at the end"]
