"""Slices through the loss: a line in one dimension, contours in two."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from lgn_analysis.plots.layout import footnote, legend_above, nothing, titled
from lgn_analysis.plots.style import (
    as_frame,
    axes_or_new,
    by_method,
    draw_band,
    panels,
    percent_axis,
    summarise,
)

_LABELS: Final = {"loss": "loss (nats)", "accuracy": "accuracy"}
_AXES: Final = {"soft → discrete": "t (0: soft, 1: discrete)"}


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
            ax.plot(
                rows["x"],
                rows[column],
                color=method_style.color,
                linestyle=method_style.linestyle,
                label=method_style.label,
            )
        ax.axvline(0, color="#555555", linewidth=0.8, zorder=0)
        ax.set_ylabel(_LABELS[column])
        if column == "accuracy":
            percent_axis(ax)
        if any(label for label in ax.get_legend_handles_labels()[1]):
            ax.legend()
    ax.set_xlabel(_direction(frame["x_direction"].iloc[0]))
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, two rows a setting: lines and their bends; planes of the first seed."""
    if frame.empty:
        return nothing()
    names = list(frame["setting"].unique())
    fig, axes = panels(3, rows=2 * len(names), height=4.2 * len(names) + 0.6)
    for index, name in enumerate(names):
        part = frame[frame["setting"] == name]
        random, top, planes = (part[part["kind"] == kind] for kind in ("filter", "eigen", "plane"))
        above, below = axes[6 * index : 6 * index + 3], axes[6 * index + 3 : 6 * index + 6]
        rise_along(random, above[0]).set_title(titled(name, "random", len(names)))
        rise_along(top, above[1]).set_title(titled(name, "top eigenvector", len(names)))
        bend_along(random, above[2]).set_title(titled(name, "bend, random", len(names)))
        bend_along(top, below[2]).set_title(titled(name, "bend, top", len(names)))
        for ax in (*above, below[2]):
            ax.legend().remove()
        for ax in below[:2]:
            ax.set_axis_off()
        for ax, (method_style, plane) in zip(below[:2], by_method(planes), strict=False):
            ax.set_axis_on()
            seed = plane["seed"].min()
            landscape_slice(plane[plane["seed"] == seed], ax, bar=False)
            ax.set_title(titled(name, f"{method_style.label.split()[0]}, seed {seed}", len(names)))
        if not index:
            legend_above(fig, above[0])
    footnote(
        fig, frame, "s = 1 moves each gate by the length of its own logits; contours: loss in nats"
    )
    return fig


def rise_along(lines: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how the loss rises from the model along lines, by method, over seeds and directions.

    Args:
        lines: rows of lines with ``x`` and ``loss``, ``relaxation``, ``seed`` and ``direction``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    at_model = lines.loc[lines["x"].abs() < _AT_MODEL].set_index(
        ["relaxation", "seed", "direction"]
    )
    keys = pd.MultiIndex.from_frame(lines[["relaxation", "seed", "direction"]])
    rises = lines.assign(rise=lines["loss"].to_numpy() - at_model["loss"].reindex(keys).to_numpy())
    means = rises.groupby(["relaxation", "seed", "x"])["rise"].mean().reset_index()
    for method_style, rows in by_method(means):
        draw_band(ax, rows, "x", "rise", method_style)
    ax.set_xlabel("s")
    ax.set_ylabel("rise in loss (nats)")
    ax.legend(fontsize=7)
    return ax


def bend_along(lines: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw |d²L/ds²| along lines, by method, geometric means over seeds, on a logarithmic axis.

    Args:
        lines: rows of lines with ``x`` and ``bend``, ``relaxation``, ``seed`` and ``direction``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    sizes = lines.assign(size=lines["bend"].abs()).dropna(subset=["size"])
    means = sizes.groupby(["relaxation", "seed", "x"])["size"].mean().reset_index()
    # Over seeds in logarithms, so that an interval stays above zero.
    means = means.assign(size=np.log10(means["size"].clip(lower=_LEAST)))
    for method_style, rows in by_method(means):
        table = summarise(rows, "x", "size")
        ax.plot(
            table["x"],
            10 ** table["mean"],
            color=method_style.color,
            linestyle=method_style.linestyle,
            label=method_style.label,
        )
        low, high = 10 ** table["low"], 10 ** table["high"]
        ax.fill_between(table["x"], low, high, color=method_style.color, alpha=0.18, linewidth=0)
    ax.set_yscale("log")
    ax.set_xlabel("s")
    ax.set_ylabel("|d²L/ds²| (nats)")
    ax.legend(fontsize=7)
    return ax


_AT_MODEL: Final = 1e-9
_LEAST: Final = 1e-12


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
