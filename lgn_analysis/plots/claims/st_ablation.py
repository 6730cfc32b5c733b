"""Figure of C6: the GLGN with and without its straight-through forward."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.claims.gap import trained_gaps
from lgn_analysis.plots.layout import setting_rows, targets_of
from lgn_analysis.plots.style import by_method, draw_band, level_line, percent_axis, step_axis


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: discrete accuracy, and both gaps over training."""
    return setting_rows(frame, 3, _row, note=f"dotted: target, {targets_of(frame)}")


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    left, *others = axes
    for method_style, history in by_method(part[part["split"] == "val"]):
        draw_band(left, history, "step", "discrete_accuracy", method_style)
    level_line(left, part["target"].iloc[0], linestyle=":")
    step_axis(left)
    left.set_ylim(0, 1.02)
    left.set_ylabel("discrete accuracy (val.)")
    percent_axis(left)
    trained_gaps(part, others)
    return ["convergence", "gap (primary)", "soft gap (secondary)"]
