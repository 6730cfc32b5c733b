"""Figure of C6: the GLGN with and without its straight-through forward."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lgn_analysis.plots.claims.gap import gap_curves
from lgn_analysis.plots.layout import (
    footnote,
    legend_above,
    nothing,
    setting_rows,
    targets_of,
    titled,
)
from lgn_analysis.plots.style import by_method, draw_band, percent_axis, step_axis


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: discrete accuracy, gap in loss and flips over training."""
    if frame.empty:
        return nothing()
    fig, rows = setting_rows(frame, 3)
    settings = frame["setting"].nunique()
    for index, (name, part, (left, middle, right)) in enumerate(rows):
        for method_style, history in by_method(part[part["split"] == "val"]):
            draw_band(left, history, "step", "discrete_accuracy", method_style)
        left.axhline(part["target"].iloc[0], color="#555555", linewidth=0.8, linestyle=":")
        step_axis(left)
        left.set_ylim(0, 1.02)
        left.set_ylabel("discrete accuracy (val.)")
        percent_axis(left)
        left.set_title(titled(name, "convergence", settings))
        gap_curves(part, middle, column="gap_loss")
        middle.set_title(titled(name, "gap in loss", settings))
        middle.legend().remove()
        gap_curves(part, right, column="flips")
        right.set_title(titled(name, "flips", settings))
        right.legend().remove()
        if not index:
            legend_above(fig, left)
    footnote(fig, frame, f"dotted: target, {targets_of(frame)}")
    return fig
