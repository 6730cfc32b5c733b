"""Figure of C8: the trace of the Hessian over training and over tau."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from lgn_analysis.plots.claims.temperature import tau_axis
from lgn_analysis.plots.layout import footnote, legend_above, nothing, setting_rows, titled
from lgn_analysis.plots.style import (
    METHOD_STYLES,
    as_frame,
    axes_or_new,
    by_method,
    draw_points,
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
    """Return the figure, a row a setting: over training, over tau at the end, against the error."""
    if frame.empty:
        return nothing()
    fig, rows = setting_rows(frame, 3)
    settings = frame["setting"].nunique()
    for index, (name, part, (left, middle, right)) in enumerate(rows):
        pair = part[part["tau"] == part["reference_tau"]]
        noisy = part[(part["relaxation"] == "gumbel-st") & (part["step"] == part["steps"])]
        trace_curves(pair, left)
        left.set_title(titled(name, "over training", settings))
        if noisy["tau"].nunique() > 1:
            _over_tau(middle, noisy)
            middle.set_title(titled(name, "GLGNs over tau", settings))
        else:
            middle.set_axis_off()
        _against_error(right, pair)
        right.set_ylim(left.get_ylim())
        right.set_title(titled(name, "at equal error", settings))
        left.legend().remove()
        if not index:
            legend_above(fig, left)
    footnote(fig, frame, "tr_z = tr_u / tau²")
    return fig


def _over_tau(ax: Axes, noisy: pd.DataFrame) -> None:
    method_style = METHOD_STYLES["gumbel-st"]
    draw_points(ax, noisy, "tau", "trace_z", method_style, label="in z")
    draw_points(
        ax,
        noisy,
        "tau",
        "trace_u",
        method_style,
        label="in u = z / tau",
        color="#56B4E9",
        linestyle="--",
        marker="^",
    )
    tau_axis(ax, noisy["tau"])
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.axhline(0, color="#555555", linewidth=0.8)
    ax.set_ylabel("tr(H) at the end")
    ax.legend()


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
    ax.axhline(0, color="#555555", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.invert_xaxis()
    ax.xaxis.set_major_locator(FixedLocator([0.9, 0.5, 0.2, 0.1, 0.05]))
    ax.xaxis.set_minor_locator(NullLocator())
    percent_axis(ax, "x")
    ax.set_xlabel("discrete test error")
    ax.set_ylabel("tr(H) in z")
