"""Figure of M5's alignment: the mean Gumbel-ST gradient against the DLGN's, over draws and by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lgn_analysis.plots.layout import legend_above, setting_rows
from lgn_analysis.plots.style import MethodStyle, as_frame, axes_or_new, draw_points, level_line

_COLORS: Final = ("#08306b", "#2171b5", "#4292c6", "#9ecae1")
_MARKERS: Final = ("o", "s", "^", "D")
_PARTS: Final = {
    "whole": MethodStyle("whole gradient", "#0072B2", "-", "o"),
    "labels": MethodStyle("part that knows the labels", "#009E73", "--", "^"),
}
_MIN_MEANS: Final = 16
"""Fewer means than this of M draws are not drawn."""


def _layers(frame: pd.DataFrame) -> Iterator[tuple[MethodStyle, pd.DataFrame]]:
    """Yield a look and the rows of the whole gradient of each layer, from the last to the first."""
    whole = frame[frame["part"] == "whole"]
    last = whole["layer"].max()
    for layer in sorted(whole["layer"].unique(), reverse=True):
        before = int(last - layer)
        place = min(before, len(_COLORS) - 1)
        name = f"{before} layer{'s' * (before > 1)} before" if before else "last layer"
        yield (
            MethodStyle(name, _COLORS[place], "-", _MARKERS[place]),
            whole[whole["layer"] == layer],
        )


def cosine_by_draws(alignment: Any, ax: Axes | None = None) -> Axes:
    """Draw cosines against the draws averaged: measured as points, as the limit and noise say as lines.

    Args:
        alignment: rows of :func:`lgn_analysis.theory.gradient_alignment`, with ``seed``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(alignment)
    finite = frame[np.isfinite(frame["draws"]) & (frame["means"] >= _MIN_MEANS)]
    end = 8 * float(finite["draws"].max())
    for look, rows in _layers(frame):
        shown = rows[rows["draws"].isin(finite["draws"])]
        draw_points(ax, shown, "draws", "cosine", look, linestyle="none")
        limits = rows[np.isinf(rows["draws"])].assign(draws=end).dropna(subset="cosine")
        if limits.empty:
            continue
        draw_points(ax, limits, "draws", "cosine", look, linestyle="none", label="_")
        limit = limits.set_index("seed")["cosine"]
        factor = np.sqrt(1 + 1 / shown["snr_squared"].where(shown["snr_squared"] > 0))
        line = (shown["seed"].map(limit) / factor).groupby(shown["draws"]).mean()
        ax.plot(line.index, line, color=look.color, linewidth=0.9)
    ax.set_xscale("log")
    draws = sorted(finite["draws"].unique())
    ax.set_xticks([*draws, end], [*(f"{m:g}" for m in draws), "∞"])
    ax.minorticks_off()
    ax.set_ylim(-0.05, 1.05)
    ax.set_xlabel("noise draws averaged")
    ax.set_ylabel("cosine with the DLGN's gradient")
    return ax


def snr_by_draws(alignment: Any, ax: Axes | None = None) -> Axes:
    """Draw the squared signal-to-noise ratio of the mean over draws, with lines of slope one."""
    ax = axes_or_new(ax)
    frame = as_frame(alignment)
    frame = frame[np.isfinite(frame["draws"]) & (frame["means"] >= _MIN_MEANS)]
    for look, rows in _layers(frame):
        values = rows[rows["snr_squared"] > 0]
        if values.empty:
            continue
        draw_points(ax, values, "draws", "snr_squared", look, linestyle="none")
        ends = np.array([values["draws"].min(), values["draws"].max()])
        start = values.loc[values["draws"] == ends[0], "snr_squared"].mean()
        ax.plot(ends, start * ends / ends[0], color=look.color, linewidth=0.9)
    ax.set_xscale("log")
    ax.set_yscale("log")
    draws = sorted(frame["draws"].unique())
    ax.set_xticks(draws, [f"{m:g}" for m in draws])
    ax.minorticks_off()
    ax.set_xlabel("noise draws averaged")
    ax.set_ylabel("SNR² of the mean")
    return ax


def limits_by_layer(alignment: Any, ax: Axes | None = None, *, least: float = 0.9) -> Axes:
    """Draw the cosine for draws without end against the layer, of the gradient and of its label part.

    Args:
        alignment: as for :func:`cosine_by_draws`; a cosine that is NaN is not drawn.
        ax: where to draw; None makes a new figure.
        least: where a line is drawn: what was predicted.
    """
    ax = axes_or_new(ax)
    frame = as_frame(alignment)
    frame = frame[np.isinf(frame["draws"])].assign(number=lambda table: table["layer"] + 1)
    for (part, look), shift in zip(_PARTS.items(), (-0.08, 0.08), strict=True):
        rows = frame[frame["part"] == part].dropna(subset="cosine")
        if len(rows):
            moved = rows.assign(number=rows["number"] + shift)
            draw_points(ax, moved, "number", "cosine", look)
    level_line(ax, least, linestyle=":")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(0.5, frame["number"].max() + 0.5)
    ax.set_ylim(-0.05, 1.25)
    ax.set_xlabel("layer (1 = input)")
    ax.set_ylabel("cosine, draws without end")
    ax.legend(loc="lower right", fontsize=7)
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: cosine and signal-to-noise over draws, and limits by layer."""

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        cosine_by_draws(part, axes[0])
        snr_by_draws(part, axes[1])
        limits_by_layer(part, axes[2])
        return ["alignment", "noise", "limit"]

    note = (
        "before the first step; lines: limit and noise put together, SNR² in proportion to draws; "
        "dotted: the predicted cosine"
    )
    drawn = setting_rows(frame, 3, draw, height=2.6, legend=None, note=note)
    if len(frame):
        deepest = max(drawn.axes[::3], key=lambda ax: len(ax.get_legend_handles_labels()[1]))
        legend_above(drawn, [deepest])
    return drawn
