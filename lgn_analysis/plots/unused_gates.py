"""Figure of C3: unused gates per layer, by the paper's definition and in function."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lgn_analysis.plots.style import (
    as_frame,
    axes_or_new,
    by_method,
    caption,
    draw_points,
    panels,
    percent_axis,
    scale_of,
)

_NOTIONS: Final = {
    "unused": "unused (entropy)",
    "constant": "constant on data",
    "unreachable": "unreachable",
}


def unused_by_layer(usage: Any, ax: Axes | None = None, *, notion: str = "unused") -> Axes:
    """Draw the share of unused gates in each layer.

    Args:
        usage: the frame of ``lgn.gate_usage``, with ``relaxation`` and ``seed`` where there are
            several runs.
        ax: where to draw; None makes a new figure.
        notion: ``"unused"``, ``"constant"`` or ``"unreachable"``.
    """
    ax = axes_or_new(ax)
    frame = as_frame(usage).assign(number=lambda table: table["layer"] + 1)
    for look, rows in by_method(frame):
        draw_points(ax, rows, "number", notion, look)
    ax.set_xlabel("layer (1 = input)")
    ax.set_ylabel("share of gates")
    ax.set_title(_NOTIONS[notion])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(-0.03, 1.03)
    percent_axis(ax)
    if any(label for label in ax.get_legend_handles_labels()[1]):
        ax.legend()
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure: three notions for the pair, above those of the deep DLGN."""
    fig, axes = panels(3, rows=2, height=4.4)
    for row, (name, part) in enumerate(
        (("Pair", frame[~frame["deep"]]), ("Deep DLGN", frame[frame["deep"]]))
    ):
        for column, notion in enumerate(_NOTIONS):
            ax = unused_by_layer(part, axes[3 * row + column], notion=notion)
            ax.set_title(f"{name}: {_NOTIONS[notion]}")
            if row or column:
                ax.legend().remove()
            if column:
                ax.set_ylabel("")
    caption(fig, scale_of(frame))
    return fig
