"""The figures of the claims show the numbers of their frames: read the artists, not the pixels."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats

import lgn_analysis as lgn
from lgn_analysis.plots.claims import gap, unused_gates, where_it_pays
from lgn_analysis.plots.style import METHOD_STYLES

SEEDS = range(5)
SHAPE = {
    "setting": "digits",
    "dataset": "digits",
    "floor": 0.9,
    "target": 0.9,
    "width": 100,
    "depth": 2,
    "steps": 100,
    "tau": 1.0,
}
PAIR = ("soft", "gumbel-st")


@pytest.fixture
def ax():
    return Figure().subplots()


def rows(kinds=PAIR, seeds=SEEDS, **columns):
    return [
        {**SHAPE, "relaxation": kind, "seed": seed, **columns} for kind in kinds for seed in seeds
    ]


def points(ax, label):
    """The means and the ends of the intervals of one method drawn by points."""
    (container,) = [item for item in ax.containers if item.get_label() == label]
    means = container.lines[0].get_ydata()
    ends = [segment[:, 1] for segment in container.lines[2][0].get_segments()]
    return means, ends


def ends_frame():
    made = []
    for depth in (2, 4):
        for row in rows(depth=depth):
            trained = not (row["relaxation"] == "gumbel-st" and depth == 4)
            made.append(
                {
                    **row,
                    "n": 200,
                    "gap": 0.01 * depth + 0.001 * row["seed"],
                    "gap_loss": -0.02 * depth,
                    "flips": 2 * depth,
                    "discrete_accuracy": 0.95 if trained else 0.2,
                }
            )
    return pd.DataFrame(made)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("gap", [2.2, 4.2]),
        ("gap_loss", [0.04, 0.08]),
        ("flips", [2.0, 4.0]),
        ("discrete_accuracy", [0.95, 0.95]),
    ],
)
def test_gaps_are_drawn_by_size_in_their_units(ax, column, expected):
    lgn.plots.gap_by_size(ends_frame(), ax, size="depth", column=column)
    means, _ = points(ax, METHOD_STYLES["soft"].label)
    assert means == pytest.approx(expected)


def test_the_gap_of_untrained_runs_is_left_out_and_their_accuracy_is_not(ax):
    lgn.plots.gap_by_size(ends_frame(), ax, column="gap")
    assert len(points(ax, METHOD_STYLES["gumbel-st"].label)[0]) == 1
    other = lgn.plots.gap_by_size(ends_frame(), Figure().subplots(), column="discrete_accuracy")
    assert points(other, METHOD_STYLES["gumbel-st"].label)[0] == pytest.approx([0.95, 0.2])


def test_intervals_are_those_of_the_seeds(ax):
    lgn.plots.gap_by_size(ends_frame(), ax, column="gap")
    values = [100 * (0.02 + 0.001 * seed) for seed in SEEDS]
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    _, ends = points(ax, METHOD_STYLES["soft"].label)
    assert ends[0] == pytest.approx(expected)


def test_several_settings_have_a_row_each_named_in_their_titles():
    base = pd.DataFrame(
        rows(n=200, gap=0.1, gap_loss=0.1, flips=2, step=100, deep=False, gap_train=0.1)
        + rows(n=200, gap=0.2, gap_loss=0.1, flips=2, step=0, deep=False, gap_train=0.1)
    )
    frame = pd.concat([base, base.assign(setting="mnist5k", dataset="mnist5k")])
    figure = gap.figure(frame)
    assert len(figure.axes) == 6
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    assert [title.split(":")[0] for title in titles] == ["digits"] * 3 + ["mnist5k"] * 3
    said = figure._supxlabel.get_text().replace("\n", " ")
    assert "n = 5 seeds" in said
    assert "2 × 100 gates" in said


def test_entropies_are_drawn_as_stairs_by_layer(ax):
    usage = pd.DataFrame(
        {
            "layer": [0, 1],
            "entropy_00": [0.25, 0.0],
            "entropy_01": [0.75, 1.0],
            "relaxation": "soft",
        }
    )
    lgn.plots.entropy_histograms(usage, ax)
    first, second = [patch for patch in ax.patches if hasattr(patch, "get_data")]
    assert first.get_data().values.tolist() == pytest.approx([0.3, 0.9])
    assert (second.get_data().values - 1).tolist() == pytest.approx([0.0, 0.9])
    assert first.get_data().edges.tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert unused_gates.UNUSED_ENTROPY in [line.get_xdata()[0] for line in ax.get_lines()]


def test_layers_and_the_whole_stand_apart_with_their_predictions(ax):
    made = []
    for row in rows(n_discrete=1, scheme="alone"):
        made += [{**row, "layer": layer, "delta_loss": layer + 1.0} for layer in (0, 1)]
        made.append({**row, "layer": 1, "scheme": "from input", "n_discrete": 2, "delta_loss": 5.0})
    frame = pd.DataFrame(made)
    frame["prediction"] = 2 * frame["delta_loss"]
    lgn.plots.layer_changes(frame, ax)
    assert points(ax, METHOD_STYLES["soft"].label)[0] == pytest.approx([1.0, 2.0, 5.0])
    crosses = [line for line in ax.get_lines() if line.get_marker() == "x"]
    assert crosses[0].get_ydata().tolist() == [2.0, 4.0, 10.0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "2", "all"]


def line_frame():
    x = np.linspace(-1, 1, 5)
    made = []
    for row in rows(kind="filter"):
        for direction in (0, 1):
            for point in x:
                loss = 1.0 + (1 + direction) * point**2
                bend = np.nan if abs(point) == 1 else 2.0 * (1 + direction)
                made.append({**row, "direction": direction, "x": point, "loss": loss, "bend": bend})
    return pd.DataFrame(made)


def test_the_increase_and_the_curvature_of_lines_are_means_over_directions(ax):
    lgn.plots.loss_along(line_frame(), ax)
    assert ax.get_lines()[0].get_ydata() == pytest.approx([1.5, 0.375, 0.0, 0.375, 1.5])
    other = lgn.plots.curvature_along(line_frame(), Figure().subplots())
    assert other.get_lines()[0].get_ydata() == pytest.approx([3.0] * 3)
    assert other.get_yscale() == "log"


def test_orders_of_the_lemma_are_told_apart_by_line(ax):
    made = [
        {**row, "scale": scale, "ratio": 2.0, "ratio_3": 1.5, "ratio_4": 1.0 + scale}
        for row in rows(["soft"])
        for scale in (0.5, 1.0)
    ]
    lgn.plots.lemma_orders(pd.DataFrame(made), ax)
    drawn = {line.get_label(): line for line in ax.get_lines()}
    assert drawn["order 2 (the lemma)"].get_ydata().tolist() == [2.0, 2.0]
    assert drawn["order 4"].get_ydata().tolist() == [1.5, 2.0]
    assert len({drawn[name].get_linestyle() for name in drawn if "order" in name}) == 3


def test_extra_seconds_are_medians_of_ratios_within_rounds(ax):
    made = [
        {**row, "round": number, "seconds": factor * (1 + number)}
        for kind, factor in (("soft", 1.0), ("gumbel-soft", 1.05), ("gumbel-st", 0.5))
        for row in rows([kind])
        for number in range(3)
    ]
    lgn.plots.extra_seconds(pd.DataFrame(made), ax)
    assert points(ax, METHOD_STYLES["gumbel-soft"].label)[0] == pytest.approx([5.0])
    assert points(ax, METHOD_STYLES["gumbel-st"].label)[0] == pytest.approx([-50.0])


@pytest.mark.parametrize("taus", [(1.0,), (0.5, 1.0)])
def test_methods_stand_over_tau_or_side_by_side(ax, taus):
    made = [
        {**row, "n": 200, "flips": 4 * (1 + index), "gap_loss": -0.1, "discrete_accuracy": 0.9}
        for index, kind in enumerate(("soft", "hard-st", "cage"))
        for tau in taus
        for row in rows([kind], tau=tau)
    ]
    lgn.plots.parts_over_tau(pd.DataFrame(made), ax)
    assert points(ax, "soft")[0] == pytest.approx([2.0] * len(taus))
    assert points(ax, "CAGE")[0] == pytest.approx([6.0] * len(taus))
    if len(taus) == 1:
        assert [text.get_text() for text in ax.get_xticklabels()] == ["soft", "hard ST", "CAGE"]


def cells():
    made = []
    for row in rows(["pair"], width=100, depth=2) + rows(["pair"], width=200, depth=2):
        won = row["width"] == 200
        difference = (0.02 if won else -0.02) + 0.001 * row["seed"]
        made.append({**row, "dlgn": 0.95, "glgn": 0.95 + difference, "init": "normal"})
    made += [{**row, "dlgn": 0.2, "glgn": 0.1, "init": "normal"} for row in rows(["p"], depth=4)]
    return pd.DataFrame(made)


def test_the_map_says_who_wins_and_how_sure_it_is(ax):
    lgn.plots.winner_map(cells(), ax, reach=4)
    (image,) = ax.get_images()
    values = image.get_array()
    assert values[0].tolist() == pytest.approx([-1.8, 2.2])
    assert values.mask[1].all() or np.isnan(np.asarray(values[1], dtype=float)).all()
    texts = {text.get_position(): text for text in ax.texts}
    assert texts[(1, 0)].get_text() == "+2.2"
    assert texts[(1, 0)].get_fontweight() == "bold"
    assert texts[(0, 1)].get_text() == "–"
    blue = to_hex(image.cmap(image.norm(4.0)))
    assert int(blue[5:], 16) > int(blue[1:3], 16)


def test_a_map_has_a_row_a_comparison_and_a_column_a_length():
    frame = pd.concat(
        [
            cells().assign(comparison=comparison, steps=steps)
            for comparison in ("steps", "seconds")
            for steps in (100, 200)
        ]
    )
    figure = where_it_pays.figure(frame)
    assert len(figure.axes) == 4
    assert "equal seconds, 200" in figure.axes[3].get_title()


def test_checkpoints_are_drawn_against_their_prediction_hollow_where_untrained(ax):
    frame = pd.DataFrame(
        {
            "relaxation": "soft",
            "delta_loss": [-0.1, 0.2, 0.3],
            "prediction": [-0.2, 0.1, 0.3],
            "trace_z": [1.0, 2.0, 3.0],
            "discrete_accuracy": [0.9, 0.9, 0.1],
        }
    )
    lgn.plots.change_against(frame, ax)
    filled, hollow = ax.collections
    assert filled.get_offsets().tolist() == [[-0.2, -0.1], [0.1, 0.2]]
    assert hollow.get_offsets().tolist() == [[0.3, 0.3]]
    assert len(hollow.get_facecolors()) == 0
    other = lgn.plots.change_against(frame, Figure().subplots(), column="trace_z")
    assert other.collections[0].get_offsets()[:, 1].tolist() == [0.1, 0.2]


def test_every_method_has_a_look_of_its_own():
    looks = list(METHOD_STYLES.values())
    for attribute in ("color", "linestyle", "marker", "label"):
        assert len({str(getattr(method_style, attribute)) for method_style in looks}) == len(
            looks
        ), attribute
