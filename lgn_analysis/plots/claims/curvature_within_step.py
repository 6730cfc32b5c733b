"""Figure of M8: trace and gap over training time, and among networks of one depth, method and step."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    GREY,
    METHOD_STYLES,
    as_frame,
    axes_or_new,
    by_method,
    level_line,
)

_CELL: Final = ["depth", "relaxation", "step"]
_COLORS: Final = ("#a1d99b", "#41ab5d", "#00441b")
"""Of steps, darker with time."""
_WIDE: Final = 0.22
"""How far apart the methods stand at one step."""


def trace_and_gap(checkpoints: Any, ax: Axes | None = None) -> Axes:
    """Draw |soft − discrete| test loss against tr(H), a point a network, in the colour of its step.

    Args:
        checkpoints: a row a network and step: ``trace_z``, ``gap_loss``, ``relaxation``, ``step``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(checkpoints)
    frame = frame[frame["trace_z"] > 0]
    steps = sorted(frame["step"].unique())
    for step, color in zip(steps, _COLORS, strict=False):
        for look, rows in by_method(frame[frame["step"] == step]):
            ax.scatter(
                rows["trace_z"],
                rows["gap_loss"].abs(),
                s=9,
                marker=look.marker,
                color=color,
                alpha=0.7,
                linewidths=0,
                label=f"step {step}" if look is METHOD_STYLES["soft"] else "_",
            )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("tr(H) in z")
    ax.set_ylabel("|gap in test loss| (nats)")
    return ax


def ranks_in_cells(checkpoints: Any, ax: Axes | None = None) -> Axes:
    """Draw the same points by their ranks among the networks of one depth, method and step, from 0 to 1."""
    ax = axes_or_new(ax)
    frame = as_frame(checkpoints).assign(gap=lambda table: table["gap_loss"].abs())
    groups = frame.groupby(_CELL)
    size = groups["seed"].transform("size")
    ranks = {name: (groups[name].rank() - 0.5) / size for name in ("trace_z", "gap")}
    frame = frame.assign(x=ranks["trace_z"], y=ranks["gap"])
    for step, color in zip(sorted(frame["step"].unique()), _COLORS, strict=False):
        for look, rows in by_method(frame[frame["step"] == step]):
            ax.scatter(
                rows["x"], rows["y"], s=9, marker=look.marker, color=color, alpha=0.7, linewidths=0
            )
    ax.set_xlabel("rank of tr(H) in its cell")
    ax.set_ylabel("rank of |gap| in its cell")
    return ax


def correlations_by_step(checkpoints: Any, ax: Axes | None = None) -> Axes:
    """Draw the rank correlation of trace and |gap|: of each cell, and over steps, a point a depth.

    Args:
        checkpoints: as for :func:`trace_and_gap`, with ``depth`` and ``seed``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(checkpoints).assign(gap=lambda table: table["gap_loss"].abs())
    steps = sorted(frame["step"].unique())
    place = {step: index for index, step in enumerate(steps)}
    methods = list(by_method(frame))
    for index, (look, rows) in enumerate(methods):
        offset = _WIDE * (index - (len(methods) - 1) / 2)
        points = [
            (place[step] + offset, _correlation(cell))
            for (_, step), cell in rows.groupby(["depth", "step"])
        ]
        points += [(len(steps) + offset, _correlation(cell)) for _, cell in rows.groupby("depth")]
        x, y = np.array(points).T
        ax.scatter(x, y, s=16, marker=look.marker, color=look.color, linewidths=0, label=look.label)
        for where in np.unique(x):
            mean = float(np.nanmean(y[x == where]))
            ax.plot([where - 0.08, where + 0.08], [mean, mean], color=look.color, linewidth=1.5)
    by_chance = 1.96 / np.sqrt(frame["seed"].nunique() - 1)
    ax.fill_between(
        [-0.5, len(steps) - 0.5], -by_chance, by_chance, color=GREY, alpha=0.12, linewidth=0
    )
    level_line(ax, 0)
    ax.axvline(len(steps) - 0.5, color=GREY, linewidth=0.6, linestyle=":")
    ax.set_xlim(-0.5, len(steps) + 0.5)
    ax.set_ylim(-1.05, 1.05)
    ax.set_xticks(range(len(steps) + 1), [*(str(step) for step in steps), "all"])
    ax.set_xlabel("training step")
    ax.set_ylabel("rank correlation")
    return ax


def _correlation(rows: pd.DataFrame) -> float:
    if rows["gap"].nunique() < 2 or rows["trace_z"].nunique() < 2:
        return float("nan")
    return float(stats.spearmanr(rows["trace_z"], rows["gap"]).statistic)


def figure(frame: pd.DataFrame, trained: float) -> Figure:
    """Return the figure, a row a setting: over time, within cells, and the correlations of both.

    Args:
        frame: the experiment's frame.
        trained: discrete accuracy that the median network of a cell must have reached to be drawn.
    """
    if len(frame):
        keys = ["setting", *_CELL]
        frame = frame[frame.groupby(keys)["discrete_accuracy"].transform("median") >= trained]

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        trace_and_gap(part, axes[0])
        ranks_in_cells(part, axes[1])
        correlations_by_step(part, axes[2])
        return ["over time", "in cells", "by step"]

    note = (
        "squares DLGN, circles GLGN; a cell is one depth, method and step at which the median network has "
        f"{trained:.0%} discrete accuracy; short lines: means; grey: 95 % of one cell's correlations if there is none"
    )
    drawn = setting_rows(frame, 3, draw, height=2.5, legend=None, note=note, intervals=False)
    if len(frame):
        _legend(drawn, sorted(frame["step"].unique()))
    return drawn


def _legend(figure: Figure, steps: list[int]) -> None:
    """Put the colours of steps and the looks of both methods above all panels."""
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=color, label=f"step {step}")
        for step, color in zip(steps, _COLORS, strict=False)
    ]
    handles += [
        Line2D([], [], marker=look.marker, linestyle="none", color=look.color, label=look.label)
        for look in (METHOD_STYLES["soft"], METHOD_STYLES["gumbel-st"])
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=5, fontsize=7.5)
