"""Figure of M1: the gradient of every layer, measured and predicted, and Adam's ε."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    GREY,
    METHOD_STYLES,
    MethodStyle,
    as_frame,
    axes_or_new,
    draw_points,
    level_line,
)

EPSILON: Final = 1e-8
_LOOKS: Final = {
    "soft": METHOD_STYLES["soft"],
    "residual": MethodStyle("DLGN, residual initialisation", "#009E73", "-.", "^"),
    "Gumbel-ST": METHOD_STYLES["gumbel-st"],
}


def gradients_by_layer(signals: Any, ax: Axes | None = None) -> Axes:
    """Draw the rms of ∂L/∂z against the layer: measured as points, predicted as lines.

    Args:
        signals: rows with ``arm``, ``layer``, ``seed``, ``gradient_rms``, ``predicted_rms``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(signals).assign(number=lambda table: table["layer"] + 1)
    for arm, look in _LOOKS.items():
        rows = frame[frame["arm"] == arm]
        if rows.empty:
            continue
        draw_points(ax, rows, "number", "gradient_rms", look, linestyle="none")
        means = rows.groupby("number")["predicted_rms"].mean()
        ax.plot(means.index, means, color=look.color, linestyle="-", linewidth=1)
    ax.set_yscale("log")
    level_line(ax, EPSILON, linestyle=":")
    last = frame["number"].max()
    ax.text(last, EPSILON, "Adam's default ε", color=GREY, fontsize=7, va="bottom", ha="right")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer (1 = input)")
    ax.set_ylabel("rms of ∂L/∂z")
    return ax


def ratios_by_layer(signals: Any, ax: Axes | None = None, *, tolerance: float = 1.15) -> Axes:
    """Draw measured over predicted gradient against the layer, the tolerance shaded."""
    ax = axes_or_new(ax)
    frame = as_frame(signals).assign(
        number=lambda table: table["layer"] + 1,
        ratio=lambda table: table["gradient_rms"] / table["predicted_rms"],
    )
    ax.axhspan(1 / tolerance, tolerance, color=GREY, alpha=0.1, linewidth=0)
    level_line(ax, 1)
    for arm, look in _LOOKS.items():
        rows = frame[frame["arm"] == arm]
        if len(rows):
            draw_points(ax, rows, "number", "ratio", look)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer (1 = input)")
    ax.set_ylabel("measured / predicted")
    return ax


def figure(frame: pd.DataFrame, tolerance: float) -> Figure:
    """Return the figure, a row a setting: sizes, and measured over predicted."""

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        gradients_by_layer(part, axes[0])
        ratios_by_layer(part, axes[1], tolerance=tolerance)
        return ["gradients before the first step", "the closed form's error"]

    note = f"points measured, lines predicted; shaded: within a factor of {tolerance:g}"
    return setting_rows(frame, 2, draw, height=2.8, legend=3, note=note)
