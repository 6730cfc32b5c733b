"""Figure of C8: the trace of the Hessian over training and over tau."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from lgn_analysis.plots.claims.temperature import tau_axis
from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    GREY,
    METHOD_STYLES,
    as_frame,
    axes_or_new,
    by_method,
    draw_points,
    first_step,
    legend_where_named,
    level_line,
    percent_axis,
    step_axis,
)


def trace_curves(curvature: Any, ax: Axes | None = None, *, column: str = "trace_z") -> Axes:
    """Draw the trace of the Hessian over training.

    Args:
        curvature: a row a probe, with ``step`` and ``column``, and ``relaxation`` and ``seed``
            where there are several runs.
        ax: where to draw; None makes a new figure.
        column: ``"trace_z"`` in the logits, or ``"trace_u"`` in u = z / tau.
    """
    ax = axes_or_new(ax)
    for method_style, rows in by_method(as_frame(curvature)):
        draw_points(ax, rows, "step", column, method_style)
    level_line(ax, 0)
    step_axis(ax, first=first_step(as_frame(curvature)))
    ax.set_yscale("symlog", linthresh=1e-3)
    low, high = ax.get_ylim()
    ax.set_ylim(low, 2 * high)  # the markers of the largest are cut off otherwise
    ax.set_ylabel("tr(H) in z" if column == "trace_z" else "tr(H) in u = z / tau")
    legend_where_named(ax, loc="lower left")
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: over training, over tau at the end, against the error."""
    return setting_rows(
        frame, 3, _row, note="tr_z = tr_u / tau²; traces on axes that are linear to 0.001"
    )


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    left, middle, right = axes
    pair = part[part["tau"] == part["reference_tau"]]
    noisy = part[(part["relaxation"] == "gumbel-st") & (part["step"] == part["steps"])]
    trace_curves(pair, left)
    several = noisy["tau"].nunique() > 1
    if several:
        _over_tau(middle, noisy)
    else:
        middle.set_axis_off()
        middle.text(0.5, 0.5, "one tau was run", ha="center", fontsize=7, color=GREY)
    _against_error(right, pair)
    right.set_ylim(left.get_ylim())
    return ["over training", "GLGNs over tau" if several else "", "at equal error"]


def _over_tau(ax: Axes, noisy: pd.DataFrame) -> None:
    method_style = METHOD_STYLES["gumbel-st"]
    other = {
        "label": "over tau, in u = z / tau",
        "color": "#56B4E9",
        "linestyle": "--",
        "marker": "^",
    }
    draw_points(ax, noisy, "tau", "trace_z", method_style, label="over tau, in z")
    draw_points(ax, noisy, "tau", "trace_u", method_style, **other)
    tau_axis(ax, noisy["tau"])
    ax.set_yscale("symlog", linthresh=1e-3)
    level_line(ax, 0)
    ax.set_ylabel("tr(H) at the end")


def _against_error(ax: Axes, pair: pd.DataFrame) -> None:
    for method, rows in by_method(pair):
        ax.scatter(
            1 - rows["discrete_accuracy"],
            rows["trace_z"],
            s=12,
            color=method.color,
            marker=method.marker,
            label=method.label,
            alpha=0.7,
            linewidths=0,
        )
    level_line(ax, 0)
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.invert_xaxis()
    ax.xaxis.set_major_locator(FixedLocator([0.9, 0.5, 0.2, 0.1, 0.05]))
    ax.xaxis.set_minor_locator(NullLocator())
    percent_axis(ax, "x")
    ax.set_xlabel("discrete test error")
    ax.set_ylabel("tr(H) in z")
