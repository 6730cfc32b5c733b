"""Curvature over training, as a ``ProbeTracker`` saw it."""

from __future__ import annotations

from typing import Any, Final

from matplotlib.axes import Axes

from lgn_analysis.plots.style import (
    as_frame,
    axes_or_new,
    by_method,
    draw_line,
    draw_points,
    first_step,
    legend_where_named,
    level_line,
    shade,
    step_axis,
)

_LABELS: Final = {
    "trace": "tr(H) in z",
    "trace_u": "tr(H) in u = z / tau",
    "lambda_max": "largest eigenvalue",
    "lambda_min": "smallest eigenvalue",
    "negative_mass": "negative mass of H",
}


_SHORT: Final = 1000
"""Steps up to which the axis of steps is linear."""


def curvature_curves(
    curvature: Any, ax: Axes | None = None, *, column: str = "trace", prefix: str = ""
) -> Axes:
    """Draw curvature over training steps, with the interval of each trace.

    Args:
        curvature: a ``ProbeTracker`` or its frame, or a training history or ``TrainResult`` whose run
            it took part in; with ``relaxation`` and ``seed`` where there are several runs, whose mean
            and interval over seeds are drawn then.
        ax: where to draw; None makes a new figure.
        column: ``"trace"``, ``"trace_u"``, ``"lambda_max"``, ``"lambda_min"`` or
            ``"negative_mass"``.
        prefix: the tracker's, where the columns of a history have one.
    """
    ax = axes_or_new(ax)
    frame = as_frame(curvature)
    name = prefix + column
    frame = frame[frame[name].notna()]
    if "split" in frame:  # every split's row holds the same numbers
        frame = frame[frame["split"] == frame["split"].iloc[0]]
    for method_style, rows in by_method(frame):
        rows = rows.sort_values("step")
        if "seed" in rows and rows["seed"].nunique() > 1:
            draw_points(ax, rows, "step", name, method_style)
        else:
            draw_line(ax, rows["step"], rows[name], method_style, marker=method_style.marker)
            if column == "trace":
                low, high = rows[f"{prefix}trace_low"], rows[f"{prefix}trace_high"]
                shade(ax, rows["step"], low, high, method_style.color)
    level_line(ax, 0, zorder=0)
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    ax.set_xlabel("training step")
    if frame["step"].max() > _SHORT:
        step_axis(ax, first=first_step(frame))
    ax.set_ylabel(_LABELS.get(column, column))
    legend_where_named(ax)
    return ax
