"""Figure of Lemma 1: measured over predicted gain against the noise scale."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lgn_analysis.plots.style import (
    as_frame,
    axes_or_new,
    by_method,
    caption,
    draw_points,
    panels,
    scale_of,
)


def lemma_ratio(lemma: Any, ax: Axes | None = None) -> Axes:
    """Draw the ratio of the measured gain to the lemma's prediction against the noise scale.

    Args:
        lemma: the frame of ``lgn.lemma1``, with ``relaxation`` and ``seed`` where there are several
            runs; a single run is drawn with its own intervals.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(lemma)
    for look, rows in by_method(frame):
        if "seed" in rows:
            draw_points(ax, rows, "scale", "ratio", look)
            continue
        errors = [rows["ratio"] - rows["ratio_low"], rows["ratio_high"] - rows["ratio"]]
        ax.errorbar(
            rows["scale"],
            rows["ratio"],
            yerr=errors,
            capsize=2.5,
            color=look.color,
            marker=look.marker,
            linestyle=look.linestyle,
        )
    ax.axhline(1, color="#555555", linewidth=0.8)
    ax.set_xlabel("noise scale s (training: 1)")
    ax.set_ylabel("measured / predicted gain")
    if any(label for label in ax.get_legend_handles_labels()[1]):
        ax.legend()
    return ax


def figure(frame: pd.DataFrame, tolerance: float) -> Figure:
    """Return the figure: the ratio at each probed step, and the two gains at the earliest."""
    steps = sorted(frame["step"].unique())
    fig, axes = panels(len(steps) + 1)
    for ax, step in zip(axes, steps, strict=False):
        rows = frame[frame["step"] == step]
        lemma_ratio(rows, ax)
        ax.axhspan(1 - tolerance, 1 + tolerance, color="#555555", alpha=0.1, linewidth=0)
        means = rows.groupby(["relaxation", "scale"])["ratio"].mean()
        ax.set_ylim(min(0, means.min()) - 0.5, max(2, means.max()) + 1)
        ax.set_title(f"Lemma 1 at step {step}")
    last = axes[-1]
    for look, rows in by_method(frame[frame["step"] == steps[0]]):
        draw_points(last, rows, "scale", "gain", look, label=f"{look.label.split()[0]}: measured")
        draw_points(
            last, rows, "scale", "prediction", look, label="predicted", marker="", linestyle=":"
        )
    last.set_xscale("log")
    last.set_yscale("log")
    last.set_xlabel("noise scale s")
    last.set_ylabel("gain in loss (nats)")
    last.set_title(f"Gain at step {steps[0]}")
    last.legend(fontsize=6.5, loc="upper left")
    caption(fig, f"{scale_of(frame)}; grey: within {tolerance:.0%}")
    return fig
