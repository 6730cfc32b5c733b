"""Figures of several settings: a row of panels each, and what is said below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.style import FULL_WIDTH, caption, panels, scale_of

_LINE: Final = 130
"""Characters of a caption that fit the width of a page."""


def setting_rows(
    frame: pd.DataFrame, columns: int, *, height: float = 2.3
) -> tuple[Figure, Iterator[tuple[str, pd.DataFrame, list[Axes]]]]:
    """Return a figure with a row of panels a setting, and (name, its rows, its axes) of each."""
    names = list(frame["setting"].unique()) if "setting" in frame else [""]
    figure, axes = panels(columns, rows=len(names), height=height * len(names) + 0.35)

    def rows() -> Iterator[tuple[str, pd.DataFrame, list[Axes]]]:
        for index, name in enumerate(names):
            part = frame[frame["setting"] == name] if name else frame
            yield str(name), part, axes[columns * index : columns * (index + 1)]

    return figure, rows()


def titled(name: str, text: str, settings: int) -> str:
    """Return a panel's title, with the setting before it where there are several."""
    return f"{name}: {text}" if settings > 1 else text


def legend_above(figure: Figure, ax: Axes, *, columns: int = 6) -> None:
    """Put the legend of one panel above all of them, where no curve can run through it."""
    handles, labels = ax.get_legend_handles_labels()
    for panel in figure.axes:
        if (legend := panel.get_legend()) is not None and panel is ax:
            legend.remove()
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
    caption(figure, "\n".join(textwrap.wrap(text, line)))


def nothing(text: str = "no runs of this preset decide this claim") -> Figure:
    """Return a figure that says that there is nothing to draw."""
    figure = Figure(figsize=(FULL_WIDTH / 2, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, color="#555555")
    return figure


def targets_of(frame: pd.DataFrame) -> str:
    """Return the target accuracies of the settings in a frame."""
    return ", ".join(f"{target:.0%}" for target in dict.fromkeys(frame["target"]))
