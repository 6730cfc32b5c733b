"""Figure of C7: what the gate temperature of GLGNs does."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from lgn_analysis.plots.layout import setting_rows, targets_of
from lgn_analysis.plots.style import (
    METHOD_STYLES,
    MethodStyle,
    as_frame,
    axes_or_new,
    draw_band,
    draw_points,
    on_split,
    percent_axis,
    step_axis,
    summarise,
)

_DLGN, _GLGN = METHOD_STYLES["soft"], METHOD_STYLES["gumbel-st"]
_LINES: Final = ("-", "--", "-.", ":")


def accuracy_by_tau(history: Any, ax: Axes | None = None, *, split: str = "test") -> Axes:
    """Draw the best and the final discrete accuracy of GLGNs against the gate temperature.

    DLGNs, where the histories have some, are a horizontal line: their final accuracy.

    Args:
        history: histories of runs that differ in ``tau`` and ``seed``, with ``relaxation`` where there
            are DLGNs among them.
        ax: where to draw; None makes a new figure.
        split: which split, where the history has several.
    """
    ax = axes_or_new(ax)
    frame = on_split(as_frame(history), split)
    noisy, soft = _methods(frame)
    best = noisy.groupby(["tau", "seed"])["discrete_accuracy"].max().reset_index()
    look = {"label": "GLGN, best", "linestyle": ":", "marker": "^", "color": "#56B4E9"}
    draw_points(ax, best, "tau", "discrete_accuracy", _GLGN, **look)
    last = noisy[noisy["step"] == noisy["steps"]]
    draw_points(ax, last, "tau", "discrete_accuracy", _GLGN, label="GLGN, final")
    tau_axis(ax, last["tau"])
    _across(ax, soft[soft["step"] == soft["steps"]], "discrete_accuracy", "DLGN, final")
    ax.set_ylabel(f"discrete {split} accuracy")
    percent_axis(ax)
    ax.legend(fontsize=7)
    return ax


def steps_by_tau(history: Any, ax: Axes | None = None) -> Axes:
    """Draw the step at which each run reached its target; an arrow where one had not at its end.

    Args:
        history: as for :func:`accuracy_by_tau`, with ``reached``, NaN in runs that never get there.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    noisy, soft = _methods(as_frame(history).drop_duplicates("run"))
    ax.set_yscale("log")
    there = noisy.groupby("tau")["reached"].transform(lambda runs: runs.notna().all())
    draw_points(ax, noisy[there], "tau", "reached", _GLGN)
    some = noisy[~there & noisy["reached"].notna()]
    ax.scatter(some["tau"], some["reached"], s=7, color=_GLGN.color, alpha=0.35, linewidths=0)
    censored = noisy[noisy["reached"].isna()]
    for tau in censored["tau"].unique():
        runs = censored[censored["tau"] == tau]
        end, left = runs["steps"].iloc[0], tau < noisy["tau"].median()
        ax.plot(tau, end, marker="^", color=_GLGN.color, markerfacecolor="white")
        ax.annotate(
            f"{len(runs)} of {(noisy['tau'] == tau).sum()} later",
            (tau, end),
            xytext=(5 if left else -5, -2),
            textcoords="offset points",
            ha="left" if left else "right",
            fontsize=6.5,
            color=_GLGN.color,
        )
    tau_axis(ax, noisy["tau"])
    _across(ax, soft[soft["reached"].notna()], "reached", "DLGN")
    ax.set_ylabel("step at the target")
    return ax


def tau_axis(ax: Axes, taus: pd.Series) -> None:
    """Make x a logarithmic axis of gate temperatures with a tick at each."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sorted(taus.unique())))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if taus.nunique() > 4:  # side by side they would run into each other
        ax.tick_params(axis="x", rotation=60)
    ax.set_xlabel("gate temperature tau")


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: curves of each tau; accuracy and steps to the target over tau."""
    note = (
        "best: the largest over training on the test split, as the paper's; "
        f"target {targets_of(frame)} (validation), arrows: later than the last step, if at all"
    )
    return setting_rows(frame, 3, _row, height=2.6, legend=None, note=note)


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    left, middle, right = axes
    noisy, soft = _methods(part)
    taus = sorted(noisy["tau"].unique())
    for index, tau in enumerate(taus):
        color = colormaps["viridis"](0.9 * index / max(1, len(taus) - 1))
        look = MethodStyle(f"tau {tau:g}", color, _LINES[index % len(_LINES)], "")
        draw_band(left, noisy[noisy["tau"] == tau], "step", "discrete_accuracy", look)
    if len(soft):
        draw_band(left, soft, "step", "discrete_accuracy", _DLGN, label="DLGN")
    step_axis(left)
    left.set_ylabel("discrete test accuracy")
    left.set_ylim(0, 1.02)
    percent_axis(left)
    left.legend(loc="upper left", fontsize=6.5, handlelength=1.6, labelspacing=0.3)
    accuracy_by_tau(part, middle)
    steps_by_tau(part, right)
    return ["over training", "accuracy", "steps to the target"]


def _methods(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of GLGNs and of DLGNs."""
    if "relaxation" not in frame:
        return frame, frame.iloc[:0]
    soft = frame["relaxation"] == "soft"
    return frame[~soft], frame[soft]


def _across(ax: Axes, runs: pd.DataFrame, column: str, label: str) -> None:
    """Draw the mean of DLGNs, which do not depend on tau, and its interval across the panel."""
    if runs.empty:
        return
    table = summarise(runs.assign(every=0), "every", column).iloc[0]
    ax.axhline(table["mean"], color=_DLGN.color, linestyle=_DLGN.linestyle, label=label)
    ax.axhspan(table["low"], table["high"], color=_DLGN.color, alpha=0.18, linewidth=0)
