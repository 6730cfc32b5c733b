"""One look for every figure, scoped by a context, never global.

Okabe–Ito colours, told apart in grey by line style and marker too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

FULL_WIDTH: Final = 7.0
"""Inches: the text width of a two-column page."""

LEVEL: Final = 0.95

GREY: Final = "#555555"
"""Of what is no data: lines of reference, captions."""


@dataclass(frozen=True)
class MethodStyle:
    """How one method is drawn."""

    label: str
    color: str | tuple[float, float, float, float]
    linestyle: str | tuple[int, tuple[int, ...]]
    marker: str


METHOD_STYLES: Final = {
    "soft": MethodStyle("DLGN (noise-free)", "#D55E00", "--", "s"),
    "gumbel-st": MethodStyle("GLGN (Gumbel-ST)", "#0072B2", "-", "o"),
    "gumbel-soft": MethodStyle("soft Gumbel", "#009E73", "-.", "^"),
    "hard-st": MethodStyle("hard ST", "#CC79A7", ":", "D"),
    "cage": MethodStyle("CAGE", "#E69F00", (0, (5, 1)), "v"),
    "soft-annealed": MethodStyle("soft, tau falling", "#56B4E9", (0, (3, 1, 1, 1, 1, 1)), "P"),
}

_RC: Final[dict[Any, Any]] = {
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "svg.hashsalt": "lgn_analysis",
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the look of this package inside the ``with`` block."""
    # Not rc_context, which puts back everything: in a notebook pyplot is set up for it when it is
    # first used, perhaps in here, and would forget that on the way out.
    before = {key: mpl.rcParams[key] for key in _RC}
    mpl.rcParams.update(_RC)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


def panels(
    columns: int, *, height: float = 2.6, rows: int = 1, width: float = FULL_WIDTH
) -> tuple[Figure, list[Axes]]:
    """Return a figure outside pyplot and its axes in reading order."""
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def axes_or_new(ax: Axes | None) -> Axes:
    """Return ``ax``, or the axes of a new pyplot figure."""
    if ax is not None:
        return ax
    with style():
        return plt.subplots(figsize=(FULL_WIDTH / 2, 2.6))[1]


def as_frame(result: Any) -> pd.DataFrame:
    """Return a frame as it is, and anything else by its ``to_frame()``."""
    if isinstance(result, pd.DataFrame):
        return result
    frame: pd.DataFrame = result.to_frame()
    return frame


def style_of(relaxation: str | None) -> MethodStyle:
    """Return the look of a relaxation; black for what has none."""
    return METHOD_STYLES.get(relaxation or "", MethodStyle(relaxation or "", "#000000", "-", "o"))


def by_method(frame: pd.DataFrame) -> Iterator[tuple[MethodStyle, pd.DataFrame]]:
    """Yield each relaxation's look and rows, in the order of :data:`METHOD_STYLES`."""
    if "relaxation" not in frame:
        yield style_of(None), frame
        return
    present = list(frame["relaxation"].unique())
    for name in [
        *(name for name in METHOD_STYLES if name in present),
        *(set(present) - set(METHOD_STYLES)),
    ]:
        yield style_of(name), frame[frame["relaxation"] == name]


def summarise(frame: pd.DataFrame, x: str | Sequence[str], y: str) -> pd.DataFrame:
    """Return mean, low, high and n of ``y`` over seeds at each ``x``: t intervals at 95 %."""
    keys = [x] if isinstance(x, str) else list(x)
    groups = frame.groupby(keys)[y]
    table = groups.agg(["mean", "sem", "count"]).reset_index()
    quantile = stats.t.ppf((1 + LEVEL) / 2, np.maximum(table["count"] - 1, 1))
    half = np.where(table["count"] > 1, quantile * table["sem"], 0.0)
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def draw_line(ax: Axes, x: Any, y: Any, method_style: MethodStyle, **kw: Any) -> None:
    """Draw ``y`` against ``x`` in the colour and line style of a method."""
    look = {"color": method_style.color, "linestyle": method_style.linestyle}
    ax.plot(x, y, **{**look, "label": method_style.label, **kw})


def shade(ax: Axes, x: Any, low: Any, high: Any, color: Any) -> None:
    """Draw an interval as a band."""
    ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def draw_band(
    ax: Axes, frame: pd.DataFrame, x: str, y: str, method_style: MethodStyle, **kw: Any
) -> None:
    """Draw the mean of ``y`` over seeds against ``x``, with its interval as a band.

    Over training it starts at the first evaluated step after 0: in between nothing was measured.
    """
    table = summarise(frame[frame[x] > 0] if x == "step" else frame, x, y)
    draw_line(ax, table[x], table["mean"], method_style, **kw)
    shade(ax, table[x], table["low"], table["high"], kw.get("color", method_style.color))


def draw_points(
    ax: Axes, frame: pd.DataFrame, x: str, y: str, method_style: MethodStyle, **kw: Any
) -> None:
    """Draw the mean of ``y`` over seeds with error bars, and every seed as a faint point.

    No line joins step 0 to the first evaluated step after it.
    """
    table = summarise(frame, x, y)
    if x == "step" and (table[x] == 0).any():
        table = pd.concat([table[:1], table[:1].assign(mean=np.nan), table[1:]])
    look = {**vars(method_style), "capsize": 2.5, **kw}
    errors = [table["mean"] - table["low"], table["high"] - table["mean"]]
    ax.errorbar(table[x], table["mean"], yerr=errors, **look)
    ax.scatter(frame[x], frame[y], s=7, color=look["color"], alpha=0.35, linewidths=0)


def level_line(ax: Axes, y: float, **kw: Any) -> None:
    """Draw a thin horizontal line of reference."""
    ax.axhline(y, **{"color": GREY, "linewidth": 0.8, **kw})


def legend_where_named(ax: Axes, **kw: Any) -> None:
    """Draw a legend where something in the axes has a name."""
    if any(ax.get_legend_handles_labels()[1]):
        ax.legend(**kw)


def on_split(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split, where the frame has several."""
    return frame[frame["split"] == split] if "split" in frame else frame


def gap_values(frame: pd.DataFrame, column: str) -> pd.Series:
    """Return a gap as it is drawn: accuracies in percentage points, flips in per cent, loss in nats."""
    if column == "flips":
        return 100 * frame["flips"] / frame["n"]
    return frame[column] if column.endswith("loss") else 100 * frame[column]


def fit_means(ax: Axes) -> None:
    """Limit y to the drawn lines, so that a wide interval of an early step does not hide them."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines()])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    padding = 0.15 * ((high - low) or 1.0)
    ax.set_ylim(low - padding, high + padding)


def step_axis(ax: Axes, *, first: float | None = None) -> None:
    """Make x a logarithmic axis of training steps; with step 0 drawn too, linear up to the ``first`` after it."""
    if first is None:
        ax.set_xscale("log")
        ax.set_xlabel("training step")
        return
    ax.set_xscale("symlog", linthresh=first)
    ax.set_xlim(left=-0.1 * first)
    ax.set_xlabel(f"training step (linear to {first:g})")


def first_step(frame: pd.DataFrame) -> float | None:
    """Return the first step after 0, for an axis that shows step 0; None where there is none."""
    steps = frame["step"]
    return float(steps[steps > 0].min()) if (steps == 0).any() and (steps > 0).any() else None


def share_limits(axes: Sequence[Axes], axis: str = "y") -> None:
    """Give panels that are compared the same limits."""
    limits = np.array([getattr(ax, f"get_{axis}lim")() for ax in axes])
    for ax in axes:
        getattr(ax, f"set_{axis}lim")(limits[:, 0].min(), limits[:, 1].max())


def state(ax: Axes, text: str, *, y: float = 0.97) -> None:
    """Write in a panel, in grey, what it does not show; from the height ``y`` downwards."""
    look: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 7, "color": GREY}
    ax.text(0.98, y, text, transform=ax.transAxes, **look)


def at_end(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs at their last step, on the test split where there are several."""
    rows = on_split(frame, "test")
    return rows[rows["step"] == rows["steps"]] if "step" in rows else rows


def untrained(frame: pd.DataFrame) -> dict[str, str]:
    """Return, by relaxation, what is to be said of methods that most seeds end with below the floor."""
    said = {}
    for name, runs in at_end(frame).groupby("relaxation"):
        if (runs["discrete_accuracy"] >= runs["floor"]).mean() <= 1 / 2:
            label = style_of(str(name)).label.split(" (")[0]
            said[str(name)] = (
                f"{label} untrained: {runs['discrete_accuracy'].mean():.0%} at the end"
            )
    return said


def percent_axis(ax: Axes, axis: str = "y") -> None:
    """Write a share as a percentage along an axis."""
    formatter = mpl.ticker.PercentFormatter(xmax=1, decimals=None)
    getattr(ax, f"{axis}axis").set_major_formatter(formatter)
