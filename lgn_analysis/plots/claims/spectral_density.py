"""Figure of the spectral density of the Hessian, noise-free and noisy."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import setting_rows, without_legends
from lgn_analysis.plots.style import (
    MethodStyle,
    as_frame,
    axes_or_new,
    by_method,
    draw_line,
    legend_where_named,
)

WIDTH: Final = 0.01
"""Standard deviation of the smoothing Gaussian, as a share of the largest |eigenvalue| drawn."""


def density_curve(density: Any, ax: Axes | None = None, *, width: float = WIDTH) -> Axes:
    """Draw the smoothed spectral density on a logarithmic axis.

    Args:
        density: a ``DensityResult``, or its frame with columns ``node`` and ``weight``, and
            ``relaxation`` and ``seed`` where there are several runs (drawn thin, their mean thick).
        ax: where to draw; None makes a new figure.
        width: standard deviation of the smoothing Gaussian, as a share of the largest |eigenvalue|.
    """
    ax = axes_or_new(ax)
    frame = as_frame(density)
    largest = float(frame["node"].abs().max()) or 1.0
    grid = np.linspace(-1.1 * largest, 1.1 * largest, 801)
    for method_style, rows in by_method(frame):
        _draw(ax, rows, grid, width * largest, method_style)
    ax.set_yscale("log")
    highest = max(float(np.max(line.get_ydata())) for line in ax.get_lines())
    ax.set_ylim(1e-5 / largest, 10 * highest)
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    ax.set_xlabel("eigenvalue of H (in z)")
    ax.set_ylabel("spectral density")
    legend_where_named(ax)
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: the density, and the spectrum's mass by magnitude."""
    first = frame["setting"].iloc[0] if len(frame) else ""

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        left, right = axes
        density_curve(part, left)
        without_legends([left])
        for method_style, rows in by_method(part):
            _draw_tail(right, rows, method_style)
        right.set_xscale("log")
        right.set_yscale("log")
        right.set_ylim(1e-6, 2)
        right.set_xlabel("x")
        right.set_ylabel("share with |λ| > x")
        if part["setting"].iloc[0] == first:
            right.legend(loc="lower left")
        return ["spectral density", "spectral tail"]

    note = "left, thin: single seeds, thick: their mean; right: a line a seed"
    return setting_rows(frame, 2, draw, legend=None, note=note, intervals=False)


def _draw(
    ax: Axes, rows: pd.DataFrame, grid: np.ndarray, sigma: float, method_style: MethodStyle
) -> None:
    curves = []
    for _, run in _runs(rows):
        distance = (grid[:, None] - run["node"].to_numpy()) / sigma
        kernel = np.exp(-0.5 * distance**2) / (sigma * np.sqrt(2 * np.pi))
        curves.append(kernel @ run["weight"].to_numpy() / run["weight"].sum())
    if len(curves) > 1:
        for curve in curves:
            ax.plot(grid, curve, color=method_style.color, linewidth=0.5, alpha=0.4)
    draw_line(ax, grid, np.mean(curves, axis=0), method_style)


def _draw_tail(ax: Axes, rows: pd.DataFrame, method_style: MethodStyle) -> None:
    for index, (_, run) in enumerate(_runs(rows)):
        ordered = run.assign(size=run["node"].abs()).sort_values("size")
        above = 1 - ordered["weight"].cumsum() / ordered["weight"].sum()
        ax.step(
            ordered["size"],
            above.clip(lower=0),
            where="post",
            color=method_style.color,
            linestyle=method_style.linestyle,
            linewidth=0.9,
            label=method_style.label if index == 0 else "_",
        )


def _runs(rows: pd.DataFrame) -> Any:
    return rows.groupby("seed") if "seed" in rows else [(None, rows)]
