"""M8 follows from its frame: what time makes is not what seeds make."""

import numpy as np
import pandas as pd
import pytest

from lgn_analysis.experiments.claims import curvature_within_step as claim
from lgn_analysis.plots.claims import curvature_within_step as drawing
from tests.experiments.synthetic import outcomes, rows

STEPS = (250, 1000, 3000)
SEEDS = range(20)


def trace_frame(*, within=0.0, over_time=3.0, accuracy=0.95, through_loss=False, seed=0):
    """Traces and gaps that share a normal of weight ``within`` a network, and fall with time by e^-over_time."""
    generator = np.random.default_rng(seed)
    made = []
    for depth in (2, 4, 6):
        for row in rows(["soft", "gumbel-st"], seeds=SEEDS, depth=depth, steps=STEPS[-1]):
            for age, step in enumerate(STEPS):
                shared, own, other = generator.normal(size=3)
                loss = shared if through_loss else generator.normal()
                trace = within**0.5 * shared + (1 - within) ** 0.5 * own
                gap = within**0.5 * shared + (1 - within) ** 0.5 * other
                time = np.exp(-over_time * age)
                made.append(
                    {
                        **row,
                        "step": step,
                        "n": 360,
                        "discrete_accuracy": accuracy,
                        "soft_loss": loss,
                        "trace_z": time * np.exp(0.2 * trace),
                        "gap_loss": -time * np.exp(0.2 * gap),
                        "gap_train": 0.01 * gap,
                        "flips": int(100 + 20 * gap),
                    }
                )
    return pd.DataFrame(made)


def test_a_correlation_that_time_alone_makes_is_not_found_within_steps():
    found = {verdict.claim.id: verdict for verdict in claim.verdicts(trace_frame())}
    assert found["M8 over time"].outcome == found["M8 time"].outcome == "supported"
    assert found["M8 loss"].outcome == "negligible"
    assert found["M8 loss"].low < 0 < found["M8 loss"].high


def test_a_correlation_among_networks_of_one_step_is_found():
    found = {verdict.claim.id: verdict for verdict in claim.verdicts(trace_frame(within=0.7))}
    for measure in ("loss", "flips", "gap", "methods", "beyond loss"):
        assert found[f"M8 {measure}"].outcome == "supported", measure
        assert found[f"M8 {measure}"].effect == pytest.approx(0.69, abs=0.1)
    assert found["M8 signed loss"].outcome == "reversed"


def test_what_the_loss_explains_is_taken_out():
    found = outcomes(claim, trace_frame(within=0.7, through_loss=True))
    assert found["M8 loss"] == "supported"
    assert found["M8 beyond loss"] == "negligible"


def test_the_methods_difference_is_no_correlation_of_seeds():
    frame = trace_frame()
    noisy = frame["relaxation"] == "gumbel-st"
    frame.loc[noisy, ["trace_z", "gap_loss"]] *= 1e-3
    found = {verdict.claim.id: verdict for verdict in claim.verdicts(frame)}
    assert found["M8 loss"].outcome == "negligible"
    assert found["M8 methods"].effect > 0.6


def test_the_estimate_is_the_jackknife_s():
    frame = trace_frame(within=0.4)
    table = claim.effects(frame)
    of_loss = table[table["claim"] == "M8 loss"]
    used = frame.assign(gap_size=frame["gap_loss"].abs())
    whole = claim.rank_correlation(used, "gap_size", by=claim.CELL)
    assert of_loss["correlation"].to_numpy() == pytest.approx(whole)
    without = claim.rank_correlation(used[used["seed"] != 3], "gap_size", by=claim.CELL)
    (value,) = of_loss.loc[of_loss["seed"] == 3, "effect"]
    assert value == pytest.approx(20 * whole - 19 * without)


def test_pooled_ranks_are_the_mean_of_the_cells_and_blind_to_units():
    frame = trace_frame(within=0.4)
    each = frame.groupby(list(claim.CELL))[["trace_z", "flips", "gap_loss"]].corr("spearman")
    pooled = claim.rank_correlation(frame, "gap_loss", by=claim.CELL)
    assert pooled == pytest.approx(each["trace_z"].xs("gap_loss", level=-1).mean())
    logs = frame.assign(trace_z=np.log(frame["trace_z"]))
    assert claim.rank_correlation(logs, "gap_loss", by=claim.CELL) == pytest.approx(pooled)


def test_untrained_cells_and_gaps_that_do_not_differ_decide_nothing():
    assert outcomes(claim, trace_frame(accuracy=0.2))["M8 loss"] == "not testable here"
    assert outcomes(claim, trace_frame().assign(flips=3))["M8 loss"] == "not testable here"


def test_the_figure_draws_the_trained_checkpoints_and_the_correlation_of_every_cell():
    frame = trace_frame()
    frame.loc[(frame["depth"] == 6) & (frame["step"] == 250), "discrete_accuracy"] = 0.2
    time, ranks, correlations = drawing.figure(frame, trained=0.5).axes
    n = sum(len(points.get_offsets()) for points in time.collections)
    assert n == len(frame) - 2 * len(SEEDS)
    assert sum(len(points.get_offsets()) for points in ranks.collections) == n
    soft = next(c for c in correlations.collections if c.get_label().startswith("DLGN"))
    assert len(soft.get_offsets()) == 8 + 3
    over_time = soft.get_offsets()[-3:, 1]
    assert (over_time > 0.8).all()
