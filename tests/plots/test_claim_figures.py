"""The figures of the claims show the numbers of their frames: read the artists, not the pixels."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats

import lgn_analysis as lgn
from lgn_analysis.plots.claims import (
    adam_epsilon,
    depth_gap,
    gap,
    landscape,
    temperature,
    unused_gates,
    where_it_pays,
)
from lgn_analysis.plots.style import METHOD_STYLES

SEEDS = range(5)
SHAPE = {
    "setting": "digits",
    "dataset": "digits",
    "floor": 0.9,
    "target": 0.9,
    "width": 100,
    "depth": 2,
    "group_tau": 5.0,
    "init": "normal",
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
                    "gap_train": 0.005 * depth,
                    "flips": 2 * depth,
                    "discrete_accuracy": 0.95 if trained else 0.2,
                }
            )
    return pd.DataFrame(made)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("gap", [2.2, 4.2]),
        ("gap_train", [1.0, 2.0]),
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


def gap_frame(**columns):
    shared = {"n": 200, "flips": 2, "gap_train": 0.1, "discrete_accuracy": 0.95, **columns}
    return pd.DataFrame(
        [row for step in (0, 10, 100) for row in rows(gap=0.001 * step, step=step, **shared)]
    )


def test_settings_have_a_row_each_named_in_its_first_title_and_a_caption_with_its_scale():
    other = {"setting": "mnist5k", "dataset": "mnist5k", "width": 4000, "group_tau": 30.0}
    figure = gap.figure(pd.concat([gap_frame(), gap_frame().assign(**other)]))
    assert len(figure.axes) == 6
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    assert [title.split(": ")[0] for title in titles[::3]] == ["digits", "mnist5k"]
    first, second, *_ = figure._supxlabel.get_text().split("\n")
    assert first.startswith("digits: digits, 2 × 100 gates, group_tau 5 (R 2, σ 0.316)")
    assert "2 × 4000 gates, group_tau 30 (R 13.3, σ 0.333), normal init, 100 steps; 5" in second


def test_the_gap_of_the_training_forward_comes_first_and_both_share_a_scale():
    first, second, _ = gap.figure(gap_frame()).axes
    assert first.get_ylabel() == "training − discrete (pp)"
    assert second.get_ylabel() == "soft − discrete (pp)"
    assert first.get_lines()[0].get_ydata() == pytest.approx([10.0, 10.0])
    assert second.get_lines()[0].get_ydata() == pytest.approx([1.0, 10.0])
    assert first.get_ylim() == second.get_ylim()


def test_a_method_that_never_trains_is_named_and_has_no_gap():
    frame = gap_frame()
    frame.loc[frame["relaxation"] == "gumbel-st", "discrete_accuracy"] = 0.1
    first = gap.figure(frame).axes[0]
    assert [text.get_text() for text in first.texts] == ["GLGN untrained: 10% at the end"]
    drawn = [line.get_label() for line in first.get_lines()]
    assert METHOD_STYLES["soft"].label in drawn
    assert METHOD_STYLES["gumbel-st"].label not in drawn


def test_sizes_at_which_a_method_is_untrained_are_named_in_the_gaps_alone():
    ends = ends_frame()
    accuracy, primary, secondary = depth_gap.figure(ends).axes
    said = [[text.get_text() for text in ax.texts] for ax in (accuracy, primary, secondary)]
    assert said == [[], ["GLGN untrained at 4"], ["GLGN untrained at 4"]]
    assert primary.get_ylim() == secondary.get_ylim()


def epsilon_frame():
    arms = {"DLGN, ε 1e-8": 0.2, "DLGN, ε 1e-16": 0.95, "GLGN, ε 1e-8": 0.21, "GLGN, ε 1e-16": 0.2}
    made = [
        {**row, "arm": arm, "split": "test", "step": 100, "discrete_accuracy": accuracy}
        for arm, accuracy in {**arms, "DLGN, residual": 0.94}.items()
        for depth in (4, 12)
        for row in rows(["soft"], depth=depth)
        if depth == 12 or arm in arms
    ]
    return pd.DataFrame(made).assign(unused=0.5, gap_train=0.02, gap=9.0)


def test_arms_are_named_at_the_ends_of_their_lines_apart_and_other_ways_in_the_caption():
    figure = adam_epsilon.figure(epsilon_frame())
    accuracy, _, gaps = figure.axes
    names = {text.get_text(): text.xy[1] for text in accuracy.texts}
    assert max(names, key=names.get) == "DLGN, ε 1e-16"
    assert np.diff(sorted(names.values())).min() > 0.08
    (drawn,) = gaps.containers
    assert drawn.get_label() == "DLGN, ε 1e-16"
    assert drawn.lines[0].get_ydata() == pytest.approx([2.0, 2.0])
    assert "at 12 layers and ε 1e-8: DLGN residual 94%" in figure._supxlabel.get_text()


def test_runs_without_the_target_are_bounds_at_their_last_step(ax):
    made = [
        {**row, "tau": tau, "run": f"{kind} {tau} {row['seed']}", "step": 100, "reached": reached}
        for kind, tau, reached in (("gumbel-st", 0.1, np.nan), ("gumbel-st", 1.0, 40.0), ("soft", 1.0, 20.0))
        for row in rows([kind])
    ]  # fmt: skip
    temperature.steps_by_tau(pd.DataFrame(made), ax)
    (drawn,) = ax.containers
    assert (drawn.lines[0].get_xdata(), drawn.lines[0].get_ydata()) == ([1.0], [40.0])
    (arrow,) = [line for line in ax.get_lines() if line.get_marker() == "^"]
    assert (arrow.get_xdata()[0], arrow.get_ydata()[0]) == (0.1, 100)
    assert [text.get_text() for text in ax.texts] == ["5 of 5 later"]
    (across,) = [line for line in ax.get_lines() if line.get_label() == "DLGN"]
    assert [*across.get_ydata()] == [20.0, 20.0]


def test_planes_of_both_methods_have_the_same_levels_and_one_colour_bar():
    line, grid = line_frame(), np.linspace(-1, 1, 5)
    planes = [
        {**row, "kind": "plane", "x": x, "y": y, "loss": height + x**2 + y**2,
         "x_direction": "a", "y_direction": "b"}
        for row, height in zip(rows(seeds=[0]), (1.0, 3.0), strict=True)
        for x in grid
        for y in grid
    ]  # fmt: skip
    lines = pd.concat([line, line.assign(kind="eigen")])
    figure = landscape.figure(pd.concat([lines, pd.DataFrame(planes)]))
    first, second, *_, bar = figure.axes
    levels = first.collections[0].levels
    assert levels.tolist() == second.collections[0].levels.tolist()
    assert levels[0] <= 1.0
    assert levels[-1] >= 5.0
    assert bar.get_ylabel() == "loss (nats)"


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
    lgn.plots.parts_over_tau(pd.DataFrame(made), ax, column="flips")
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
    *maps, bar = figure.axes
    assert len(maps) == 4
    assert "equal seconds, 200" in maps[3].get_title()
    assert len({axes.get_images()[0].get_clim() for axes in maps}) == 1
    assert bar.get_ylabel().startswith("GLGN − DLGN")


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
