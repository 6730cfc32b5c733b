"""Figure of M7: what the hard forward's noise adds to the loss, and what each lemma says, over training."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    MethodStyle,
    as_frame,
    axes_or_new,
    draw_points,
    first_step,
    level_line,
    share_limits,
    step_axis,
    style_of,
)

_LINES: Final = {
    "gain": MethodStyle("measured: hard forward", "#000000", "-", "o"),
    "prediction": MethodStyle("hard lemma", "#0072B2", "--", "s"),
    "lemma_gain": MethodStyle("measured: soft, noisy", "#999999", "-", "^"),
    "lemma_prediction": MethodStyle("Lemma 1", "#D55E00", "--", "D"),
}


def gains_over_steps(lemmas: Any, ax: Axes | None = None) -> Axes:
    """Draw gains and predictions against the training step.

    Args:
        lemmas: rows with ``step``, ``seed``, ``gain``, ``prediction``, ``lemma_gain`` and
            ``lemma_prediction``, in nats.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(lemmas)
    level_line(ax, 0)
    for column, look in _LINES.items():
        draw_points(ax, frame, "step", column, look)
    ax.set_yscale("symlog", linthresh=1e-3)
    step_axis(ax, first=first_step(frame))
    ax.set_ylabel("added to the loss (nats)")
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: DLGN and GLGN."""

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        titles = []
        for ax, kind in zip(axes, ("soft", "gumbel-st"), strict=True):
            gains_over_steps(part[part["relaxation"] == kind], ax)
            titles.append(style_of(kind).label)
        share_limits(axes)
        return titles

    return setting_rows(frame, 2, draw, height=2.6, legend=4, note="losses linear to 0.001")
