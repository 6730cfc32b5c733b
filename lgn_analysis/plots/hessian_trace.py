"""Figure of C8: the trace of the Hessian over training and over tau."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from lgn_analysis.plots.style import (
    LOOKS,
    as_frame,
    axes_or_new,
    by_method,
    caption,
    draw_points,
    panels,
    percent_axis,
    scale_of,
    step_axis,
)
from lgn_analysis.plots.temperature import tau_axis


def trace_curves(curvature: Any, ax: Axes | None = None, *, column: str = "trace_z") -> Axes:
    """Draw the trace of the Hessian over training.

    Args:
        curvature: a row a probe, with ``step`` and ``column``, and ``relaxation`` and ``seed``
            where there are several runs.
        ax: where to draw; None makes a new figure.
        column: ``"trace_z"`` in the logits, or ``"trace_u"`` in u = z / tau.
    """
    ax = axes_or_new(ax)
    for look, rows in by_method(as_frame(curvature)):
        draw_points(ax, rows, "step", column, look)
    ax.axhline(0, color="#555555", linewidth=0.8)
    step_axis(ax)
    ax.set_yscale("symlog", linthresh=1e-3)
    low, high = ax.get_ylim()
    ax.set_ylim(low, 2 * high)  # the markers of the largest are cut off otherwise
    ax.set_ylabel("tr(H) in z" if column == "trace_z" else "tr(H) in u = z / tau")
    if any(label for label in ax.get_legend_handles_labels()[1]):
        ax.legend(loc="lower left")
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure: over training at tau 1, over tau at the end, and against accuracy."""
    pair = frame[frame["tau"] == frame["reference_tau"]]
    noisy = frame[(frame["relaxation"] == "gumbel-st") & (frame["step"] == frame["steps"])]
    fig, (left, middle, right) = panels(3)
    trace_curves(pair, left)
    left.set_title("Over training")
    look = LOOKS["gumbel-st"]
    draw_points(middle, noisy, "tau", "trace_z", look, label="in z")
    draw_points(
        middle,
        noisy,
        "tau",
        "trace_u",
        look,
        label="in u = z / tau",
        color="#56B4E9",
        linestyle="--",
        marker="^",
    )
    tau_axis(middle, noisy["tau"])
    middle.set_yscale("symlog", linthresh=1e-3)
    middle.axhline(0, color="#555555", linewidth=0.8)
    middle.set_ylabel("tr(H) at the end")
    middle.set_title("GLGNs over tau")
    middle.legend()
    for method, rows in by_method(pair):
        right.scatter(
            1 - rows["discrete_accuracy"],
            rows["trace_z"],
            s=12,
            color=method.color,
            marker=method.marker,
            label=method.label,
            alpha=0.7,
            linewidths=0,
        )
    right.axhline(0, color="#555555", linewidth=0.8)
    right.set_xscale("log")
    right.set_yscale("symlog", linthresh=1e-3)
    right.invert_xaxis()
    right.xaxis.set_major_locator(FixedLocator([0.9, 0.5, 0.2, 0.1, 0.05]))
    right.xaxis.set_minor_locator(NullLocator())
    percent_axis(right, "x")
    right.set_ylim(left.get_ylim())
    right.set_xlabel("discrete test error")
    right.set_ylabel("tr(H) in z")
    right.set_title("At equal error")
    caption(fig, scale_of(frame))
    return fig
