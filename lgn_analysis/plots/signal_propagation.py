"""Gradients by layer, as ``lgn.signal_propagation`` measured them, against theory and Adam's ε."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from lgn_analysis.plots.style import GREY, as_frame, axes_or_new, by_method, legend_where_named


def signal_propagation(signal: Any, ax: Axes | None = None) -> Axes:
    """Draw the rms of ∂L/∂z over layers with its intervals, what theory predicts, and Adam's ε.

    Below ε, where it is shaded, Adam moves a parameter by ``lr·g/ε`` instead of lr.

    Args:
        signal: a ``SignalResult`` or its frame, or the frames of several relaxations, one below the other.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(signal)
    ax.set_yscale("log")
    for method_style, rows in by_method(frame):
        rows = rows.sort_values("layer")
        layers, rms = rows["layer"], rows["gradient_rms"]
        errors = [rms - rows["gradient_rms_low"], rows["gradient_rms_high"] - rms]
        look: dict[str, Any] = {
            "color": method_style.color,
            "marker": method_style.marker,
            "capsize": 2,
        }
        ax.errorbar(layers, rms, yerr=errors, linestyle="none", label=method_style.label, **look)
        ax.plot(layers, rows["predicted_rms"], color=method_style.color, linewidth=1.0)
    if frame["predicted_rms"].notna().any():
        ax.plot([], [], color=GREY, linewidth=1.0, label="mean field")
    for eps in frame["eps"].unique():
        _draw_epsilon(ax, eps)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer, from the input")
    ax.set_ylabel("rms of ∂L/∂z")
    legend_where_named(ax)
    return ax


def _draw_epsilon(ax: Axes, eps: float) -> None:
    """Draw Adam's ε, and shade what lies below."""
    bottom = min(ax.get_ylim()[0], eps / 10)
    ax.axhline(eps, color=GREY, linewidth=0.8, linestyle=":")
    ax.axhspan(bottom, eps, color=GREY, alpha=0.1, linewidth=0)
    ax.set_ylim(bottom=bottom)
    ax.annotate(
        "Adam's ε",
        (1, eps),
        xycoords=("axes fraction", "data"),
        xytext=(-3, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize="small",
        color=GREY,
    )
