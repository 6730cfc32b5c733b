"""Plots of the gap's anatomy show the numbers of the result."""

from __future__ import annotations

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lgn_analysis as lgn
from tests.tiny import random_bits

pytestmark = pytest.mark.xdist_group(__name__)  # a fixture for all of them, made once


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


@pytest.fixture(scope="module")
def anatomy() -> lgn.AnatomyResult:
    model = lgn.LogicNetwork(9, 12, 3, 3, 1.5, seed=5, dtype=torch.float64)
    return lgn.gap_anatomy(model, (random_bits(40, 9), torch.arange(40) % 3))


def line(ax: Axes, label: str):
    (found,) = [item for item in ax.get_lines() if item.get_label() == label]
    return found


@pytest.mark.parametrize("column", ["delta_loss", "flips", "accuracy", "loss"])
def test_curves_draw_each_scheme_by_the_layer_that_it_reaches(ax, anatomy, column):
    assert lgn.plots.anatomy_curves(anatomy, ax, column=column) is ax
    states = anatomy.states
    for label, scheme, layers in (
        ("1 to x", "from input", [0, 1, 2]),
        ("x to last", "from output", [2, 1, 0]),
        ("only x", "alone", [0, 1, 2]),
    ):
        rows = states[states["scheme"] == scheme].set_index("layer").loc[layers]
        assert line(ax, label).get_xdata().tolist() == [layer + 1 for layer in layers]
        assert line(ax, label).get_ydata().tolist() == rows[column].tolist()
    ends = line(ax, "1 to x").get_ydata()[-1], line(ax, "x to last").get_ydata()[-1]
    assert ends[0] == pytest.approx(ends[1])


def test_the_expansion_stands_beside_the_truth_for_each_layer_and_all(ax, anatomy):
    lgn.plots.anatomy_expansion(anatomy.to_frame(), ax)
    alone = anatomy.states[anatomy.states["scheme"] == "alone"]
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == [*alone["delta_loss"], anatomy.delta_loss]
    assert [*line(ax, "2nd order").get_ydata()] == [*alone["prediction"], anatomy.prediction]
    first = [*alone["first_order"], anatomy.whole["first_order"]]
    assert [*line(ax, "1st order").get_ydata()] == first
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "2", "3", "all"]


def test_bit_flips_are_drawn_by_layer(ax, anatomy):
    lgn.plots.bit_flips(anatomy, ax)
    other = lgn.plots.bit_flips(anatomy.layers, Figure().subplots())
    for axes in (ax, other):
        assert line(axes, "1 to x").get_ydata().tolist() == anatomy.layers["bit_flips"].tolist()
        assert line(axes, "only x").get_ydata().tolist() == anatomy.layers["own_bit_flips"].tolist()
