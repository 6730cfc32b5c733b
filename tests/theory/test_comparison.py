"""Two networks side by side: the numbers are those of each alone, the intervals cover."""

import math

import numpy as np
import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.theory.comparison import difference_interval
from tests.hessian.cases import bits, network

TRACE_ONLY = {"eigs": False, "frobenius": False, "density": False}


def pair():
    first, second = network(relaxation=lgn.Soft, tau=0.5), network(tau=2.0, seed=1)
    with torch.no_grad():
        for layer in second.layers:
            layer.logits *= 2
    return first, second


def rows(result):
    return result.to_frame().set_index("quantity")


def test_the_plain_numbers_are_those_of_each_network():
    models, data = pair(), bits(80)
    table = rows(lgn.compare(*models, data, n_probes=4, **TRACE_ONLY))
    for label, model in zip(("noise-free", "noisy"), models, strict=True):
        known, usage = lgn.evaluate(model, data), lgn.gate_usage(model)
        for name in ("soft_accuracy", "discrete_accuracy", "gap", "gap_loss", "flips"):
            assert table[label][name] == getattr(known, name)
        assert table[label]["entropy"] == pytest.approx(usage["entropy"].mean())
        assert table[label]["unused"] == pytest.approx(usage["unused"].mean())
    assert math.isnan(table["noise-free"]["noisy_accuracy"])
    difference = table["noisy"] - table["noise-free"]
    assert np.allclose(table["difference"], difference, equal_nan=True)
    assert table.loc["gap", ["noisy low", "difference low"]].isna().all()


def test_the_interval_of_the_difference_covers_the_exact_one_in_both_coordinates():
    models, data = pair(), bits(60)
    exact = [float(lgn.HessianProbe(m, data).dense().trace()) for m in models]
    scaled = [exact[0] * 0.5**2, exact[1] * 2.0**2]
    covered = np.zeros(3)
    for seed in range(40):
        result = lgn.compare(*models, data, n_probes=8, seed=seed, **TRACE_ONLY)
        assert result.traces.shape == (4, 2)
        table = rows(result)
        for i, (name, a, b) in enumerate((("trace_z", *exact), ("trace_u", *scaled))):
            r = table.loc[name]
            covered[i] += r["difference low"] <= b - a <= r["difference high"]
        covered[2] += table["noisy low"]["trace_z"] <= exact[1] <= table["noisy high"]["trace_z"]
    # At 95 %, fewer than 32 of 40 has probability 3e-4, and a wrong tau² would cover none.
    assert covered.min() >= 32


def test_a_network_compared_with_itself_differs_by_nothing_exactly():
    # Pairs share samples and signs, so that what the two have in common cancels.
    model = network()
    table = rows(lgn.compare(model, model, bits(40), n_probes=6, **TRACE_ONLY))
    assert table.loc["trace_z", ["difference", "difference low", "difference high"]].eq(0).all()
    assert table["noisy high"]["trace_z"] > table["noisy low"]["trace_z"]


def test_it_stops_when_the_difference_is_known_as_well_as_was_asked():
    models, data = pair(), bits(60)
    result = lgn.compare(*models, data, rtol=0.2, **TRACE_ONLY)
    r = rows(result).loc["trace_z"]
    larger = max(abs(r["noisy"]), abs(r["noise-free"]))
    assert result.converged
    assert (r["difference high"] - r["difference low"]) / 2 <= 0.2 * larger
    assert result.n_matvecs == 4 * len(result.traces)
    poor = lgn.compare(*models, data, rtol=1e-9, max_matvecs=20, **TRACE_ONLY)
    assert not poor.converged
    assert "max_matvecs=20" in poor.reason
    assert len(poor.traces) == 10


def test_spectra_are_those_of_the_dense_hessians():
    models, data = pair(), bits(60)
    result = lgn.compare(*models, data, n_probes=4)
    table = rows(result)
    for i, (label, model) in enumerate(zip(result.labels, models, strict=True)):
        dense = lgn.HessianProbe(model, data).dense()
        values = torch.linalg.eigvalsh(dense)
        assert table[label]["lambda_max"] == pytest.approx(float(values[-1]), rel=1e-3)
        assert table[label]["lambda_min"] == pytest.approx(float(values[0]), rel=1e-3)
        low, high = table[f"{label} low"]["lambda_max"], table[f"{label} high"]["lambda_max"]
        assert ((low <= values) & (values <= high)).any()
        assert table[label]["frobenius"] == pytest.approx(float(dense.norm()), rel=0.1)
        mass = float(values[values < 0].abs().sum() / values.abs().sum())
        assert table[label]["negative_mass"] == pytest.approx(mass, abs=0.05)
        assert result.eigs[i].values[0] == table[label]["lambda_max"]
        assert result.densities[i].n == 24 * 16


def test_the_difference_of_independent_estimates_for_normal_intervals():
    # Symmetric intervals: half-widths add in squares.
    assert difference_interval((1, 0, 2), (5, 5 - 0.75, 5 + 0.75)) == (4, 2.75, 5.25)
    # Zero at the edge of a skewed one: each end has the nearer side of the other estimate.
    assert difference_interval((0, 0, 4), (0, 0, 3)) == (0, -4, 3)
    assert all(map(math.isnan, difference_interval((1, math.nan, math.nan), (1, 0, 2))[1:]))


def test_curvature_is_taken_on_training_samples_and_accuracy_on_test(separable_data):
    models = [lgn.LogicNetwork(12, 12, 2, 3, 2.0, seed=s, dtype=torch.float64) for s in (0, 1)]
    result = lgn.compare(*models, separable_data, n_probes=4, labels=("A", "B"), **TRACE_ONLY)
    assert result.n_samples == 90
    assert result.evaluations[0].n == 45
    few = lgn.compare(*models, separable_data, n_probes=4, n_samples=30, **TRACE_ONLY)
    assert few.n_samples == 30
    assert result.labels == ("A", "B")
    assert "A | B: discrete accuracy" in repr(result)
    assert "<table" in result._repr_html_()


def test_networks_of_other_shapes_are_compared_too():
    small = lgn.LogicNetwork(8, 6, 1, 3, 2.0, seed=3, dtype=torch.float64)
    table = rows(lgn.compare(network(), small, bits(40), n_probes=4, **TRACE_ONLY))
    assert math.isfinite(table["difference low"]["trace_z"])


def test_equal_seeds_give_equal_tables():
    models, data = pair(), bits(40)
    first, second = (lgn.compare(*models, data, n_probes=4, **TRACE_ONLY) for _ in range(2))
    assert first.table.equals(second.table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("a", "a")}, "two different names"),
        ({"n_samples": 0}, "n_samples must be at least 1"),
        ({"n_probes": 5}, "an even number of products"),
        ({"n_probes": 2}, "at least 4, got 2"),
        ({"rtol": 0.0}, "rtol must be above zero"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        lgn.compare(*pair(), bits(20), **TRACE_ONLY, **options)
