"""Plots show the numbers of the frame: read the artists, not the pixels."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

import lgn_analysis as lgn
from lgn_analysis.plots.style import METHOD_STYLES, style, summarise

STEPS = [0, 10, 20]


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def history():
    rows = [
        {
            "relaxation": kind,
            "seed": seed,
            "split": split,
            "step": step,
            "steps": 20,
            "seconds": step * (1 + seed),
            "tau": 1.0,
            "soft_accuracy": 0.5 + 0.01 * step + 0.001 * seed,
            "discrete_accuracy": 0.4 + 0.01 * step + 0.002 * seed,
            "gap": 0.1 - 0.001 * seed,
            "gap_loss": 0.2,
        }
        for kind in ("soft", "gumbel-st")
        for seed in range(3)
        for split in ("val", "test")
        for step in STEPS
    ]
    return pd.DataFrame(rows)


def line(ax, label):
    (found,) = [item for item in ax.get_lines() if item.get_label() == label]
    return found


def test_a_summary_is_the_t_interval_over_seeds():
    values = [1.0, 2.0, 4.0]
    table = summarise(pd.DataFrame({"x": 0, "y": values}), "x", "y")
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (table["low"][0], table["high"][0]) == pytest.approx(expected)


def test_a_single_seed_has_no_interval():
    table = summarise(pd.DataFrame({"x": [0, 1], "y": [1.0, 2.0]}), "x", "y")
    assert table["low"].to_list() == table["high"].to_list() == [1.0, 2.0]


def test_accuracy_curves_draw_the_mean_of_each_method(ax, history):
    lgn.plots.accuracy_curves(history, ax, split="test")
    drawn = line(ax, f"{METHOD_STYLES['soft'].label}, discrete")
    measured = STEPS[1:]  # nothing was measured between step 0 and the first after it
    assert drawn.get_xdata().tolist() == measured
    assert drawn.get_ydata() == pytest.approx([0.4 + 0.01 * step + 0.002 for step in measured])
    assert len(ax.collections) == 4  # a band for each method and accuracy


def test_the_gap_is_drawn_in_percentage_points(ax, history):
    lgn.plots.gap_curves(history, ax)
    assert line(ax, METHOD_STYLES["gumbel-st"].label).get_ydata() == pytest.approx([9.9] * 2)
    assert ax.get_ylabel().endswith("(pp)")


def test_a_plain_history_of_one_run_is_drawn_too(ax, history):
    plain = history[(history["relaxation"] == "soft") & (history["seed"] == 0)]
    lgn.plots.gap_curves(plain.drop(columns=["relaxation", "seed"]), ax)
    assert ax.get_lines()[0].get_ydata() == pytest.approx([10.0] * 2)


def test_unused_gates_are_drawn_by_layer_from_one(ax):
    usage = pd.DataFrame({"layer": [0, 1], "unused": [0.25, 0.5], "relaxation": "soft"})
    lgn.plots.unused_by_layer(usage, ax)
    (bars,) = [c for c in ax.containers if c.get_label() == METHOD_STYLES["soft"].label]
    assert bars.lines[0].get_xdata().tolist() == [1, 2]
    assert bars.lines[0].get_ydata().tolist() == [0.25, 0.5]


def test_the_smoothed_density_integrates_to_one(ax):
    frame = pd.DataFrame({"node": [-1.0, 0.0, 2.0], "weight": [0.2, 0.5, 0.3]})
    lgn.plots.density_curve(frame, ax, width=0.02)
    curve = ax.get_lines()[0]
    area = np.trapezoid(curve.get_ydata(), curve.get_xdata())
    assert area == pytest.approx(1, abs=1e-3)


def test_the_lemma_of_one_run_has_its_own_intervals(ax):
    frame = pd.DataFrame(
        {
            "scale": [0.1, 1.0],
            "ratio": [1.0, 2.0],
            "ratio_low": [0.9, 1.5],
            "ratio_high": [1.1, 2.5],
        }
    )
    lgn.plots.lemma_ratio(frame, ax)
    (container,) = ax.containers
    segments = container.lines[2][0].get_segments()
    assert [tuple(s[:, 1]) for s in segments] == [(0.9, 1.1), (1.5, 2.5)]


def test_traces_are_drawn_in_the_coordinate_that_is_asked_for_with_step_0_apart(ax):
    frame = pd.DataFrame(
        {"step": [0, 1, 2], "trace_z": [1.0, 2.0, 3.0], "trace_u": [4.0, 8.0, 9.0]}
    )
    lgn.plots.trace_curves(frame, ax, column="trace_u")
    drawn = ax.containers[0].lines[0].get_ydata()
    assert drawn[[0, 2, 3]].tolist() == [4.0, 8.0, 9.0]
    assert np.isnan(drawn[1])  # which breaks the line
    assert "z / tau" in ax.get_ylabel()
    assert ax.get_xlabel() == "training step (linear to 1)"


def test_the_training_forward_is_the_noisy_one_of_what_trains_with_noise(ax, history):
    noisy = history["relaxation"] == "gumbel-st"
    frame = history.assign(noisy_accuracy=np.where(noisy, 0.3, np.nan))
    lgn.plots.accuracy_curves(frame, ax, split="test", beside="training")
    ends = {
        kind: line(ax, f"{METHOD_STYLES[kind].label}, training").get_ydata()[-1]
        for kind in ("soft", "gumbel-st")
    }
    assert ends == pytest.approx({"soft": 0.701, "gumbel-st": 0.3})


def test_best_and_final_accuracy_stand_over_tau_with_the_noise_free_one_across(ax, history):
    fallen = (history["step"] == 10) & (history["relaxation"] == "gumbel-st")
    frame = history.assign(discrete_accuracy=history["discrete_accuracy"] + 0.3 * fallen)
    lgn.plots.accuracy_by_tau(frame, ax)
    drawn = {c.get_label(): c.lines[0].get_ydata() for c in ax.containers}
    assert drawn["GLGN, final"] == pytest.approx([0.602])
    assert drawn["GLGN, best"] == pytest.approx([0.802])
    assert [*line(ax, "DLGN, final").get_ydata()] == pytest.approx([0.602] * 2)


def test_the_style_ends_with_its_context():
    before = mpl.rcParams["font.size"]
    with style():
        assert mpl.rcParams["font.size"] != before
    assert mpl.rcParams["font.size"] == before


def test_without_axes_a_new_figure_is_made(history):
    from matplotlib import pyplot as plt

    ax = lgn.plots.gap_curves(history)
    assert ax.figure in [plt.figure(number) for number in plt.get_fignums()]
    plt.close(ax.figure)


def test_drawing_an_empty_grid_of_methods_keeps_their_order(ax, history):
    lgn.plots.gap_curves(history, ax)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [METHOD_STYLES["soft"].label, METHOD_STYLES["gumbel-st"].label]


def test_the_style_leaves_pyplot_as_it_was_set_up_inside():
    # What a notebook does when pyplot is first used; a figure in a later cell would not be shown.
    before = mpl.rcParams["interactive"], mpl.rcParams["font.size"]
    try:
        with lgn.plots.style():
            mpl.rcParams["interactive"] = not before[0]
        assert mpl.rcParams["interactive"] is not before[0]
        assert mpl.rcParams["font.size"] == before[1]
    finally:
        mpl.rcParams["interactive"] = before[0]
