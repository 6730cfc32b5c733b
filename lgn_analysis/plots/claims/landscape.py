"""Slices through the loss: a line in one dimension, contours in two."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from lgn_analysis.plots.layout import setting_rows, without_legends
from lgn_analysis.plots.style import (
    GREY,
    as_frame,
    axes_or_new,
    by_method,
    draw_band,
    draw_line,
    legend_where_named,
    percent_axis,
    shade,
    summarise,
)

_LABELS: Final = {"loss": "loss (nats)", "accuracy": "accuracy"}
_AXES: Final = {"soft → discrete": "t (0: soft, 1: discrete)"}
_AT_MODEL: Final = 1e-9
_LEAST: Final = 1e-12


def landscape_slice(
    landscape: Any,
    ax: Axes | None = None,
    *,
    column: str = "loss",
    levels: int = 8,
    bar: bool = True,
) -> Axes:
    """Draw a slice through the loss; a cross, or a line in one dimension, marks the model.

    Args:
        landscape: a ``LandscapeResult`` or its frame; in one dimension, with ``relaxation`` where
            several methods are drawn over one another.
        ax: where to draw; None makes a new figure.
        column: ``"loss"`` or ``"accuracy"``.
        levels: about so many contours in two dimensions.
        bar: a colour bar beside two dimensions; else the contours are labelled.
    """
    ax = axes_or_new(ax)
    frame = as_frame(landscape)
    if "y" in frame:
        _contours(ax, frame, column, levels, bar)
        ax.set_ylabel(_direction(frame["y_direction"].iloc[0]))
    else:
        for method_style, rows in by_method(frame):
            draw_line(ax, rows["x"], rows[column], method_style)
        ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
        ax.set_ylabel(_LABELS[column])
        if column == "accuracy":
            percent_axis(ax)
        legend_where_named(ax)
    ax.set_xlabel(_direction(frame["x_direction"].iloc[0]))
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, two rows a setting: lines and their curvature; planes of the first seed."""
    note = "s = 1 moves each gate by the length of its own logits; contours: loss in nats"
    return setting_rows(frame, 3, _rows, rows=2, height=4.2, note=note)


def _rows(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    random, top, planes = (part[part["kind"] == kind] for kind in ("filter", "eigen", "plane"))
    loss_along(random, axes[0])
    loss_along(top, axes[1])
    curvature_along(random, axes[2])
    curvature_along(top, axes[5])
    without_legends(axes)
    names = []
    for ax, (method_style, plane) in zip(axes[3:5], by_method(planes), strict=False):
        seed = plane["seed"].min()
        landscape_slice(plane[plane["seed"] == seed], ax, bar=False)
        names.append(f"{method_style.label.split()[0]}, seed {seed}")
    for ax in axes[3 + len(names) : 5]:
        ax.set_axis_off()
        names.append("")
    return ["random", "top eigenvector", "random", *names, "eigenvector"]


def loss_along(lines: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the increase in loss over the model's own along lines, by method, over seeds and directions.

    Args:
        lines: rows of lines with ``x`` and ``loss``, ``relaxation``, ``seed`` and ``direction``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    at_model = lines.loc[lines["x"].abs() < _AT_MODEL].set_index(
        ["relaxation", "seed", "direction"]
    )
    keys = pd.MultiIndex.from_frame(lines[["relaxation", "seed", "direction"]])
    own = at_model["loss"].reindex(keys).to_numpy()
    increases = lines.assign(increase=lines["loss"].to_numpy() - own)
    means = increases.groupby(["relaxation", "seed", "x"])["increase"].mean().reset_index()
    for method_style, rows in by_method(means):
        draw_band(ax, rows, "x", "increase", method_style)
    ax.set_xlabel("s")
    ax.set_ylabel("increase in loss (nats)")
    ax.legend(fontsize=7)
    return ax


def curvature_along(lines: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw |d²L/ds²| along lines, by method, geometric means over seeds, on a logarithmic axis.

    Args:
        lines: rows of lines with ``x`` and ``bend`` (d²L/ds²), ``relaxation``, ``seed`` and ``direction``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    sizes = lines.assign(size=lines["bend"].abs()).dropna(subset=["size"])
    means = sizes.groupby(["relaxation", "seed", "x"])["size"].mean().reset_index()
    # Over seeds in logarithms, so that an interval stays above zero.
    means = means.assign(size=np.log10(means["size"].clip(lower=_LEAST)))
    for method_style, rows in by_method(means):
        table = summarise(rows, "x", "size")
        draw_line(ax, table["x"], 10 ** table["mean"], method_style)
        shade(ax, table["x"], 10 ** table["low"], 10 ** table["high"], method_style.color)
    ax.set_yscale("log")
    ax.set_xlabel("s")
    ax.set_ylabel("|d²L/ds²| (nats)")
    ax.legend(fontsize=7)
    return ax


def _contours(ax: Axes, frame: pd.DataFrame, column: str, levels: int, bar: bool) -> None:
    table = frame.pivot(index="y", columns="x", values=column)
    x, y, values = table.columns.to_numpy(), table.index.to_numpy(), table.to_numpy()
    # Lightness alone orders the fill, so that it reads in grey.
    filled = ax.contourf(x, y, values, levels=levels, cmap="Blues")
    lines = ax.contour(x, y, values, levels=levels, colors="#333333", linewidths=0.5)
    if bar:
        scale = ax.figure.colorbar(filled, ax=ax, pad=0.02)
        scale.ax.yaxis.set_major_formatter(
            PercentFormatter(xmax=1) if column == "accuracy" else ScalarFormatter(useOffset=False)
        )
        scale.set_label(_LABELS[column])
    else:
        ax.clabel(lines, list(lines.levels)[1::2], fontsize=6, fmt="%g")
    (cross,) = ax.plot(0, 0, marker="x", markersize=6, markeredgewidth=1.6, color="#000000")
    cross.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="white")])
    ax.grid(False)


def _direction(name: str) -> str:
    return _AXES.get(name, name)
