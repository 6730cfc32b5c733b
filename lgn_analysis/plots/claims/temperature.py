"""Figure of C7: what the gate temperature of GLGNs does."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from lgn_analysis.plots.layout import footnote, nothing, setting_rows, titled
from lgn_analysis.plots.style import (
    METHOD_STYLES,
    MethodStyle,
    as_frame,
    axes_or_new,
    draw_band,
    draw_points,
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
    frame = as_frame(history)
    if "split" in frame:
        frame = frame[frame["split"] == split]
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
    if frame.empty:
        return nothing()
    fig, rows = setting_rows(frame, 3, height=2.5)
    settings = frame["setting"].nunique()
    for name, part, (left, middle, right) in rows:
        taus = sorted(part["tau"].unique())
        for index, tau in enumerate(taus):
            shade = colormaps["viridis"](0.9 * index / max(1, len(taus) - 1))
            method_style = MethodStyle(f"tau = {tau:g}", shade, _STYLES[index % len(_STYLES)], "")
            draw_band(left, part[part["tau"] == tau], "step", "discrete_accuracy", method_style)
        left.set_title(titled(name, "GLGN over training", settings))
        step_axis(left)
        left.set_ylabel("discrete test accuracy")
        left.set_ylim(0, 1.02)
        percent_axis(left)
        left.legend(loc="upper left", fontsize=7)
        accuracy_by_tau(part, middle)
        middle.set_title(titled(name, "accuracy at the end", settings))
        last = part[part["step"] == part["steps"]]
        draw_points(right, last, "tau", "unused", METHOD_STYLES["gumbel-st"], label="")
        tau_axis(right, last["tau"])
        right.set_ylabel("share of unused gates")
        right.set_title(titled(name, "unused at the end", settings))
        percent_axis(right)
    footnote(fig, frame)
    return fig
