"""Signals by layer: points with intervals, the predicted line, and what lies below Adam's ε."""

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lgn_analysis as lgn
from lgn_analysis.plots.style import METHOD_STYLES


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def table(relaxation="soft", scale=1.0, predicted=True) -> pd.DataFrame:
    rms = [scale * 10.0**-k for k in (12, 9, 6)]
    frame = pd.DataFrame({"layer": range(3), "gradient_rms": rms, "relaxation": relaxation})
    return frame.assign(
        gradient_rms_low=0.5 * frame["gradient_rms"],
        gradient_rms_high=2.0 * frame["gradient_rms"],
        predicted_rms=1.1 * frame["gradient_rms"] if predicted else float("nan"),
        eps=1e-8,
    )


def test_points_intervals_and_prediction_are_those_of_the_frame(ax):
    assert lgn.plots.signal_propagation(table(), ax) is ax
    (bars,) = ax.containers
    points, _, (segments,) = bars.lines
    assert points.get_ydata() == pytest.approx([1e-12, 1e-9, 1e-6])
    ends = [segment[:, 1].tolist() for segment in segments.get_segments()]
    assert ends[0] == pytest.approx([0.5e-12, 2e-12])
    prediction = ax.get_lines()[-3]  # before the legend's grey line and ε
    assert prediction.get_ydata() == pytest.approx([1.1e-12, 1.1e-9, 1.1e-6])
    assert prediction.get_color() == points.get_color() == METHOD_STYLES["soft"].color
    assert ax.get_yscale() == "log"


def test_what_lies_below_epsilon_is_shaded(ax):
    lgn.plots.signal_propagation(table(scale=1e5), ax)
    (shade,) = ax.patches
    bottom, top = ax.get_ylim()
    assert shade.get_y() == bottom < 1e-8 < top
    assert shade.get_y() + shade.get_height() == pytest.approx(1e-8)
    assert any(list(line.get_ydata()) == [1e-8, 1e-8] for line in ax.get_lines())


def test_relaxations_are_told_apart_and_no_prediction_is_no_line(ax):
    frames = [table(name, scale, predicted=False) for name, scale in (("soft", 1), ("cage", 2))]
    lgn.plots.signal_propagation(pd.concat(frames), ax)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [METHOD_STYLES[name].label for name in ("soft", "cage")]
    assert len(ax.patches) == 1
