"""Figure of C3: unused gates per layer, by the paper's definition and in function."""

from __future__ import annotations

import re
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lgn_analysis.metrics import UNUSED_ENTROPY
from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    GREY,
    as_frame,
    axes_or_new,
    by_method,
    draw_points,
    legend_where_named,
    percent_axis,
    state,
    untrained,
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
    """Return the figure, a row a setting: unused by the paper's definition, and two ways to be so in function."""
    note = (
        "entropy: the paper's unused, the logits are undecided; constant: one output on all training "
        "samples; unreachable: no path to an output in the discrete network"
    )
    return setting_rows(frame, 3, _row, height=2.1, note=note)


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    for ax, notion in zip(axes, _NOTIONS, strict=True):
        unused_by_layer(part, ax, notion=notion)
        if ax is not axes[0]:
            ax.set_ylabel("")
    state(axes[0], "\n".join(untrained(part).values()), y=0.6)
    return list(_NOTIONS.values())
