"""Figure of M5: accuracy over steps for several noise draws a step."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import setting_rows, targets_of
from lgn_analysis.plots.style import (
    METHOD_STYLES,
    as_frame,
    axes_or_new,
    draw_band,
    level_line,
    percent_axis,
    step_axis,
)

_COLORS: Final = ("#9ecae1", "#4292c6", "#08306b")
_LINES: Final = (":", "--", "-")


def accuracy_by_draws(history: Any, ax: Axes | None = None) -> Axes:
    """Draw discrete validation accuracy against the step, a band a number of draws a step.

    Args:
        history: histories of one depth with ``draws`` and ``seed``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(history)
    frame = frame[frame["split"] == "val"]
    for color, line, (key, rows) in zip(_COLORS, _LINES, frame.groupby("draws"), strict=False):
        draws = int(str(key))
        label = f"{draws} draw{'s' if draws > 1 else ''} a step"
        look = {"color": color, "linestyle": line, "label": label}
        draw_band(ax, rows, "step", "discrete_accuracy", METHOD_STYLES["gumbel-st"], **look)
    level_line(ax, frame["target"].iloc[0], linestyle=":")
    step_axis(ax)
    percent_axis(ax)
    ax.set_ylabel("discrete accuracy (validation)")
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting and a panel a depth."""
    depths = sorted(frame["depth"].unique()) if len(frame) else [0]

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        for ax, depth in zip(axes, depths, strict=True):
            accuracy_by_draws(part[part["depth"] == depth], ax)
        return [f"GLGN, {depth} layers" for depth in depths]

    note = f"dotted: target {targets_of(frame)}" if len(frame) else ""
    return setting_rows(frame, len(depths), draw, height=2.8, legend=3, note=note)
