"""Figure of C3: unused gates per layer, by the paper's definition and in function."""

from __future__ import annotations

import re
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lgn_analysis.metrics import UNUSED_ENTROPY
from lgn_analysis.plots.layout import empty_figure, footnote, legend_above, titled, without_legends
from lgn_analysis.plots.style import (
    GREY,
    as_frame,
    axes_or_new,
    by_method,
    draw_points,
    legend_where_named,
    panels,
    percent_axis,
    style_of,
)

_IS_SHARE: Final = re.compile(r"entropy_\d+").fullmatch
BIN_WIDTH: Final = 0.1
"""Nats of a bin of the histograms."""

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
    for method_style, rows in by_method(frame):
        draw_points(ax, rows, "number", notion, method_style)
    ax.set_xlabel("layer (1 = input)")
    ax.set_ylabel("share of gates")
    ax.set_title(_NOTIONS[notion])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(-0.03, 1.03)
    percent_axis(ax)
    legend_where_named(ax)
    return ax


def entropy_histograms(usage: Any, ax: Axes | None = None) -> Axes:
    """Draw the distribution of gate entropies in each layer, the input's at the bottom.

    Args:
        usage: gate usage with columns ``entropy_00`` and on, shares of the gates in bins of 0.1 nats,
            of one method; over several seeds their mean is drawn.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(usage)
    columns = sorted(filter(_IS_SHARE, map(str, frame.columns)))
    edges = [BIN_WIDTH * index for index in range(len(columns) + 1)]
    shares = frame.groupby("layer")[columns].mean().sort_index()
    for method_style, _ in by_method(frame):
        for place, (_, row) in enumerate(shares.iterrows()):
            ax.stairs(
                place + 0.9 * row.to_numpy() / max(row.max(), 1e-12),
                edges,
                baseline=place,
                fill=True,
                color=method_style.color,
                alpha=0.55,
            )
            ax.axhline(place, color=GREY, linewidth=0.4)
    ax.axvline(UNUSED_ENTROPY, color="#000000", linewidth=0.8, linestyle=":")
    ax.set_yticks([place + 0.3 for place in range(len(shares))], [*map(str, shares.index + 1)])
    ax.set_ylim(0, len(shares))
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("gate entropy (nats)")
    ax.set_ylabel("layer (1 = input)")
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure: three notions of unused a setting, then entropies by layer and method."""
    if frame.empty:
        return empty_figure()
    settings = list(frame["setting"].unique())
    methods = [
        (setting, rows)
        for (setting, _), rows in frame.groupby(["setting", "relaxation"], sort=False)
    ]
    lines = -(-len(methods) // 3)
    rows = len(settings) + lines
    fig, axes = panels(3, rows=rows, height=2.0 * rows + 0.3)
    for row, name in enumerate(settings):
        part = frame[frame["setting"] == name]
        for ax, notion in zip(axes[3 * row :], _NOTIONS, strict=False):
            unused_by_layer(part, ax, notion=notion)
            ax.set_title(titled(name, _NOTIONS[notion], len(settings)))
            without_legends([ax])
            if not row and notion == "unused":
                legend_above(fig, ax)
            if notion != "unused":
                ax.set_ylabel("")
    below = axes[3 * len(settings) :]
    for ax, (name, part) in zip(below, methods, strict=False):
        entropy_histograms(part, ax)
        method_style = style_of(part["relaxation"].iloc[0])
        ax.set_title(f"{name}: {method_style.label.split()[0]}")
    for ax in below[len(methods) :]:
        ax.set_axis_off()
    footnote(fig, frame, "dotted: entropy above which a gate is unused; histograms to equal height")
    return fig
