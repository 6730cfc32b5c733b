"""Figure of C12: all methods over tau, or side by side where there is one."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.claims.gap import LABELS
from lgn_analysis.plots.claims.temperature import tau_axis
from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    as_frame,
    axes_or_new,
    by_method,
    draw_points,
    gap_values,
    level_line,
    percent_axis,
    share_limits,
)

_SHORT: Final = {"DLGN (noise-free)": "soft", "GLGN (Gumbel-ST)": "Gumbel ST"}


def parts_over_tau(ends: Any, ax: Axes | None = None, *, column: str = "gap_train") -> Axes:
    """Draw what every method ends with, against tau; at one tau the methods stand side by side.

    Args:
        ends: a row a run at its end, with ``relaxation``, ``tau`` and ``seed``.
        ax: where to draw; None makes a new figure.
        column: ``"gap_train"``, ``"gap"``, ``"flips"``, ``"gap_loss"`` or ``"discrete_accuracy"``.
    """
    ax = axes_or_new(ax)
    frame = as_frame(ends)
    value = frame[column] if column == "discrete_accuracy" else gap_values(frame, column)
    frame = frame.assign(value=value)
    methods = list(by_method(frame))
    single = frame["tau"].nunique() == 1
    for index, (method_style, rows) in enumerate(methods):
        label = _SHORT.get(method_style.label, method_style.label)
        # Beside one another, or all error bars at a tau would stand on one place.
        aside = 1.035 ** (index - (len(methods) - 1) / 2)
        placed = rows.assign(place=index if single else rows["tau"] * aside)
        draw_points(ax, placed, "place", "value", method_style, label=label)
    if single:
        names = [_SHORT.get(method_style.label, method_style.label) for method_style, _ in methods]
        ax.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=7)
    else:
        tau_axis(ax, frame["tau"])
    if column == "discrete_accuracy":
        percent_axis(ax)
        ax.set_ylabel("discrete test accuracy")
    else:
        level_line(ax, 0)
        ax.set_ylabel(LABELS[column])
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: accuracy and both gaps of all methods."""
    note = "falling tau: from tau to a tenth of it"
    return setting_rows(frame, 3, _row, height=2.6, note=note)


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    for ax, column in zip(axes, ("discrete_accuracy", "gap_train", "gap"), strict=True):
        parts_over_tau(part, ax, column=column)
    share_limits(axes[1:])
    return ["accuracy", "gap (primary)", "soft gap (secondary)"]
