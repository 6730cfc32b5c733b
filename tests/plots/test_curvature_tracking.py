"""Plots of tracked curvature show the numbers of the probes, with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

import lgn_analysis as lgn
from lgn_analysis.plots.style import METHOD_STYLES
from tests.tiny import fresh, short


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def table(steps=(0, 10, 20), scale=1.0, **columns) -> pd.DataFrame:
    frame = pd.DataFrame({"step": steps, "trace": [scale * (1 + step) for step in steps]})
    return frame.assign(
        trace_low=frame["trace"] - 0.5, trace_high=frame["trace"] + 0.5, lambda_min=-1.0, **columns
    )


def test_the_trace_is_drawn_with_its_interval(ax):
    assert lgn.plots.curvature_curves(table(), ax) is ax
    curve = ax.get_lines()[0]
    assert curve.get_xdata().tolist() == [0, 10, 20]
    assert curve.get_ydata().tolist() == [1, 11, 21]
    (band,) = ax.collections
    vertices = {tuple(v) for v in band.get_paths()[0].vertices}
    assert {(0, 0.5), (0, 1.5), (20, 20.5), (20, 21.5)} <= vertices
    assert ax.get_ylabel() == "tr(H) in z"
    assert ax.get_xscale() == "linear"


def test_a_tracker_its_history_and_the_result_of_the_run_draw_alike(separable_data):
    tracker = lgn.ProbeTracker(separable_data, every=2, n_samples=20, prefix="p_")
    result = short(fresh(), separable_data, callbacks=[tracker])
    drawn = []
    for thing, prefix in ((tracker, ""), (result.history, "p_"), (result, "p_")):
        ax = lgn.plots.curvature_curves(thing, Figure().subplots(), prefix=prefix)
        drawn.append([axis.tolist() for axis in ax.get_lines()[0].get_data()])
        assert len(ax.collections) == 1
    assert drawn[0] == drawn[1] == drawn[2]
    assert drawn[0] == [[0, 14, 28], tracker.to_frame()["trace"].tolist()]


def test_several_seeds_are_drawn_by_their_mean_and_interval(ax):
    runs = [
        table(scale=scale, relaxation=kind, seed=seed)
        for kind in ("soft", "gumbel-st")
        for seed, scale in enumerate((1.0, 2.0, 4.0))
    ]
    lgn.plots.curvature_curves(pd.concat(runs), ax)
    (drawn,) = [item for item in ax.containers if item.get_label() == METHOD_STYLES["soft"].label]
    expected = [7 / 3, np.nan, 77 / 3, 147 / 3]  # no line from step 0 to the next
    assert drawn.lines[0].get_ydata() == pytest.approx(expected, nan_ok=True)
    ends = stats.t.interval(0.95, 2, 7 / 3, stats.sem([1.0, 2.0, 4.0]))
    assert drawn.lines[2][0].get_segments()[0][:, 1] == pytest.approx(ends)
    assert len(ax.get_legend().get_texts()) == 2


def test_other_columns_have_no_band_and_long_runs_a_logarithmic_axis(ax):
    lgn.plots.curvature_curves(table(steps=(0, 100, 20_000)), ax, column="lambda_min")
    assert ax.get_lines()[0].get_ydata().tolist() == [-1.0] * 3
    assert not ax.collections
    assert ax.get_ylabel() == "smallest eigenvalue"
    assert ax.get_xscale() == "symlog"
