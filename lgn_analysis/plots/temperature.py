"""Figure of C7: what the gate temperature of GLGNs does."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from lgn_analysis.plots.style import (
    LOOKS,
    Look,
    as_frame,
    axes_or_new,
    caption,
    draw_band,
    draw_points,
    panels,
    percent_axis,
    scale_of,
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
    draw_points(ax, last, "tau", "discrete_accuracy", LOOKS["gumbel-st"], label="discrete")
    draw_points(ax, last, "tau", "soft_accuracy", LOOKS["soft"], label="soft", color="#7F7F7F")
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
    ax.set_xlabel("gate temperature tau")


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure: curves of each tau, and accuracies and unused gates at the end."""
    fig, (left, middle, right) = panels(3)
    taus = sorted(frame["tau"].unique())
    for index, tau in enumerate(taus):
        shade = colormaps["viridis"](0.9 * index / max(1, len(taus) - 1))
        look = Look(f"tau = {tau:g}", shade, _STYLES[index % len(_STYLES)], "")
        draw_band(left, frame[frame["tau"] == tau], "step", "discrete_accuracy", look)
    left.set_title("GLGN over training")
    step_axis(left)
    left.set_ylabel("discrete test accuracy")
    left.set_ylim(0, 1.02)
    percent_axis(left)
    left.legend(loc="lower right")
    accuracy_by_tau(frame, middle)
    middle.set_title("Accuracy at the end")
    last = frame[frame["step"] == frame["steps"]]
    draw_points(right, last, "tau", "unused", LOOKS["gumbel-st"], label="")
    tau_axis(right, last["tau"])
    right.set_ylabel("share of unused gates")
    right.set_title("Unused at the end")
    percent_axis(right)
    caption(fig, scale_of(frame))
    return fig
