"""Figure of C13: a map of who wins, over width, depth, initialisation and training length."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import empty_figure, footnote
from lgn_analysis.plots.style import as_frame, axes_or_new, panels, summarise

_FULL: Final = 10.0
"""Percentage points at which the colour is full, in all panels."""


def winner_map(cells: Any, ax: Axes | None = None, *, reach: float | None = None) -> Axes:
    """Draw GLGN − DLGN in discrete test accuracy over width and depth, in percentage points.

    Blue: the GLGN wins; red: the DLGN. The number is the mean over seeds, bold where its 95 % t
    interval excludes zero; a dash stands where neither is trained in most seeds.

    Args:
        cells: a row a cell and seed, with ``depth``, ``width``, ``dlgn``, ``glgn`` and ``floor``.
        ax: where to draw; None makes a new figure.
        reach: percentage points at which the colour is full; None is the largest drawn.
    """
    ax = axes_or_new(ax)
    frame = as_frame(cells)
    depths, widths = sorted(frame["depth"].unique()), sorted(frame["width"].unique())
    trained = frame[["dlgn", "glgn"]].max(axis=1) >= frame["floor"]
    differences = (100 * (frame["glgn"] - frame["dlgn"])).where(trained)
    cell = ["depth", "width"]
    table = summarise(frame.assign(difference=differences), cell, "difference").set_index(cell)
    table = table[table["count"] > frame.groupby(cell).size() / 2]
    certain_cells = table.index[(table["count"] > 1) & ((table["low"] > 0) | (table["high"] < 0))]
    values = table["mean"].unstack("width").reindex(index=depths, columns=widths).to_numpy()
    if reach is None:
        reach = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    ax.imshow(values, cmap="RdBu", vmin=-reach, vmax=reach, origin="lower", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = abs(value) > 0.6 * reach
        ax.text(
            column,
            row,
            "–" if np.isnan(value) else f"{value:+.1f}",
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if (depths[row], widths[column]) in certain_cells else "normal",
            color="white" if dark else "black",
        )
    ax.set_xticks(range(len(widths)), [f"{width:g}" for width in widths])
    ax.set_yticks(range(len(depths)), [f"{depth:g}" for depth in depths])
    ax.grid(visible=False)
    ax.set_xlabel("width")
    ax.set_ylabel("depth")
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure: a row an initialisation and comparison, a column a training length."""
    if frame.empty:
        return empty_figure()
    lengths = sorted(frame["steps"].unique())
    rows = list(frame.groupby(["setting", "init", "comparison"], sort=False))
    fig, axes = panels(len(lengths), rows=len(rows), height=1.5 * len(rows) + 0.4)
    several = frame["setting"].nunique() > 1
    for row, ((setting, init, comparison), chosen) in enumerate(rows):
        for column, length in enumerate(lengths):
            ax = axes[len(lengths) * row + column]
            cells = chosen[chosen["steps"] == length]
            if cells.empty:
                ax.set_axis_off()
                continue
            winner_map(cells, ax, reach=_FULL)
            name = f"{setting}, {init}" if several else str(init)
            ax.set_title(f"{name}, equal {comparison}, {length:g}", fontsize=7.5)
            if row < len(rows) - 1:
                ax.set_xlabel("")
            if column:
                ax.set_ylabel("")
    image = next(image for ax in axes for image in ax.get_images())
    bar = fig.colorbar(image, ax=axes, extend="both", aspect=40, pad=0.01)
    bar.set_label("GLGN − DLGN (pp of discrete test accuracy)")
    more = "blue: GLGN wins; bold: 95 % t interval excludes 0; "
    more += "dash: neither trained; equal seconds: those of the DLGN at that many steps"
    footnote(fig, frame, more, intervals=False)
    return fig
