"""Where the discretization gap comes from: by layers, by order of the expansion, and in bits."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lgn_analysis.plots.layout import setting_rows
from lgn_analysis.plots.style import (
    GREY,
    MethodStyle,
    as_frame,
    axes_or_new,
    by_method,
    draw_line,
    draw_points,
    level_line,
    percent_axis,
)

_SCHEMES: Final = {
    "from input": MethodStyle("1 to x", "#0072B2", "-", "o"),
    "from output": MethodStyle("x to last", "#D55E00", "--", "s"),
    "alone": MethodStyle("only x", "#000000", "", "D"),
}
_COLUMNS: Final = {
    "delta_loss": "loss − soft loss (nats)",
    "loss": "loss (nats)",
    "accuracy": "accuracy",
    "flips": "predictions that flip",
}
_BITS: Final = {
    "bit_flips": MethodStyle("1 to x", "#0072B2", "-", "o"),
    "own_bit_flips": MethodStyle("only x", "#000000", "--", "D"),
}
_WIDTH: Final = 0.6


def anatomy_curves(anatomy: Any, ax: Axes | None = None, *, column: str = "delta_loss") -> Axes:
    """Draw what it costs to make layers discrete, up to each layer, from it on, and alone.

    Args:
        anatomy: an ``AnatomyResult`` or its frame.
        ax: where to draw; None makes a new figure.
        column: ``"delta_loss"``, ``"loss"``, ``"accuracy"`` or ``"flips"``.
    """
    ax = axes_or_new(ax)
    frame = as_frame(anatomy)
    frame = frame[frame["n_discrete"] > 0]
    for scheme, method_style in _SCHEMES.items():
        rows = frame[frame["scheme"] == scheme]
        _draw_layers(ax, rows, column, method_style, hollow=scheme == "alone")
    if column in ("delta_loss", "flips"):
        level_line(ax, 0, zorder=0)
    if column == "accuracy":
        percent_axis(ax)
    if column == "flips":
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    _layer_axis(ax)
    ax.set_ylabel(_COLUMNS.get(column, column))
    _legend_above(ax, "discrete layers", columns=3)
    return ax


def anatomy_expansion(anatomy: Any, ax: Axes | None = None) -> Axes:
    """Draw the true change in loss of each layer made discrete alone, and of all, beside Taylor's.

    Args:
        anatomy: an ``AnatomyResult`` or its frame.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = as_frame(anatomy)
    alone = frame[frame["scheme"] == "alone"].sort_values("layer")
    whole = frame[frame["scheme"] == "from input"].nlargest(1, "n_discrete")
    rows = pd.concat([alone, whole])
    places = [*range(1, len(alone) + 1), len(alone) + 2]  # a gap sets the whole network apart
    ax.bar(places, rows["delta_loss"], _WIDTH, color="#BBBBBB", edgecolor=GREY, label="true")
    ax.plot(
        places, rows["first_order"], linestyle="", marker="s", color="#D55E00",
        markerfacecolor="white", label="1st order",
    )  # fmt: skip
    ax.plot(
        places, rows["prediction"], linestyle="", marker="o", color="#0072B2",
        label="2nd order",
    )  # fmt: skip
    level_line(ax, 0)
    _change_axes(ax, len(alone))
    _legend_above(ax, None, columns=3)
    return ax


def bit_flips(anatomy: Any, ax: Axes | None = None) -> Axes:
    """Draw the share of activations on the other side of ½ from the discrete network's bit.

    Args:
        anatomy: an ``AnatomyResult`` or its ``layers``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    frame = anatomy if isinstance(anatomy, pd.DataFrame) else anatomy.layers
    for column, method_style in _BITS.items():
        _draw_layers(ax, frame, column, method_style, hollow=column == "own_bit_flips")
    _bits_axis(ax)
    _legend_above(ax, "soft layers", columns=2)
    return ax


def figure(frame: pd.DataFrame) -> Figure:
    """Return the figure, a row a setting: layers made discrete alone, early and late; flipped bits."""
    note = "training samples; cross: second-order prediction, mean over seeds"
    return setting_rows(frame, 3, _row, height=2.4, note=note)


def _row(part: pd.DataFrame, axes: list[Axes]) -> list[str]:
    first, last = part["step"].min(), part["step"].max()
    for ax, step in zip(axes, (first, last), strict=False):
        layer_changes(part[part["step"] == step], ax)
    bits = axes[2]
    alone = part[(part["step"] == first) & (part["scheme"] == "alone")]
    for method_style, method in by_method(alone.assign(number=alone["layer"] + 1)):
        draw_points(bits, method, "number", "bit_flips", method_style)
    _bits_axis(bits)
    return [f"loss, step {first}", f"loss, step {last}", f"bits, step {first}"]


def layer_changes(anatomies: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the change in loss of each layer made discrete alone, and of all, by method over seeds.

    Args:
        anatomies: states of anatomies, the layers alone and the whole, with ``relaxation`` and ``seed``.
        ax: where to draw; None makes a new figure.
    """
    ax = axes_or_new(ax)
    depth = int(anatomies["n_discrete"].max())
    whole = anatomies["scheme"] != "alone"
    place = (anatomies["layer"] + 1).where(~whole, depth + 2)  # a gap sets the whole apart
    methods = list(by_method(anatomies.assign(place=place)))
    for index, (method_style, rows) in enumerate(methods):
        shifted = rows.assign(place=rows["place"] + 0.16 * (index - (len(methods) - 1) / 2))
        draw_points(ax, shifted, "place", "delta_loss", method_style, linestyle="")
        predicted = shifted.groupby("place")["prediction"].mean()
        ax.plot(
            predicted.index, predicted, linestyle="", marker="x", markersize=5, color="#000000",
            markeredgewidth=0.8, label="_", zorder=5,
        )  # fmt: skip
    level_line(ax, 0, zorder=0)
    _change_axes(ax, depth)
    ax.legend(fontsize=7)
    return ax


def _draw_layers(
    ax: Axes, rows: pd.DataFrame, column: str, method_style: MethodStyle, *, hollow: bool
) -> None:
    face = "white" if hollow else method_style.color
    look = {"marker": method_style.marker, "markerfacecolor": face}
    draw_line(ax, rows["layer"] + 1, rows[column], method_style, **look)


def _change_axes(ax: Axes, depth: int) -> None:
    ax.set_xticks([*range(1, depth + 1), depth + 2], [*map(str, range(1, depth + 1)), "all"])
    ax.set_xlabel("discrete layer (1 = input)")
    ax.set_ylabel("change in loss (nats)")


def _bits_axis(ax: Axes) -> None:
    _layer_axis(ax)
    ax.set_ylabel("bits that flip")
    ax.set_ylim(bottom=0)
    percent_axis(ax)


def _layer_axis(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer x (1 = input)")


def _legend_above(ax: Axes, title: str | None, *, columns: int) -> None:
    """Put the legend above the axes: curves of either sign leave no corner free for sure."""
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncol=columns,
        fontsize=7.5,
        columnspacing=0.8,
        handlelength=1.4,
        handletextpad=0.4,
        borderaxespad=0.2,
        borderpad=0,
        title=title,
        title_fontsize=7.5,
        alignment="left",
    )
