"""Figure of M4: unused gates by layer, and the layers that were predicted to stand still."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    GREY,
    METHOD_STYLES,
    as_frame,
    axes_or_new,
    draw_points,
    percent_axis,
)


def unused_and_still(usage: Any, ax: Axes | None = None) -> Axes:
    """Draw the share of unused gates by layer, shaded where layers were predicted to stand still.

    Args:
        usage: rows of one depth with ``layer``, ``seed``, ``unused`` and ``stands_still``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(usage).assign(number=lambda table: table["layer"] + 1)
    draw_points(ax, frame, "number", "unused", METHOD_STYLES["soft"])
    still = frame.loc[frame["stands_still"].astype(bool), "number"]
    if len(still):
        ax.axvspan(0.5, still.max() + 0.5, color=GREY, alpha=0.15, linewidth=0)
    ax.set_xlim(0.5, frame["number"].max() + 0.5)
    ax.set_ylim(-0.03, 1.03)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    percent_axis(ax)
    ax.set_xlabel("layer (1 = input)")
    ax.set_ylabel("unused gates")
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting and a panel a depth, from eight layers on if there are such."""
    depths = sorted(frame["depth"].unique()) if len(frame) else [0]
    depths = [depth for depth in depths if depth >= 8] or depths
    frame = frame[frame["depth"].isin(depths)]

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        for ax, depth in zip(axes, depths, strict=True):
            unused_and_still(part[part["depth"] == depth], ax)
            if ax is not axes[0]:
                ax.set_ylabel("")
        return [f"{depth} layers" for depth in depths]

    note = "DLGN at Adam's default ε; shaded: predicted to stand still, before any training"
    return setting_rows(frame, len(depths), draw, legend=None, note=note)
