"""Runs stop where they were told to, say why, and can be taken up again without losing a product."""

import copy
import dataclasses
import pickle

import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian import DenseOperator, hutchinson_trace
from lgn_analysis.hessian.estimators.hutchpp import hutchpp_trace
from lgn_analysis.hessian.estimators.xtrace import xtrace_trace
from lgn_analysis.hessian.results.intervals import LARGEST_RTOL, Tolerances, interim_analyses
from tests.hessian.cases import bits, network, symmetric
from tests.hessian.counting import Columnwise, Counting

DECAYING = [(-1) ** i * 2.0 ** (-i / 6) for i in range(70)]
SLICES = {"a": slice(0, 30), "b": slice(30, 70)}
ESTIMATORS = {
    "hutchinson": (hutchinson_trace, {}),
    "gaussian": (hutchinson_trace, {"probes": "gaussian"}),
    "hutchpp": (hutchpp_trace, {"sketch": 5}),
    "xtrace": (xtrace_trace, {}),
}


@pytest.fixture(params=ESTIMATORS)
def estimate(request):
    function, options = ESTIMATORS[request.param]
    return lambda operator, **more: function(operator, **options, **more)


def assert_same_bits(first, second):
    for field in ("estimate", "stderr", "n_matvecs", "seed", "error_kind", "reason", "converged"):
        assert getattr(first, field) == getattr(second, field)
    assert torch.equal(torch.tensor(first.ci), torch.tensor(second.ci)) or not first.has_interval
    assert first.per_layer.equals(second.per_layer)


@pytest.mark.parametrize("portions", [(4, 4), (5, 20), (17, 1, 9)])
def test_extending_gives_the_bits_of_asking_at_once(estimate, portions):
    operator = Columnwise(symmetric(DECAYING), SLICES)
    result = estimate(operator, n_probes=portions[0], seed=3)
    for more in portions[1:]:
        result = result.extend(more)
    assert_same_bits(result, estimate(operator, n_probes=sum(portions), seed=3))


def test_a_blas_changes_rounding_at_most(estimate):
    operator = DenseOperator(symmetric(DECAYING), SLICES)
    result = estimate(operator, n_probes=6).extend(13)
    whole = estimate(operator, n_probes=19)
    assert result.estimate == pytest.approx(whole.estimate, abs=1e-12)
    assert result.stderr == pytest.approx(whole.stderr, rel=1e-9)
    assert result.n_matvecs == whole.n_matvecs


def test_no_product_is_spent_twice(estimate):
    operator = Counting(symmetric(DECAYING))
    first = estimate(operator, n_probes=6)
    assert operator.count == first.n_matvecs
    second = first.extend(7)
    third = second.extend(rtol=0.5, atol=0.3)
    assert operator.count == third.n_matvecs > second.n_matvecs > first.n_matvecs


def test_a_result_that_is_extended_stays(estimate):
    operator = Columnwise(symmetric(DECAYING))
    result = estimate(operator, n_probes=6)
    kept = (result.estimate, result.stderr, result.n_matvecs)
    assert_same_bits(result.extend(5), result.extend(5))
    assert (result.estimate, result.stderr, result.n_matvecs) == kept
    assert_same_bits(result.extend(0), result)


def test_a_probe_of_a_network_extends():
    probe = lgn.HessianProbe(network(), bits())
    result = hutchinson_trace(probe, n_probes=4).extend(6)
    whole = hutchinson_trace(probe, n_probes=10)
    assert result.estimate == pytest.approx(whole.estimate, rel=1e-12)
    assert result.stderr == pytest.approx(whole.stderr, rel=1e-9)


def test_extending_until_a_tolerance_is_met(estimate):
    operator = DenseOperator(symmetric(DECAYING))
    first = estimate(operator, rtol=None, atol=1e-9, max_matvecs=40)
    assert not first.converged
    assert "max_matvecs=40" in first.reason
    assert first.n_matvecs <= 40
    second = first.extend(atol=1.2 * first.stderr)
    assert second.converged
    assert second.reason.startswith("converged (atol)")
    assert second.n_matvecs > first.n_matvecs
    again = second.extend(atol=1.3 * first.stderr)  # met already
    assert (again.n_matvecs, again.estimate) == (second.n_matvecs, second.estimate)


def test_max_matvecs_counts_what_was_spent(estimate):
    operator = DenseOperator(symmetric(DECAYING))
    result = estimate(operator, n_probes=8)
    most = result.n_matvecs + 10
    assert result.extend(atol=0.0, max_matvecs=most).n_matvecs == most


def test_an_interval_that_decided_once_stays_wide():
    operator = DenseOperator(symmetric(DECAYING))
    stopped = hutchinson_trace(operator, rtol=None, atol=10.0)
    assert stopped.n_matvecs == 32
    fixed = hutchinson_trace(operator, n_probes=32)
    assert fixed.estimate == stopped.estimate
    assert stopped.ci[1] - stopped.ci[0] > 1.05 * (fixed.ci[1] - fixed.ci[0])
    extended, whole = stopped.extend(8), hutchinson_trace(operator, n_probes=40)
    assert extended.ci[1] - extended.ci[0] > 1.05 * (whole.ci[1] - whole.ci[0])


def test_a_stopped_run_looks_at_growing_sizes():
    operator = Counting(symmetric(DECAYING))
    result = hutchinson_trace(operator, rtol=None, atol=1.0)
    assert result.n_matvecs in interim_analyses(32, 2000)
    assert operator.widest <= 16


def test_results_are_frozen_and_copies_cannot_go_on(estimate):
    result = estimate(DenseOperator(symmetric(DECAYING)), n_probes=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.estimate = 0.0
    for twin in (copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert twin.estimate == result.estimate
        assert twin.per_layer.equals(result.per_layer)
        with pytest.raises(InvalidInputError, match="no estimator to go on from"):
            twin.extend(3)
    assert result.extend(3).n_matvecs > result.n_matvecs


def test_useless_options_are_refused(estimate):
    operator = Counting(torch.eye(30).double())
    with pytest.raises(InvalidInputError, match=r"tolerance \(rtol, atol or ftol\), or n_probes"):
        estimate(operator, rtol=None)
    with pytest.raises(InvalidInputError, match="at least 2 probes, got 1"):
        estimate(operator, n_probes=1)
    with pytest.raises(InvalidInputError, match="at least 2 probes, got -3"):
        estimate(operator, n_probes=-3)
    with pytest.raises(InvalidInputError, match="atol must be finite and not below zero"):
        estimate(operator, atol=-1.0)
    with pytest.raises(InvalidInputError, match=r"near zero; give at most 0\.5, or atol"):
        estimate(operator, rtol=2 * LARGEST_RTOL)
    with pytest.raises(InvalidInputError, match="max_matvecs=1"):
        estimate(operator, max_matvecs=1)
    with pytest.raises(InvalidInputError, match=r"(KiB|bytes).*max_bytes|fit max_bytes"):
        estimate(operator, max_bytes=100, n_probes=4)
    assert operator.count == 0
    result = estimate(operator, n_probes=3)
    with pytest.raises(InvalidInputError, match=r"or n_probes"):
        result.extend()
    with pytest.raises(InvalidInputError, match="at least 2 probes, got 1"):
        result.extend(-2)


def test_any_one_tolerance_suffices():
    assert Tolerances(0.1, 0.5, None).allowed(2.0, None) == (0.5, "atol")
    assert Tolerances(0.1, None, 0.2).allowed(-9.0, 4.0) == (0.9, "rtol")
    assert Tolerances(0.1, None, 0.3).allowed(-9.0, 4.0) == (1.2, "ftol")
    with pytest.raises(InvalidInputError, match="do not tell"):
        Tolerances(ftol=0.1).allowed(1.0, None)
    assert not Tolerances()
    assert Tolerances(atol=0.0)
