"""Each verdict follows from its frame: synthetic frames with known answers."""

import math

import numpy as np
import pandas as pd
import pytest

from lgn_analysis.experiments import (
    convergence,
    gap,
    hessian_trace,
    lemma_1,
    temperature,
    unused_gates,
)

SEEDS = range(5)
SHAPE = {
    "dataset": "digits",
    "width": 100,
    "depth": 2,
    "group_tau": 10.0,
    "init": "normal",
    "tau": 1.0,
}


def jitter(seed):
    """A small deterministic spread over seeds."""
    return 0.01 * (seed - 2)


def outcomes(module, frame):
    return {verdict.claim.id: verdict.outcome for verdict in module.verdicts(frame)}


def histories(step_at_target):
    """Histories that pass the target at ``step_at_target[relaxation] + seed`` (None: never)."""
    rows = []
    for kind, target_step in step_at_target.items():
        for seed in SEEDS:
            for step in range(0, 1001, 10):
                reached = target_step is not None and step >= target_step + 10 * (seed % 3)
                rows.append(
                    {
                        **SHAPE,
                        "run": f"{kind}{seed}",
                        "relaxation": kind,
                        "seed": seed,
                        "steps": 1000,
                        "step": step,
                        "split": "val",
                        "seconds": step * (0.01 if kind == "soft" else 0.02),
                        "discrete_accuracy": 0.95 if reached else 0.2,
                    }
                )
    return pd.DataFrame(rows)


def test_convergence_holds_where_noise_is_three_times_faster_in_steps():
    found = outcomes(convergence, histories({"soft": 600, "gumbel-st": 200}))
    assert found == {"C1 iterations": "holds", "C1 seconds": "holds"}


def test_convergence_fails_where_noise_is_slower():
    found = outcomes(convergence, histories({"soft": 200, "gumbel-st": 600}))
    assert set(found.values()) == {"fails"}


def test_seconds_and_iterations_are_judged_apart():
    # Equal seconds per target but half the steps: a step costs twice with noise.
    verdicts = convergence.verdicts(histories({"soft": 800, "gumbel-st": 400}))
    by_id = {verdict.claim.id: verdict for verdict in verdicts}
    assert by_id["C1 iterations"].outcome == "holds"
    assert math.exp(by_id["C1 iterations"].effect) == pytest.approx(2.0, rel=0.05)
    assert by_id["C1 seconds"].outcome == "fails"


def test_a_run_that_never_converges_bounds_the_ratio():
    table = convergence.effects(histories({"soft": None, "gumbel-st": 250}))
    assert set(table["censored"]) == {"dlgn"}
    assert table["effect"].iloc[0] == pytest.approx(math.log(1000 / 250))


def test_two_runs_that_never_converge_count_for_nothing():
    frame = histories({"soft": None, "gumbel-st": None})
    assert not convergence.effects(frame)["counts"].any()
    assert set(outcomes(convergence, frame).values()) == {"inconclusive"}


def gap_frame(gap_soft, gap_noisy, accuracy=0.95):
    rows = [
        {
            **SHAPE,
            "relaxation": kind,
            "seed": seed,
            "steps": 100,
            "step": step,
            "discrete_accuracy": accuracy,
            "gap": value + 0.1 * jitter(seed),
            "gap_loss": -value,
            "flips": 1000 * value,
            "n": 1000,
            "deep": False,
        }
        for kind, value in (("soft", gap_soft), ("gumbel-st", gap_noisy))
        for seed in SEEDS
        for step in (50, 100)
    ]
    return pd.DataFrame(rows)


def test_a_planted_gap_is_found_and_equal_gaps_are_not():
    assert set(outcomes(gap, gap_frame(0.05, 0.0)).values()) == {"holds"}
    assert set(outcomes(gap, gap_frame(0.02, 0.02)).values()) == {"fails"}


def test_the_gap_of_untrained_networks_decides_nothing():
    assert set(outcomes(gap, gap_frame(0.05, 0.0, accuracy=0.5)).values()) == {"inconclusive"}


def test_only_the_last_step_decides_the_gap():
    frame = gap_frame(0.05, 0.0)
    frame.loc[(frame["step"] == 50), "gap"] = -1.0
    assert outcomes(gap, frame)["C2 accuracy"] == "holds"


def usage_frame(soft, noisy):
    rows = [
        {
            **SHAPE,
            "relaxation": kind,
            "seed": seed,
            "steps": 100,
            "layer": layer,
            "n_gates": gates,
            "unused": share + jitter(seed),
            "discrete_accuracy": 0.95,
            "deep": False,
        }
        for kind, share in (("soft", soft), ("gumbel-st", noisy))
        for seed in SEEDS
        for layer, gates in ((0, 300), (1, 100))
    ]
    return pd.DataFrame(rows)


def test_fewer_unused_gates_are_found_in_the_right_direction():
    assert outcomes(unused_gates, usage_frame(0.5, 0.05)) == {"C3": "holds"}
    assert outcomes(unused_gates, usage_frame(0.05, 0.5)) == {"C3": "fails"}


def test_layers_are_weighted_by_their_gates():
    frame = usage_frame(0.4, 0.0)
    frame.loc[(frame["relaxation"] == "soft") & (frame["layer"] == 1), "unused"] = 0.0
    table = unused_gates.effects(frame)
    assert table["dlgn"].mean() == pytest.approx(100 * 0.4 * 300 / 400, abs=0.5)


def tau_frame(accuracy_by_tau):
    generator = np.random.default_rng(1)
    rows = [
        {
            **SHAPE,
            "tau": tau,
            "relaxation": "gumbel-st",
            "seed": seed,
            "steps": 100,
            "step": 100,
            "discrete_accuracy": accuracy + 0.002 * generator.normal(),
        }
        for tau, accuracy in accuracy_by_tau.items()
        for seed in SEEDS
    ]
    return pd.DataFrame(rows)


def test_a_planted_sweet_spot_is_found():
    frame = tau_frame({0.1: 0.80, 0.5: 0.95, 1.0: 0.90, 2.0: 0.85})
    (verdict,) = temperature.verdicts(frame)
    assert verdict.outcome == "holds"
    assert "best 0.5" in verdict.scale
    assert verdict.level == pytest.approx(0.975)


def test_a_monotone_temperature_has_no_sweet_spot():
    frame = tau_frame({0.1: 0.80, 0.5: 0.85, 1.0: 0.90, 2.0: 0.95})
    assert outcomes(temperature, frame) == {"C7": "fails"}


def trace_frame(soft, noisy):
    rows = [
        {
            **SHAPE,
            "relaxation": kind,
            "seed": seed,
            "steps": 100,
            "step": 100,
            "trace_z": value * (1 + jitter(seed)),
            "discrete_accuracy": 0.95,
            "reference_tau": 1.0,
        }
        for kind, value in (("soft", soft), ("gumbel-st", noisy))
        for seed in SEEDS
    ]
    return pd.DataFrame(rows)


def test_a_smaller_trace_is_found_and_a_larger_one_is_not():
    frame = trace_frame(0.5, 0.1)
    frame.loc[frame["relaxation"] == "soft", "trace_z"] *= np.linspace(0.9, 1.1, len(SEEDS))
    (verdict,) = hessian_trace.verdicts(frame)
    assert verdict.outcome == "holds"
    assert verdict.effect == pytest.approx(80, rel=0.05)
    assert outcomes(hessian_trace, trace_frame(0.1, 0.5)) == {"C8 trace": "fails"}


def test_a_negative_trace_counts_with_noise_and_not_without():
    assert hessian_trace.effects(trace_frame(0.5, -0.1))["counts"].all()
    assert not hessian_trace.effects(trace_frame(-0.1, 0.5))["counts"].any()


def lemma_frame(ratio_soft, ratio_noisy):
    rows = [
        {
            **SHAPE,
            "relaxation": kind,
            "seed": seed,
            "steps": 100,
            "scale": scale,
            "step": step,
            "ratio": 1.0 if scale < 1 else ratio + jitter(seed) + 10 * (step > 50),
            "discrete_accuracy": 0.95,
        }
        for kind, ratio in (("soft", ratio_soft), ("gumbel-st", ratio_noisy))
        for seed in SEEDS
        for scale in (0.1, 1.0)
        for step in (50, 100)
    ]
    return pd.DataFrame(rows)


def test_the_lemma_is_judged_at_scale_one_and_the_earliest_step_for_each_method():
    found = outcomes(lemma_1, lemma_frame(1.05, 2.2))
    assert found == {"C8 lemma (DLGN)": "holds", "C8 lemma (GLGN)": "fails"}


def test_a_gain_of_the_wrong_sign_fails_the_lemma():
    assert outcomes(lemma_1, lemma_frame(-1.0, 0.2))["C8 lemma (DLGN)"] == "fails"
