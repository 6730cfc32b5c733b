"""Figure of Lemma 1: measured over predicted gain against the noise scale."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    GREY,
    as_frame,
    axes_or_new,
    by_method,
    draw_band,
    draw_line,
    draw_points,
    legend_where_named,
    level_line,
    share_limits,
    style_of,
)


def lemma_ratio(lemma: Any, ax: Axes | None = None) -> Axes:
    """Draw the ratio of the measured gain to the lemma's prediction against the noise scale.

    Args:
        lemma: the frame of ``lgn.lemma1``, with ``relaxation`` and ``seed`` where there are several
            runs; a single run is drawn with its own intervals, and with the gain over the
            predictions of higher order where it has them.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(lemma)
    for method_style, rows in by_method(frame):
        if "seed" in rows:
            draw_points(ax, rows, "scale", "ratio", method_style)
            continue
        errors = [rows["ratio"] - rows["ratio_low"], rows["ratio_high"] - rows["ratio"]]
        ax.errorbar(
            rows["scale"],
            rows["ratio"],
            yerr=errors,
            capsize=2.5,
            color=method_style.color,
            marker=method_style.marker,
            linestyle=method_style.linestyle,
            label="Lemma 1, order 2" if "ratio_3" in rows else None,
        )
        for order, style in ((3, ":"), (4, "-.")):
            if f"ratio_{order}" in rows:
                look = {"linestyle": style, "label": f"predicted to order {order}", "alpha": 0.7}
                draw_line(ax, rows["scale"], rows[f"ratio_{order}"], method_style, **look)
    _ratio_axes(ax)
    legend_where_named(ax)
    return ax


_ORDERS: Final = {
    "ratio": ("order 2 (the lemma)", "-"),
    "ratio_3": ("order 3", "--"),
    "ratio_4": ("order 4", ":"),
}


def lemma_orders(lemma: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the ratio of the measured gain to the prediction of each order, means over seeds.

    Args:
        lemma: frames of ``lgn.lemma1`` of one method, with ``seed``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    for method_style, rows in by_method(lemma):
        for column, (label, style) in _ORDERS.items():
            if column in rows and rows[column].notna().any():
                look = {"label": label, "linestyle": style, "marker": "."}
                draw_band(ax, rows, "scale", column, method_style, **look)
    _ratio_axes(ax)
    ax.legend(fontsize=7)
    return ax


def _ratio_axes(ax: Axes) -> None:
    level_line(ax, 1)
    ax.set_xlabel("noise scale s (training: 1)")
    ax.set_ylabel("measured / predicted gain")


def figure(frame: pd.DataFrame, tolerance: float) -> Figure:
    """Return the figure, a row a setting: each method by order, early, and the lemma at the end."""

    def draw(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
        early, late = part["step"].min(), part["step"].max()
        titles = []
        for ax, kind in zip(axes, ("soft", "gumbel-st"), strict=False):
            chosen = part[(part["step"] == early) & (part["relaxation"] == kind)]
            lemma_orders(chosen, ax)
            _mark(ax, chosen, tolerance)
            titles.append(f"{style_of(kind).label.split()[0]}, step {early}")
        at_end = part[part["step"] == late]
        lemma_ratio(at_end, axes[2])
        _mark(axes[2], at_end, tolerance)
        share_limits(axes)
        return [*titles, f"both, step {late}"]

    note = f"grey: within {tolerance:.0%} of 1; arrow: radius, the mean of the largest scale inside"
    return setting_rows(frame, 3, draw, legend=None, note=note)


def _mark(ax: Axes, rows: pd.DataFrame, tolerance: float) -> None:
    """Shade the tolerance, point at the mean radius of the lemma, and keep rare draws off the axis."""
    ax.axhspan(1 - tolerance, 1 + tolerance, color=GREY, alpha=0.1, linewidth=0)
    means = rows.groupby(["relaxation", "scale"])["ratio"].mean()
    ax.set_ylim(min(0, means.min()) - 0.3, min(max(2, 1.35 * means.max()), 12))
    if "radius" in rows:
        for method_style, part in by_method(rows):
            radius = float(part.groupby("seed")["radius"].first().mean())
            ax.annotate(
                "",
                (radius, 1 - tolerance),
                xytext=(0, -14),
                textcoords="offset points",
                arrowprops={"arrowstyle": "->", "color": method_style.color},
            )
