"""Figure of M6: what is unused, constant and unreachable over training that learns nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    GREY,
    METHOD_STYLES,
    MethodStyle,
    as_frame,
    axes_or_new,
    draw_band,
    percent_axis,
    step_axis,
)

_DLGN, _GLGN = METHOD_STYLES["soft"], METHOD_STYLES["gumbel-st"]
_LOOKS: Final[Mapping[tuple[str, str], MethodStyle]] = {
    ("GLGN, ε 1e-8", "true"): replace(_GLGN, label="GLGN, true labels"),
    ("GLGN, ε 1e-8", "permuted"): replace(_GLGN, label="GLGN, permuted", linestyle="--"),
    ("GLGN, ε 1e-8", "independent"): replace(_GLGN, label="GLGN, independent", linestyle=":"),
    ("DLGN, ε 1e-8", "independent"): replace(
        _DLGN, label="DLGN, ε 1e-8, independent", linestyle=":"
    ),
    ("DLGN, ε 1e-16", "independent"): replace(
        _DLGN, label="DLGN, ε 1e-16, independent", linestyle="-."
    ),
    ("DLGN, ε 1e-16", "true"): replace(_DLGN, label="DLGN, ε 1e-16, true labels", linestyle="-"),
}
_TITLES: Final = {
    "unused": "unused (entropy)",
    "constant": "constant on the data",
    "unreachable": "no path to an output",
    "discrete_accuracy": "discrete accuracy",
}


def over_training(usage: Any, ax: Axes | None = None, *, column: str = "unused") -> Axes:
    """Draw a share of the gates, or the accuracy, against the step, a band a method and kind of labels.

    Args:
        usage: gate usage, a row a run, step and layer, with ``arm``, ``labels``, ``seed`` and ``walk``.
        ax: where to draw; None makes a new figure.
        column: ``"unused"``, beside which the free random walk is drawn, ``"constant"``,
            ``"unreachable"``, or ``"discrete_accuracy"``.
    """
    ax = axes_or_new(ax)
    frame = as_frame(usage)
    keys = ["arm", "labels", "seed", "step"]
    runs = frame.groupby(keys, as_index=False)[[column, "walk"]].mean()  # layers are equally wide
    for (arm, labels), look in _LOOKS.items():
        rows = runs[(runs["arm"] == arm) & (runs["labels"] == labels)]
        if len(rows):
            draw_band(ax, rows, "step", column, look)
    if column == "unused":
        walk = runs.drop_duplicates("step").sort_values("step")
        ax.plot(
            walk["step"],
            walk["walk"],
            color=GREY,
            linewidth=0.9,
            label="free random walk, steps of lr",
        )
    step_axis(ax)
    percent_axis(ax)
    ax.set_ylim(-0.03, 1.03)
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure: three notions of an idle gate, and the accuracy, over training."""

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        for ax, column in zip(axes, _TITLES, strict=True):
            over_training(part, ax, column=column)
        axes[0].set_ylabel("share of gates")
        axes[2].set_ylabel("share of gates")
        axes[3].set_ylabel("test split")
        return list(_TITLES.values())

    note = "independent: every training sample with every class in turn"
    return setting_rows(frame, 2, draw, rows=2, height=4.6, legend=3, note=note)
