"""Figure of C11: seconds per training step against those of the DLGN."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import empty_figure, footnote, legend_above
from lgn_analysis.plots.style import (
    as_frame,
    axes_or_new,
    by_method,
    draw_points,
    level_line,
    panels,
)


def extra_seconds(turns: Any, ax: Axes | None = None) -> Axes:
    """Draw the extra seconds of a training step over the DLGN's, in per cent, a place a setting.

    Args:
        turns: timed turns with ``setting``, ``relaxation``, ``seed``, ``round`` and ``seconds``; a
            seed's value is the median over rounds of the ratio within a round.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(turns)
    keys = ["setting", "seed", "round"]
    table = frame.pivot_table(index=keys, columns="relaxation", values="seconds", sort=False)
    ratios = table.drop(columns="soft").div(table["soft"], axis=0)
    extra = 100 * (ratios.groupby(["setting", "seed"], sort=False).median() - 1)
    long = extra.reset_index().melt(["setting", "seed"], var_name="relaxation", value_name="extra")
    names = list(frame["setting"].unique())
    methods = list(by_method(long))
    for index, (method_style, rows) in enumerate(methods):
        shift = 0.2 * (index - (len(methods) - 1) / 2)
        placed = rows.assign(place=rows["setting"].map(names.index) + shift)
        draw_points(ax, placed, "place", "extra", method_style, linestyle="")
    level_line(ax, 0)
    ax.set_xticks(range(len(names)), names)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylabel("extra time a step (%)")
    ax.legend()
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure: extra seconds, with the paper's 5 per cent."""
    if frame.empty:
        return empty_figure()
    fig, (ax,) = panels(1, height=2.8, width=5.0)
    extra_seconds(frame, ax)
    level_line(ax, 5, color="#000000", linestyle=":")
    ax.annotate(
        "the paper: 5 %",
        (ax.get_xlim()[1], 5),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        fontsize=7,
    )
    legend_above(fig, [ax])
    footnote(fig, frame, "over the DLGN's, steps timed in turns")
    return fig
