"""Figure of C14: the change in loss from soft to discrete against what curvature says of it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import GREY, as_frame, axes_or_new, by_method

_LINEAR: Final = 1e-3
"""Nats below which the axes are linear."""
_FLOOR: Final = 0.5


def change_against(
    checkpoints: Any, ax: Axes | None = None, *, column: str = "prediction", floor: float = _FLOOR
) -> Axes:
    """Draw the change in loss of checkpoints against their prediction, or their trace.

    Args:
        checkpoints: a row a checkpoint, with ``delta_loss``, ``column`` and ``discrete_accuracy``.
        ax: where to draw; None makes a new figure.
        column: ``"prediction"`` or ``"first_order"``, with the line on which they are right; or
            ``"trace_z"``, against the change without its sign.
        floor: discrete accuracy below which a checkpoint is drawn hollow.
    """
    ax = axes_or_new(ax)
    frame = as_frame(checkpoints)
    trace = column.startswith("trace")
    frame = frame.assign(y=frame["delta_loss"].abs() if trace else frame["delta_loss"])
    for method_style, rows in by_method(frame):
        trained = rows["discrete_accuracy"] >= floor
        for part, face, label in (
            (rows[trained], method_style.color, method_style.label),
            (rows[~trained], "none", "_"),
        ):
            ax.scatter(
                part[column],
                part["y"],
                s=14,
                marker=method_style.marker,
                facecolors=face,
                edgecolors=method_style.color,
                linewidths=0.6,
                alpha=0.75,
                label=label,
            )
    ax.set_xscale("symlog", linthresh=_LINEAR)
    ax.set_yscale("symlog", linthresh=_LINEAR)
    ax.set_ylabel("|change in loss| (nats)" if trace else "change in loss (nats)")
    if trace:
        ax.set_xlabel("tr(H) in z")
        return ax
    low = float(min(frame[column].min(), frame["y"].min()))
    high = float(max(frame[column].max(), frame["y"].max()))
    line = np.array([low, 0.0, high])
    ax.plot(line, line, color=GREY, linewidth=0.8, label="_")
    ax.set_xlabel(
        "predicted, first order" if column == "first_order" else "predicted, second order"
    )
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: against the first order, the second, and the trace."""
    note = f"a point a checkpoint and seed, hollow below {_FLOOR:.0%} discrete accuracy; on the line: right; axes linear to 0.001"
    return setting_rows(frame, 3, _row, height=2.6, note=note, intervals=False)


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    for ax, column in zip(axes, ("first_order", "prediction", "trace_z"), strict=True):
        change_against(part, ax, column=column)
        ax.tick_params(axis="x", rotation=45, labelsize=7)
        ax.tick_params(axis="y", labelsize=7)
    return ["gradient alone", "with curvature", "trace"]
