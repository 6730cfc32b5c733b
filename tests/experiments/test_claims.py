"""Each verdict follows from its frame, for the pair DLGN and GLGN: C1, C2, C3, C7, C8, C9, C10."""

import math

import numpy as np
import pandas as pd
import pytest

from lgn_analysis.experiments.claims import (
    cifar100,
    convergence,
    gap,
    hessian_trace,
    landscape,
    lemma_1,
    temperature,
    unused_gates,
)
from tests.experiments.synthetic import (
    N_TEST,
    SEEDS,
    SHAPE,
    gap_rows,
    histories,
    outcomes,
    rows,
    spread,
)


def test_convergence_holds_where_noise_is_three_times_faster_in_steps():
    found = outcomes(convergence, histories({"soft": 600, "gumbel-st": 200}))
    assert found == {
        "C1 iterations": "supported",
        "C1 seconds": "supported",
        "C1 size": "not testable here",
    }


def test_convergence_fails_where_noise_is_slower():
    found = outcomes(convergence, histories({"soft": 200, "gumbel-st": 600}))
    assert found == {
        "C1 iterations": "reversed",
        "C1 seconds": "reversed",
        "C1 size": "not testable here",
    }


def test_seconds_and_iterations_are_judged_apart():
    # Half the steps, and a step costs twice with noise: equal seconds.
    verdicts = convergence.verdicts(histories({"soft": 800, "gumbel-st": 400}))
    by_id = {verdict.claim.id: verdict for verdict in verdicts}
    assert by_id["C1 iterations"].outcome == "supported"
    assert math.exp(by_id["C1 iterations"].effect) == pytest.approx(2.0, rel=0.05)
    assert by_id["C1 seconds"].outcome == "negligible"


def test_a_censored_dlgn_bounds_the_ratio_from_below_alone():
    frame = histories({"soft": None, "gumbel-st": 250})
    table = convergence.effects(frame)
    assert set(table["censored"]) == {"dlgn"}
    assert (table["upper"] == math.inf).all()
    assert table["lower"].iloc[0] == pytest.approx(math.log(1000 / 250))
    verdict = convergence.verdicts(frame)[0]
    assert (verdict.outcome, verdict.high) == ("supported", math.inf)
    assert "6 of 6 seeds give a bound" in verdict.reason


def test_a_censored_glgn_cannot_make_its_claim_hold():
    frame = histories({"soft": 250, "gumbel-st": None})
    verdict = convergence.verdicts(frame)[0]
    assert (verdict.outcome, verdict.low) == ("reversed", -math.inf)


def test_one_censored_run_among_many_opens_one_side_of_the_interval():
    frame = histories({"soft": 600, "gumbel-st": 200})
    late = (frame["relaxation"] == "gumbel-st") & (frame["seed"] == 0)
    frame.loc[late, "discrete_accuracy"] = 0.2
    verdict = convergence.verdicts(frame)[0]
    assert verdict.low == -math.inf
    assert verdict.outcome == "inconclusive"


def test_two_runs_that_never_converge_count_for_nothing():
    frame = histories({"soft": None, "gumbel-st": None})
    assert not convergence.effects(frame)["counts"].any()
    assert outcomes(convergence, frame)["C1 iterations"] == "not testable here"


def test_a_run_that_had_arrived_by_its_first_evaluation_gives_a_bound():
    frame = histories({"soft": 200, "gumbel-st": 600})
    coarse = frame[frame["step"] % 250 == 0]
    table = convergence.effects(coarse)
    iterations = table[table["claim"] == "C1 iterations"]
    assert set(iterations["censored"]) == {"dlgn"}
    assert (iterations["lower"] == -math.inf).all()
    assert iterations["upper"].to_list() == pytest.approx(iterations["effect"].to_list())
    assert outcomes(convergence, coarse)["C1 iterations"] == "reversed"


def test_the_size_of_the_factor_is_decided_at_the_size_of_the_paper_alone():
    big = {"dataset": "cifar10", "width": 256_000, "depth": 12}
    fast = histories({"soft": 1000 - 30, "gumbel-st": 150}, **big)
    assert outcomes(convergence, fast)["C1 size"] == "supported"
    slow = histories({"soft": 600, "gumbel-st": 500}, **big)
    assert outcomes(convergence, slow)["C1 size"] == "reversed"
    small = convergence.verdicts(histories({"soft": 600, "gumbel-st": 200}))[-1]
    assert "a smaller scale shows 2.9× on digits" in small.reason


def test_cifar100_is_untested_without_its_runs_and_decided_with_them():
    assert outcomes(cifar100, pd.DataFrame(columns=[*SHAPE])) == {"C10": "not testable here"}
    frame = histories({"soft": None, "gumbel-st": 400}, dataset="cifar100")
    assert outcomes(cifar100, frame) == {"C10": "supported"}


def test_a_planted_gap_is_found_and_equal_gaps_are_not():
    def found(soft, noisy):
        frame = pd.DataFrame(gap_rows({"soft": soft, "gumbel-st": noisy}))
        return set(outcomes(gap, frame).values())

    assert found(0.05, 0.0) == {"supported"}
    assert found(0.0, 0.05) == {"reversed"}
    assert found(0.02, 0.02) == {"negligible"}
    assert found(0.001, 0.001) == {"not testable here"}


def test_the_gap_of_untrained_networks_decides_nothing():
    frame = pd.DataFrame(gap_rows({"soft": 0.05, "gumbel-st": 0.0}, accuracy=0.5))
    assert set(outcomes(gap, frame).values()) == {"not testable here"}
    (first, *_) = gap.verdicts(frame)
    assert "in 6 of 6 seeds its premise is absent: both methods are trained" in first.reason


def test_only_the_last_step_decides_the_gap():
    frame = pd.DataFrame(gap_rows({"soft": 0.05, "gumbel-st": 0.0}))
    before = frame.assign(step=50, gap_train=-1.0)
    assert outcomes(gap, pd.concat([before, frame]))["C2 gap"] == "supported"


def test_each_setting_is_judged_by_itself_and_named():
    digits = pd.DataFrame(gap_rows({"soft": 0.05, "gumbel-st": 0.0}))
    other = pd.DataFrame(gap_rows({"soft": 0.0, "gumbel-st": 0.05}, setting="mnist5k"))
    found = outcomes(gap, pd.concat([digits, other]))
    assert found["C2 gap (digits)"] == "supported"
    assert found["C2 gap (mnist5k)"] == "reversed"


def usage_frame(soft, noisy):
    return pd.DataFrame(
        [
            {
                **row,
                "layer": layer,
                "n_gates": gates,
                "unused": share + spread(row["seed"]),
                "discrete_accuracy": 0.95,
                "deep": False,
            }
            for kind, share in (("soft", soft), ("gumbel-st", noisy))
            for row in rows([kind])
            for layer, gates in ((0, 300), (1, 100))
        ]
    )


def test_fewer_unused_gates_are_found_in_the_right_direction():
    assert outcomes(unused_gates, usage_frame(0.5, 0.05)) == {"C3": "supported"}
    assert outcomes(unused_gates, usage_frame(0.05, 0.5)) == {"C3": "reversed"}
    assert outcomes(unused_gates, usage_frame(0.03, 0.0)) == {"C3": "not testable here"}


def test_layers_are_weighted_by_their_gates():
    frame = usage_frame(0.4, 0.0)
    frame.loc[(frame["relaxation"] == "soft") & (frame["layer"] == 1), "unused"] = 0.0
    table = unused_gates.effects(frame)
    assert table["dlgn"].mean() == pytest.approx(100 * 0.4 * 300 / 400, abs=0.5)


def tau_frame(accuracy_by_tau):
    generator = np.random.default_rng(1)
    return pd.DataFrame(
        [
            {
                **row,
                "step": 100,
                "n": N_TEST,
                "discrete_accuracy": accuracy + 0.002 * generator.normal(),
            }
            for tau, accuracy in accuracy_by_tau.items()
            for row in rows(["gumbel-st"], tau=tau)
        ]
    )


def test_a_planted_sweet_spot_is_found():
    (verdict,) = temperature.verdicts(tau_frame({0.1: 0.80, 0.5: 0.95, 1.0: 0.90, 2.0: 0.85}))
    assert verdict.outcome == "supported"
    assert "best tau 0.5" in verdict.scale
    assert verdict.level == pytest.approx(0.975)


def test_a_monotone_temperature_has_no_sweet_spot():
    frame = tau_frame({0.1: 0.80, 0.5: 0.85, 1.0: 0.90, 2.0: 0.95})
    assert outcomes(temperature, frame) == {"C7": "reversed"}


def trace_frame(soft, noisy):
    return pd.DataFrame(
        [
            {
                **row,
                "step": 100,
                "trace_z": value * (1 + spread(row["seed"]) * (1 if kind == "soft" else 2)),
                "discrete_accuracy": 0.95,
                "reference_tau": 1.0,
            }
            for kind, value in (("soft", soft), ("gumbel-st", noisy))
            for row in rows([kind])
        ]
    )


def test_a_smaller_trace_is_found_and_a_larger_one_is_not():
    (verdict,) = hessian_trace.verdicts(trace_frame(0.5, 0.1))
    assert verdict.outcome == "supported"
    assert verdict.effect == pytest.approx(80, rel=0.05)
    assert outcomes(hessian_trace, trace_frame(0.1, 0.5)) == {"C8 trace": "reversed"}


def test_a_negative_trace_drops_no_seed():
    for traces in ((0.5, -0.1), (-0.1, 0.5)):
        assert hessian_trace.effects(trace_frame(*traces))["counts"].all()
    assert outcomes(hessian_trace, trace_frame(0.5, -0.1)) == {"C8 trace": "supported"}
    assert outcomes(hessian_trace, trace_frame(-0.1, 0.5)) == {"C8 trace": "reversed"}


def lemma_frame(ratio_soft, ratio_noisy, least=0.1):
    made = []
    for kind, ratio in (("soft", ratio_soft), ("gumbel-st", ratio_noisy)):
        for row in rows([kind]):
            for scale in (0.1, 0.5, 1.0):
                for step in (50, 100):
                    far = ratio + spread(row["seed"]) + 10 * (step > 50)
                    columns = {"ratio": 1.0 if scale < 1 else far, "discrete_accuracy": 0.95}
                    gain = {"gain": least * columns["ratio"], "prediction": least}
                    made.append({**row, "scale": scale, "step": step, **columns, **gain})
    return pd.DataFrame(made)


def test_the_lemma_is_judged_at_scale_one_and_the_earliest_step_for_each_method():
    found = outcomes(lemma_1, lemma_frame(1.05, 2.2))
    assert found == {"C8 lemma DLGN": "supported", "C8 lemma GLGN": "reversed"}


def test_a_gain_of_nearly_nothing_says_nothing_of_the_lemma():
    found = outcomes(lemma_1, lemma_frame(2.0, 2.0, least=0.001))
    assert set(found.values()) == {"not testable here"}


def test_a_gain_of_the_wrong_sign_fails_the_lemma():
    assert outcomes(lemma_1, lemma_frame(-1.0, 0.2))["C8 lemma DLGN"] == "reversed"


def test_the_radius_is_the_largest_scale_up_to_which_the_ratio_stays_near_one():
    run = pd.DataFrame({"scale": [1.0, 0.1, 0.5], "ratio": [1.1, 1.0, 1.4]})
    assert lemma_1.radius(run, "ratio") == 0.1
    assert lemma_1.radius(run.assign(ratio=1.0), "ratio") == 1.0
    assert lemma_1.radius(run.assign(ratio=3.0), "ratio") == 0.0


def landscape_frame(curvatures, concave=0.0):
    """Parabolas of known curvature; a share of the GLGN's directions is turned upside down."""
    made = []
    for kind, curvature in curvatures.items():
        for row in rows([kind]):
            for direction in range(4):
                down = direction < 4 * concave and kind == "soft"
                height = curvature * (1 + spread(row["seed"]) * (1 if kind == "soft" else -1))
                for name in ("filter", "eigen"):
                    for x in np.linspace(-1, 1, 11):
                        loss = (-1 if down else 1) * height * x**2 / 2
                        line = {"kind": name, "direction": direction, "x": x, "loss": loss}
                        made.append({**row, **line, "length": 2.0, "discrete_accuracy": 0.95})
    return landscape.with_second_derivatives(pd.DataFrame(made))


def test_a_less_curved_landscape_is_found_and_measured():
    verdicts = landscape.verdicts(landscape_frame({"soft": 3.0, "gumbel-st": 1.0}))
    by_id = {verdict.claim.id: verdict for verdict in verdicts}
    assert by_id["C9 curvature"].outcome == by_id["C9 eigen"].outcome == "supported"
    assert math.exp(by_id["C9 curvature"].effect) == pytest.approx(3.0, rel=0.01)
    assert by_id["C9 concave"].outcome == "negligible"


def test_a_more_curved_landscape_fails_and_an_equal_one_too():
    for noisy, outcome in ((3.0, "reversed"), (1.0, "negligible")):
        found = outcomes(landscape, landscape_frame({"soft": 1.0, "gumbel-st": noisy}))
        assert found["C9 curvature"] == found["C9 eigen"] == outcome
        assert found["C9 concave"] == "negligible"


def test_concave_directions_are_counted_by_their_curvature():
    frame = landscape_frame({"soft": 1.0, "gumbel-st": 1.0}, concave=0.25)
    table = landscape.effects(frame)
    rows_of = table[table["claim"] == "C9 concave"]
    assert rows_of["effect"].to_list() == pytest.approx([25.0] * len(SEEDS))
    assert outcomes(landscape, frame)["C9 concave"] == "supported"


def test_the_curvature_of_a_line_is_that_of_its_parabola_in_both_units():
    lines = landscape.curvature_of_lines(landscape_frame({"soft": 3.0}))
    expected = 3.0 * (1 + np.array([spread(seed) for seed in lines["seed"]]))
    assert lines["curvature"].to_numpy() == pytest.approx(expected)
    assert lines["curvature_z"].to_numpy() == pytest.approx(expected / 4)
