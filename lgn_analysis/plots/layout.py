"""Figures of several settings: a row of panels each, and a caption below."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.metrics.scale import describe
from lgn_analysis.plots.style import FULL_WIDTH, GREY, panels

_LINE: Final = 140
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
        draw: called for each setting; its titles stand behind the setting's name in the first column.
        rows: rows of panels of a setting.
        height: of a setting, in inches.
        legend: columns of a legend above all panels, of what the first setting draws; None leaves legends where
            they are.
        note: what stands below the panels beside scale and n.
        intervals: whether the caption says that means and intervals are drawn.
    """
    if frame.empty:
        return empty_figure()
    names = list(frame["setting"].unique())
    lines = len(_caption(frame, note, intervals, _LINE))
    count, total = rows * columns, height * len(names) + 0.3 * bool(legend) + 0.12 * lines
    figure, axes = panels(columns, rows=rows * len(names), height=total)
    for index, name in enumerate(names):
        row = axes[count * index : count * (index + 1)]
        titles = draw(frame[frame["setting"] == name], row)
        for place, (ax, title) in enumerate(zip(row, titles, strict=True)):
            # Behind the name of its setting there is no room for a title in every panel.
            ax.set_title(title if place % columns else titled(str(name), title, len(names)))
        if legend and not index:
            legend_above(figure, row, columns=legend)
        elif legend:
            without_legends(row)
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


def legend_above(figure: Figure, axes: Sequence[Axes], *, columns: int = 6) -> None:
    """Put one legend of some panels above all of them, where no curve can run through it."""
    named: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    without_legends(axes)
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside upper left",
        ncols=columns,
        fontsize=7.5,
        columnspacing=1.0,
        handlelength=1.8,
    )


def footnote(
    figure: Figure, frame: pd.DataFrame, more: str = "", *, intervals: bool = True
) -> None:
    """Write scale and n of each setting, and what else is to be known, below the panels."""
    characters = round(_LINE * figure.get_figwidth() / FULL_WIDTH)
    figure.supxlabel(
        "\n".join(_caption(frame, more, intervals, characters)),
        fontsize=6.5,
        color=GREY,
        x=0.01,
        ha="left",
    )


def _caption(frame: pd.DataFrame, more: str, intervals: bool, characters: int) -> list[str]:
    settings = list(frame.groupby("setting", sort=False))
    texts = [titled(str(name), describe(rows), len(settings)) for name, rows in settings]
    rest = [*(["mean and 95 % t interval over seeds"] if intervals else []), *([more] * bool(more))]
    return [line for text in [*texts, "; ".join(rest)] for line in textwrap.wrap(text, characters)]


def empty_figure() -> Figure:
    """Return a figure that states that there is nothing to draw."""
    figure = Figure(figsize=(FULL_WIDTH / 2, 1.2))
    text = "no runs of this preset decide this claim"
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, color=GREY)
    return figure


def targets_of(frame: pd.DataFrame) -> str:
    """Return the target accuracies of the settings in a frame."""
    return ", ".join(f"{target:.0%}" for target in dict.fromkeys(frame["target"]))
