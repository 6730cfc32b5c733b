"""Each verdict follows from its frame, over sizes and methods: C4, C5, C6, C11, C12, C13, C14."""

import numpy as np
import pandas as pd
import pytest

from lgn_analysis.experiments.claims import (
    curvature_gap,
    depth_gap,
    overhead,
    parts,
    st_ablation,
    where_it_pays,
    width_gap,
)
from tests.experiments.synthetic import N_TEST, SEEDS, gap_rows, histories, outcomes, rows, spread


def depth_frame(growth, *, untrained=()):
    made = []
    for depth in (2, 4, 6, 8):
        for kind, slope in growth.items():
            accuracy = 0.5 if (kind, depth) in untrained else 0.95
            made += gap_rows({kind: 0.01 + slope * depth}, depth=depth, accuracy=accuracy)
    return pd.DataFrame(made)


def test_a_gap_that_grows_with_depth_without_noise_alone_is_found():
    frame = depth_frame({"soft": 0.01, "gumbel-st": 0.0})
    verdicts = {verdict.claim.id: verdict for verdict in depth_gap.verdicts(frame)}
    assert {verdict.outcome for verdict in verdicts.values()} == {"supported"}
    assert verdicts["C4 gap"].effect == pytest.approx(1.0)  # pp a layer
    assert verdicts["C4 loss"].effect == pytest.approx(0.01)


def test_a_gap_that_grows_with_noise_fails_and_one_that_grows_for_both_too():
    assert outcomes(depth_gap, depth_frame({"soft": 0.0, "gumbel-st": 0.01})) == {
        "C4 gap": "reversed",
        "C4 soft gap": "reversed",
        "C4 loss": "reversed",
        "C4 flips": "reversed",
        "C4 growth": "negligible",
    }
    both = outcomes(depth_gap, depth_frame({"soft": 0.01, "gumbel-st": 0.01}))
    assert (both["C4 gap"], both["C4 growth"]) == ("negligible", "supported")
    none = depth_frame({"soft": -0.0015, "gumbel-st": -0.0015})
    assert outcomes(depth_gap, none.assign(gap_train=0.0))["C4 gap"] == "not testable here"


def test_slopes_leave_out_depths_at_which_one_method_is_untrained():
    growth = {"soft": 0.01, "gumbel-st": 0.0}
    table = depth_gap.effects(depth_frame(growth, untrained=[("gumbel-st", 8)]))
    of_pair = table["claim"] != "C4 growth"
    assert set(table.loc[of_pair, "depths"]) == {"2 4 6"}
    assert set(table.loc[~of_pair, "depths"]) == {"2 4 6 8"}
    assert table["counts"].all()
    few = depth_frame(growth, untrained=[("gumbel-st", 8), ("gumbel-st", 6)])
    found = outcomes(depth_gap, few)
    assert found.pop("C4 growth") == "supported"
    assert set(found.values()) == {"not testable here"}


def test_a_depth_is_used_by_all_seeds_or_by_none():
    frame = depth_frame({"soft": 0.01, "gumbel-st": 0.0})
    one = (frame["seed"] == 0) & (frame["depth"] == 8) & (frame["relaxation"] == "gumbel-st")
    frame.loc[one, "discrete_accuracy"] = 0.5
    assert set(depth_gap.effects(frame)["depths"]) == {"2 4 6 8"}
    most = (frame["seed"] < 4) & (frame["depth"] == 8)
    frame.loc[most, "discrete_accuracy"] = 0.5
    assert set(depth_gap.effects(frame)["depths"]) == {"2 4 6"}


def width_frame(gaps_by_width, **columns):
    return pd.DataFrame(
        [
            row
            for width, gaps in gaps_by_width.items()
            for row in gap_rows(gaps, width=width, **columns)
        ]
    )


def test_the_widest_network_decides_and_every_width_is_listed():
    frame = width_frame(
        {100: {"soft": 0.0, "gumbel-st": 0.05}, 800: {"soft": 0.05, "gumbel-st": 0.0}}
    )
    found = outcomes(width_gap, frame)
    assert found["C5 gap"] == found["C5 flips"] == found["C5 loss"] == "supported"
    assert found["C5 size"] == "not testable here"
    table = width_gap.effects(frame)
    assert set(table["width"]) == {100, 800}
    assert set(table.loc[table["width"] == 100, "claim"]) == {""}
    assert "a smaller scale shows +5 pp" in width_gap.verdicts(frame)[-1].reason


def test_the_width_of_the_paper_is_decided_by_its_own_runs():
    frame = width_frame({2_048_000: {"soft": 0.05, "gumbel-st": 0.0}}, dataset="cifar10")
    assert outcomes(width_gap, frame)["C5 size"] == "supported"


def ablation_frame(gaps, steps=None):
    history = histories(steps or {"soft": 200, "gumbel-soft": 200, "gumbel-st": 600})
    ends = pd.DataFrame(gap_rows(gaps, steps=1000))
    return pd.concat([history, ends], ignore_index=True)


def test_the_straight_through_estimator_carries_the_reduction_where_noise_alone_has_the_gap():
    frame = ablation_frame({"soft": 0.06, "gumbel-soft": 0.05, "gumbel-st": 0.0})
    assert set(outcomes(st_ablation, frame).values()) == {"supported"}


def test_it_carries_little_where_noise_alone_closes_the_gap():
    found = outcomes(
        st_ablation, ablation_frame({"soft": 0.06, "gumbel-soft": 0.001, "gumbel-st": 0.0})
    )
    assert found["C6 share"] == "reversed"
    assert found["C6 gap"] == "not testable here"


def test_there_is_no_share_of_a_reduction_that_is_not_there():
    frame = ablation_frame({"soft": 0.0, "gumbel-soft": 0.05, "gumbel-st": 0.0})
    verdict = st_ablation.verdicts(frame)[-1]
    assert (verdict.claim.id, verdict.outcome) == ("C6 share", "not testable here")
    assert "has a smaller gap in loss than the DLGN" in verdict.reason


def test_soft_gumbel_that_converges_later_fails_its_half_of_the_claim():
    gaps = {"soft": 0.06, "gumbel-soft": 0.05, "gumbel-st": 0.0}
    frame = ablation_frame(gaps, {"soft": 200, "gumbel-soft": 600, "gumbel-st": 200})
    assert outcomes(st_ablation, frame)["C6 convergence"] == "reversed"


def parts_frame(flips):
    frame = pd.DataFrame(gap_rows(flips))
    return frame.assign(reference_tau=1.0)


@pytest.mark.parametrize(
    ("flips", "outcome"),
    [
        ((0.06, 0.06, 0.0, 0.0), ("supported", "negligible", "supported")),
        ((0.06, 0.0, 0.06, 0.0), ("negligible", "supported", "reversed")),
        ((0.06, 0.03, 0.03, 0.0), ("supported", "supported", "negligible")),
        ((0.0, 0.0, 0.05, 0.05), ("reversed", "negligible", "reversed")),
        ((0.001, 0.001, 0.001, 0.001), ("not testable here",) * 3),
    ],
)
def test_the_square_of_methods_tells_the_hard_forward_from_the_noise(flips, outcome):
    found = outcomes(parts, parts_frame(dict(zip(parts.SQUARE, flips, strict=True))))
    assert (found["C12 hard"], found["C12 noise"], found["C12 which"]) == outcome


def timing_frame(extra, drift=0.0):
    made = []
    for kind, factor in {"soft": 1.0, **extra}.items():
        for row in rows([kind]):
            for number in range(10):
                slow = 1 + drift * number  # the machine, the same for all in a round
                seconds = 0.01 * factor * slow * (1 + spread(row["seed"]) / 10)
                made.append({**row, "round": number, "turn_steps": 5, "seconds": seconds})
    return pd.DataFrame(made)


def test_overhead_is_the_ratio_within_rounds_whatever_the_machine_does():
    frame = timing_frame({"gumbel-soft": 1.05, "gumbel-st": 0.6}, drift=0.3)
    table = overhead.effects(frame).groupby("claim")["extra"].mean()
    assert table["C11 noise"] == pytest.approx(5.0)
    assert table["C11 step"] == pytest.approx(-40.0)
    assert set(outcomes(overhead, frame).values()) == {"supported"}


def test_noise_that_costs_a_fifth_fails():
    found = outcomes(overhead, timing_frame({"gumbel-soft": 1.2, "gumbel-st": 1.2}))
    assert set(found.values()) == {"reversed"}


def map_frame(differences, base=0.92):
    """Cells (init, depth) with a planted difference in favour of the GLGN, in accuracy."""
    made = []
    for (init, depth), difference in differences.items():
        for row in rows(["pair"], init=init, depth=depth):
            for comparison in ("steps", "seconds"):
                noise = spread(row["seed"]) / 10
                accuracies = {"dlgn": base, "glgn": base + difference + noise}
                made.append(
                    {
                        **row,
                        "n": N_TEST,
                        "comparison": comparison,
                        "glgn_steps": 100,
                        **accuracies,
                    }
                )
    return pd.DataFrame(made)


def test_a_cell_where_noise_wins_is_found_and_named():
    frame = map_frame({("normal", 2): -0.03, ("normal", 4): 0.03, ("residual", 2): 0.0})
    verdict = where_it_pays.verdicts(frame)[0]
    assert verdict.outcome == "supported"
    assert "best init normal, depth 4" in verdict.scale
    assert verdict.level == pytest.approx(1 - 0.05 / 3)


def test_noise_that_wins_nowhere_fails_the_map():
    frame = map_frame({("normal", 2): -0.03, ("normal", 4): -0.03, ("residual", 2): 0.0})
    assert set(outcomes(where_it_pays, frame).values()) == {"negligible"}
    worse = map_frame({("normal", 2): -0.03, ("normal", 4): -0.05})
    assert set(outcomes(where_it_pays, worse).values()) == {"reversed"}
    untrained = map_frame({("normal", 2): 0.03}, base=0.3)
    assert set(outcomes(where_it_pays, untrained).values()) == {"not testable here"}


def test_equal_seconds_are_read_from_the_histories():
    history = histories({"soft": 400, "gumbel-st": 400}).assign(n=100)
    # A step of the GLGN takes twice as long: after the DLGN's 600 steps it has made 300.
    table = where_it_pays.compared(history, [600])
    by_seconds = table[table["comparison"] == "seconds"]
    assert set(by_seconds["glgn_steps"]) == {300}
    assert (by_seconds["dlgn"] == 0.95).all()
    assert (by_seconds["glgn"] == 0.2).all()
    by_steps = table[table["comparison"] == "steps"]
    assert set(by_steps["glgn_steps"]) == {600}
    assert (by_steps["glgn"] == 0.95).all()


def checkpoint_frame(predicted, trace, *, accuracy=0.8, n=5):
    generator = np.random.default_rng(0)
    made = []
    for row in rows(["soft", "gumbel-st"]):
        for step in range(n):
            true = generator.normal()
            made.append(
                {
                    **row,
                    "step": step,
                    "delta_loss": true,
                    "first_order": 0.3 * true,
                    "prediction": predicted(true, generator),
                    "trace_z": trace(true, generator),
                    "discrete_accuracy": accuracy,
                }
            )
    return pd.DataFrame(made)


def test_curvature_that_predicts_the_gap_is_found():
    frame = checkpoint_frame(
        lambda true, g: true + 0.1 * g.normal(), lambda true, g: abs(true) + 0.05 * g.normal()
    )
    assert set(outcomes(curvature_gap, frame).values()) == {"supported"}


def test_curvature_that_says_nothing_is_not_found():
    frame = checkpoint_frame(lambda true, g: 3 * g.normal(), lambda true, g: g.normal())
    found = outcomes(curvature_gap, frame)
    assert found["C14 prediction"] == found["C14 second order"] == "reversed"
    assert found["C14 trace"] != "supported"


def test_untrained_or_few_checkpoints_do_not_count():
    exact = (lambda true, g: true), (lambda true, g: abs(true))
    assert not curvature_gap.effects(checkpoint_frame(*exact, accuracy=0.2))["counts"].any()
    assert not curvature_gap.effects(checkpoint_frame(*exact, n=3))["counts"].any()
    assert curvature_gap.effects(checkpoint_frame(*exact))["counts"].sum() == 3 * len(SEEDS)


def test_the_share_of_variance_is_of_the_identity():
    true = pd.Series([0.0, 1.0, 2.0])
    assert curvature_gap.share_of_variance(true, true) == 1.0
    assert curvature_gap.share_of_variance(true, true * 0 + 1) == 0.0
    assert curvature_gap.share_of_variance(true, 100 + true) == -1.0
    assert np.isnan(curvature_gap.share_of_variance(true * 0, true))
