"""Figures of several settings: a row of panels each, and a caption below."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.style import FULL_WIDTH, GREY, panels, span

_LINE: Final = 130
"""Characters of a caption that fit the width of a page."""

DrawRow = Callable[[pd.DataFrame, list[Axes]], list[str]]
"""Draws the rows of one setting into its panels and returns their titles, empty for none."""


def setting_rows(
    frame: pd.DataFrame,
    columns: int,
    draw: DrawRow,
    *,
    rows: int = 1,
    height: float = 2.3,
    legend: int | None = 6,
    note: str = "",
    intervals: bool = True,
) -> Figure:
    """Return a figure with a row of panels, or several, a setting.

    Args:
        frame: the rows of all settings.
        columns: panels a row.
        draw: called for each setting.
        rows: rows of panels of a setting.
        height: of a setting, in inches.
        legend: columns of a legend above all panels, that of the first; None leaves legends where
            they are.
        note: what stands below the panels beside scale and n.
        intervals: whether the caption says that means and intervals are drawn.
    """
    if frame.empty:
        return empty_figure()
    names = list(frame["setting"].unique())
    count, total = rows * columns, height * len(names) + 0.1 + 0.25 * rows
    figure, axes = panels(columns, rows=rows * len(names), height=total)
    for index, name in enumerate(names):
        row = axes[count * index : count * (index + 1)]
        titles = draw(frame[frame["setting"] == name], row)
        for ax, title in zip(row, titles, strict=True):
            if title:
                ax.set_title(titled(str(name), title, len(names)))
        if legend and not index:
            legend_above(figure, row[0], columns=legend)
    footnote(figure, frame, note, intervals=intervals)
    return figure


def titled(name: str, text: str, settings: int) -> str:
    """Return a panel's title, with the setting before it where there are several."""
    return f"{name}: {text}" if settings > 1 else text


def without_legends(axes: Sequence[Axes]) -> None:
    """Remove the legends of panels."""
    for ax in axes:
        if (legend := ax.get_legend()) is not None:
            legend.remove()


def legend_above(figure: Figure, ax: Axes, *, columns: int = 6) -> None:
    """Put the legend of one panel above all of them, where no curve can run through it."""
    handles, labels = ax.get_legend_handles_labels()
    without_legends([ax])
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=columns,
        fontsize=7.5,
        columnspacing=1.0,
        handlelength=1.8,
    )


def footnote(
    figure: Figure, frame: pd.DataFrame, more: str = "", *, intervals: bool = True
) -> None:
    """Write scale, n and what else is to be known below the panels."""
    text = scale_of(frame)
    if intervals:
        text += ", mean and 95 % t interval over seeds"
    if more:
        text += f"; {more}"
    line = round(_LINE * figure.get_figwidth() / FULL_WIDTH)
    wrapped = "\n".join(textwrap.wrap(text, line))
    figure.supxlabel(wrapped, fontsize=7, color=GREY, x=0.01, ha="left")


def scale_of(frame: pd.DataFrame) -> str:
    """Return data, shapes, steps and seeds of the runs in a frame, for a caption."""
    parts = []
    for name, rows in frame.groupby("dataset", sort=False):
        depth, width, steps = (span(rows[column]) for column in ("depth", "width", "steps"))
        parts.append(f"{name}, {depth} × {width} gates, {steps} steps")
    seeds = frame.groupby("setting" if "setting" in frame else "dataset")["seed"].nunique()
    return f"{'; '.join(parts)}; n = {span(seeds)} seeds"


def empty_figure() -> Figure:
    """Return a figure that states that there is nothing to draw."""
    figure = Figure(figsize=(FULL_WIDTH / 2, 1.2))
    text = "no runs of this preset decide this claim"
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, color=GREY)
    return figure


def targets_of(frame: pd.DataFrame) -> str:
    """Return the target accuracies of the settings in a frame."""
    return ", ".join(f"{target:.0%}" for target in dict.fromkeys(frame["target"]))
