"""Plots of landscapes show the numbers of the slice."""

from __future__ import annotations

import numpy as np
import pandas as pd
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
def model() -> lgn.LogicNetwork:
    return lgn.LogicNetwork(9, 12, 2, 3, 1.5, seed=5, dtype=torch.float64)


DATA = random_bits(40, 9), torch.arange(40) % 3


def test_a_slice_in_one_dimension_is_a_line_through_the_model(ax, model):
    found = lgn.landscape(model, DATA, dims=1, grid=7)
    assert lgn.plots.landscape_slice(found, ax) is ax
    curve, mark = ax.get_lines()
    assert curve.get_xdata().tolist() == found.coordinates[0].tolist()
    assert curve.get_ydata().tolist() == found.loss.tolist()
    assert [*mark.get_xdata()] == [0, 0]
    assert ax.get_xlabel() == "random direction 1"
    assert ax.get_legend() is None


def test_several_methods_are_drawn_over_one_another(ax, model):
    frames = [
        lgn.landscape(model, DATA, dims=1, grid=5, seed=seed).to_frame().assign(relaxation=kind)
        for seed, kind in enumerate(("soft", "gumbel-st"))
    ]
    lgn.plots.landscape_slice(pd.concat(frames), ax, column="accuracy")
    drawn = [line.get_ydata().tolist() for line in ax.get_lines()[:2]]
    assert drawn == [frame["accuracy"].tolist() for frame in frames]
    assert len(ax.get_legend().get_texts()) == 2


def test_contours_lie_where_the_loss_has_their_level(ax, model):
    found = lgn.landscape(model, DATA, grid=9)
    lgn.plots.landscape_slice(found, ax)
    filled, lines = ax.collections
    assert lines.levels.tolist() == filled.levels.tolist()
    x, y = found.coordinates
    inside = 0
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        for px, py in path.vertices:
            # Contours run along edges of the grid, where they interpolate linearly.
            across = [np.interp(py, y, row) for row in found.loss]
            assert np.interp(px, x, across) == pytest.approx(level, abs=0.02 * np.ptp(found.loss))
            inside += 1
    assert inside > 20
    (cross,) = ax.get_lines()
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (0, 0)
    assert ax.get_ylabel() == "random direction 2"
    assert ax.figure.axes[1].get_ylabel() == "loss (nats)"


def test_the_way_to_the_discrete_network_says_so(ax, model):
    lgn.plots.landscape_slice(lgn.landscape(model, DATA, directions="discrete", grid=3), ax)
    assert ax.get_xlabel() == "t (0: soft, 1: discrete)"
