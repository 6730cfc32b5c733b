"""Each verdict of the mechanism follows from its frame: M1 to M5, and M7."""

import numpy as np
import pandas as pd
import pytest

from lgn_analysis.experiments.claims import (
    adam_epsilon,
    draws_per_step,
    gradient_sizes,
    hard_lemma,
    logit_scale,
    standing_still,
)
from lgn_analysis.experiments.claims.adam_epsilon import ARMS, DEFAULT, SMALL
from lgn_analysis.plots.claims import adam_epsilon as drawing
from lgn_analysis.plots.claims import draws_per_step as drawing_draws
from lgn_analysis.plots.claims import gradient_sizes as drawing_sizes
from lgn_analysis.plots.claims import hard_lemma as drawing_lemmas
from lgn_analysis.plots.claims import standing_still as drawing_still
from tests.experiments.synthetic import N_TEST, gap_rows, histories, outcomes, rows, spread

DEPTHS = (2, 4, 8, 10, 12)


def eps_frame(*, lost=0.0, unused=0.0, gap=0.0, glgn_at=500, dlgn_at=500, shallow=0.0):
    """What the small ε gains in deep DLGNs, and when methods reach their target with it."""
    made = []
    for arm in ARMS[:4]:
        for depth in DEPTHS:
            for row in rows([arm.relaxation], depth=depth, steps=1000):
                is_hurt = arm.eps == DEFAULT and arm.relaxation == "soft"
                is_deep = depth >= 10
                accuracy = 0.95 + spread(row["seed"]) / 10
                accuracy -= (lost if is_deep else shallow if depth <= 4 else 0.0) * is_hurt
                of_arm = {
                    **row,
                    "run": f"{arm.name} {depth} {row['seed']}",
                    "arm": arm.name,
                    "eps": arm.eps,
                    "n": N_TEST,
                    "gap_train": gap * is_hurt + spread(row["seed"]) / 100,
                }
                of_arm["gap"] = of_arm["gap_train"]
                at = dlgn_at if arm.relaxation == "soft" else glgn_at
                for step in range(0, 1001, 100):
                    reached = at is not None and step >= at
                    value = 0.95 if reached else 0.2
                    timed = {"step": step, "seconds": 0.01 * step, "discrete_accuracy": value}
                    made.append({**of_arm, **timed, "split": "val", "unused": np.nan})
                end = {"step": 1000, "seconds": 10.0, "split": "test"}
                share = 0.02 + unused * (is_hurt and is_deep)
                made.append({**of_arm, **end, "discrete_accuracy": accuracy, "unused": share})
    return pd.DataFrame(made)


def test_what_epsilon_does_to_deep_networks_alone_is_found():
    found = {
        verdict.claim.id: verdict
        for verdict in adam_epsilon.verdicts(eps_frame(lost=0.5, unused=0.4))
    }
    assert found["M2 accuracy"].outcome == found["M2 gates"].outcome == "supported"
    assert found["M2 accuracy"].effect == pytest.approx(50)
    assert found["M2 gates"].effect == pytest.approx(40)
    assert found["M2 shallow"].outcome == "supported"
    assert found["M2 shallow"].effect == pytest.approx(1.0)


def test_where_epsilon_is_no_matter_its_claims_fail():
    found = outcomes(adam_epsilon, eps_frame())
    assert found["M2 accuracy"] == found["M2 gates"] == found["M2 gap"] == "negligible"


def test_a_difference_in_shallow_networks_is_one_whichever_way():
    for difference in (0.03, -0.03):
        assert outcomes(adam_epsilon, eps_frame(shallow=difference))["M2 shallow"] == "reversed"


def test_a_gap_counts_where_both_are_trained():
    assert outcomes(adam_epsilon, eps_frame(gap=0.02))["M2 gap"] == "supported"
    # At 10 and 12 layers the default ε leaves it untrained: the depth of 8 decides.
    table = adam_epsilon.effects(eps_frame(gap=0.02, lost=0.5))
    assert len(table[table["claim"] == "M2 gap"]) == 6
    runs = eps_frame(gap=0.02, lost=0.5)
    assert outcomes(adam_epsilon, runs[runs["depth"] != 8])["M2 gap"] == "not testable here"


def test_an_untrained_network_decides_nothing():
    runs = eps_frame(lost=0.5)
    runs.loc[runs["eps"] == SMALL, "discrete_accuracy"] = 0.5
    assert outcomes(adam_epsilon, runs)["M2 accuracy"] == "not testable here"


def test_noise_that_is_faster_at_one_depth_is_found_with_its_depth():
    slow = eps_frame(dlgn_at=500, glgn_at=500)
    assert outcomes(adam_epsilon, slow)["M3"] == "negligible"
    fast = eps_frame(dlgn_at=500, glgn_at=200)
    runs = pd.concat([slow[slow["depth"] != 8], fast[fast["depth"] == 8]])
    (verdict,) = [v for v in adam_epsilon.verdicts(runs) if v.claim.id == "M3"]
    assert verdict.outcome == "supported"
    assert "best depth 8" in verdict.scale
    assert verdict.effect == pytest.approx(np.log(2.5))


def test_noise_that_never_arrives_is_not_faster():
    assert outcomes(adam_epsilon, eps_frame(glgn_at=None))["M3"] == "reversed"


def test_the_figure_draws_every_arm_at_every_depth():
    figure = drawing.figure(eps_frame(lost=0.5, unused=0.4))
    trained, used, gap = figure.axes
    for ax in (trained, used, gap):
        assert len(ax.containers) == 4
    means = {c.get_label(): c.lines[0].get_ydata() for c in trained.containers}
    assert means["DLGN, ε 1e-16"] == pytest.approx([0.95] * 5)
    assert means["DLGN, ε 1e-8"] == pytest.approx([0.95] * 3 + [0.45] * 2)


def size_frame(**factors):
    """Gradients a factor off the prediction in one layer of an arm."""
    made = []
    for arm in gradient_sizes.ARMS:
        for layer in range(3):
            for row in rows(["soft"]):
                predicted = 1e-6 * 5.0 ** (layer - 2)
                off = factors.get(arm, 1.0) if layer == 1 else 1.0
                measured = predicted * off * (1 + spread(row["seed"]))
                sizes = {"gradient_rms": measured, "predicted_rms": predicted}
                made.append({**row, "arm": arm, "layer": layer, "step": 0, **sizes})
    return pd.DataFrame(made)


def test_a_layer_whose_gradient_is_off_fails_its_arm_alone():
    found = outcomes(gradient_sizes, size_frame(residual=1.5))
    assert found == {"M1 soft": "supported", "M1 residual": "reversed", "M1 Gumbel-ST": "supported"}
    assert outcomes(gradient_sizes, size_frame(soft=1 / 1.5))["M1 soft"] == "reversed"
    table = gradient_sizes.effects(size_frame(residual=1.5))
    assert set(table.loc[table["claim"] == "M1 residual", "layer"]) == {1}


def test_the_figure_of_sizes_draws_points_and_predictions():
    figure = drawing_sizes.figure(size_frame(residual=1.5), tolerance=1.15)
    sizes, ratios = figure.axes[:2]
    assert len(sizes.containers) == len(ratios.containers) == 3
    of = {c.get_label(): c.lines[0].get_ydata() for c in ratios.containers}
    assert of["DLGN, residual initialisation"] == pytest.approx([1, 1.5, 1], rel=1e-6)


def lemma_frame(hard_error, lemma_error):
    made = []
    for row in rows(["soft", "gumbel-st"]):
        for step in (0, 100):
            gain = 0.1 + spread(row["seed"])
            made.append(
                {
                    **row,
                    "step": step,
                    "gain": gain,
                    "prediction": gain + hard_error,
                    "lemma_gain": 0.05,
                    "lemma_prediction": gain - lemma_error,
                }
            )
    return pd.DataFrame(made)


def test_the_lemma_that_errs_less_is_found():
    found = {v.claim.id: v for v in hard_lemma.verdicts(lemma_frame(0.01, 0.05))}
    assert {verdict.outcome for verdict in found.values()} == {"supported"}
    assert found["M7 DLGN"].effect == pytest.approx(0.04)
    assert set(outcomes(hard_lemma, lemma_frame(0.05, 0.01)).values()) == {"reversed"}
    assert set(outcomes(hard_lemma, lemma_frame(0.05, 0.05)).values()) == {"negligible"}


def test_the_figure_of_lemmas_draws_gains_and_predictions():
    figure = drawing_lemmas.figure(lemma_frame(0.01, 0.05))
    for ax in figure.axes[:2]:
        of = {c.get_label(): c.lines[0].get_ydata() for c in ax.containers}
        expected = np.array(of["measured: hard forward"], dtype=float) + 0.01
        assert np.allclose(
            np.array(of["hard lemma"], dtype=float), expected, rtol=1e-9, equal_nan=True
        )


def usage_frame(still, moving):
    """Shares of unused gates in two layers that were predicted to stand still and two that were not."""
    made = []
    for depth in (4, 8):
        for layer in range(4):
            for row in rows(["soft"], depth=depth):
                stands = depth == 8 and layer < 2
                unused = (still if stands else moving) + spread(row["seed"]) * stands
                made.append({**row, "layer": layer, "unused": unused, "stands_still": stands})
    return pd.DataFrame(made)


def test_unused_layers_are_held_against_those_that_stand_still():
    (verdict,) = standing_still.verdicts(usage_frame(0.9, 0.1))
    assert verdict.outcome == "supported"
    assert verdict.effect == pytest.approx(80)
    assert outcomes(standing_still, usage_frame(0.5, 0.5)) == {"M4": "negligible"}
    shallow = usage_frame(0.9, 0.1)
    assert outcomes(standing_still, shallow[shallow["depth"] == 4]) == {"M4": "not testable here"}


def test_layers_that_stand_still_are_shaded():
    frame = usage_frame(0.9, 0.1)
    (ax,) = drawing_still.figure(frame[frame["depth"] == 8]).axes
    assert ax.containers[0].lines[0].get_ydata() == pytest.approx([0.9, 0.9, 0.1, 0.1])
    (shade,) = ax.patches
    assert shade.get_x() + shade.get_width() == pytest.approx(2.5)


def draws_frame(at, *, depth=4):
    made = []
    for draws, step in at.items():
        made.append(histories({"gumbel-st": step}, depth=depth).assign(draws=draws))
    return pd.concat(made, ignore_index=True)


def test_more_draws_that_take_fewer_steps_are_found_with_their_depth():
    runs = pd.concat(
        [draws_frame({1: 800, 4: 400, 16: 100}), draws_frame({1: 500, 16: 500}, depth=2)]
    )
    (verdict,) = draws_per_step.verdicts(runs)
    assert verdict.outcome == "supported"
    assert "best depth 4" in verdict.scale
    assert np.exp(verdict.effect) == pytest.approx(8, rel=0.1)
    work = draws_per_step.effects(runs).set_index("depth")["work"]
    assert work[4].mean() == pytest.approx(0.5, rel=0.1)
    assert outcomes(draws_per_step, draws_frame({1: 500, 16: 500})) == {"M5": "negligible"}


def test_one_draw_that_never_arrives_gives_a_bound():
    (verdict,) = draws_per_step.verdicts(draws_frame({1: None, 16: 100}))
    assert verdict.outcome == "supported"
    assert np.isinf(verdict.high)
    assert "censored" in verdict.reason


def test_every_number_of_draws_is_a_curve():
    figure = drawing_draws.figure(draws_frame({1: 800, 4: 400, 16: 100}))
    labels = [line.get_label() for line in figure.axes[0].get_lines()]
    assert labels[:3] == ["1 draw a step", "4 draws a step", "16 draws a step"]


def scale_frame(gaps, *, accuracy=0.95):
    """Gaps of both methods by R, the width being 100 and the classes ten."""
    made = []
    for r, (soft, noisy) in gaps.items():
        made += gap_rows({"soft": soft, "gumbel-st": noisy}, group_tau=10 / r, accuracy=accuracy)
    frame = pd.DataFrame(made)
    return frame.assign(r=frame["width"] / 10 / frame["group_tau"])


def test_a_gap_that_grows_with_the_largest_logit_is_found():
    frame = scale_frame({10: (0.0, 0.0), 40: (0.02, 0.0), 160: (0.08, 0.0)})
    gap, _ = logit_scale.verdicts(frame)
    assert (gap.outcome, gap.effect) == ("supported", pytest.approx(8.0))
    assert "R 10–160" in gap.scale
    shrinking = scale_frame({10: (0.08, 0.0), 160: (0.0, 0.0)})
    assert outcomes(logit_scale, shrinking)["M9 gap"] == "reversed"
    assert (
        outcomes(logit_scale, scale_frame({10: (0.05, 0.0), 160: (0.05, 0.0)}))["M9 gap"]
        == "negligible"
    )
    assert (
        outcomes(logit_scale, scale_frame({10: (0.0, 0.0), 160: (0.0, 0.0)}))["M9 gap"]
        == "not testable here"
    )
    untrained = scale_frame({10: (0.0, 0.0), 160: (0.08, 0.0)}, accuracy=0.5)
    assert set(outcomes(logit_scale, untrained).values()) == {"not testable here"}


def test_what_noise_wins_at_the_largest_logit_is_read_there():
    frame = scale_frame({10: (0.0, 0.0), 160: (0.08, 0.0)})
    better = (frame["relaxation"] == "gumbel-st") & (frame["r"] > 100)
    frame.loc[better, "discrete_accuracy"] += 0.04
    _, noise = logit_scale.verdicts(frame)
    assert (noise.outcome, noise.effect) == ("supported", pytest.approx(4.0))
