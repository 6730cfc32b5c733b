"""Slices through the loss: a line in one dimension, contours in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter

from lgn_analysis.plots.layout import setting_rows
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
    levels: int | Sequence[float] = 8,
    bar: bool = True,
) -> Axes:
    """Draw a slice through the loss; a cross, or a line in one dimension, marks the model.

    Args:
        landscape: a ``LandscapeResult`` or its frame; in one dimension, with ``relaxation`` where
            several methods are drawn over one another.
        ax: where to draw; None makes a new figure.
        column: ``"loss"`` or ``"accuracy"``.
        levels: about so many contours in two dimensions, or at these values.
        bar: a colour bar beside two dimensions.
    """
    ax = axes_or_new(ax)
    frame = as_frame(landscape)
    if "y" in frame:
        filled = _contours(ax, frame, column, levels)
        ax.set_ylabel(_direction(frame["y_direction"].iloc[0]))
        if bar:
            _color_bar(filled, [ax], column)
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
    """Return the figure, two rows a setting: the first seed's planes on one scale; curvature along lines."""
    note = "s = 1 moves each gate by the length of its own logits; cross: the trained network"
    return setting_rows(frame, 2, _rows, rows=2, height=4.8, note=note)


def _rows(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    *slices, random, top = axes
    planes = part[part["kind"] == "plane"]
    levels = MaxNLocator(10).tick_values(planes["loss"].min(), planes["loss"].max())
    titles = []
    for ax, (method_style, plane) in zip(slices, by_method(planes), strict=True):
        seed = plane["seed"].min()
        landscape_slice(plane[plane["seed"] == seed], ax, levels=levels, bar=False)
        titles.append(f"loss of a {method_style.label.split()[0]}, seed {seed}")
    _color_bar(slices[-1].collections[0], slices, "loss")
    curvature_along(part[part["kind"] == "filter"], random)
    curvature_along(part[part["kind"] == "eigen"], top)
    return [*titles, "curvature, random directions", "curvature, top eigenvector"]


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


def _contours(
    ax: Axes, frame: pd.DataFrame, column: str, levels: int | Sequence[float]
) -> QuadContourSet:
    table = frame.pivot(index="y", columns="x", values=column)
    x, y, values = table.columns.to_numpy(), table.index.to_numpy(), table.to_numpy()
    # Lightness alone orders the fill, so that it reads in grey.
    filled = ax.contourf(x, y, values, levels=levels, cmap="Blues")
    ax.contour(x, y, values, levels=levels, colors="#333333", linewidths=0.5)
    (cross,) = ax.plot(0, 0, marker="x", markersize=6, markeredgewidth=1.6, color="#000000")
    cross.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="white")])
    ax.grid(False)
    return filled


def _color_bar(filled: ScalarMappable, axes: list[Axes], column: str) -> None:
    scale = axes[0].figure.colorbar(filled, ax=axes, pad=0.02)
    scale.ax.yaxis.set_major_formatter(
        PercentFormatter(xmax=1) if column == "accuracy" else ScalarFormatter(useOffset=False)
    )
    scale.set_label(_LABELS[column])


def _direction(name: str) -> str:
    return _AXES.get(name, name)
