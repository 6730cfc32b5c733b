"""Hutchinson's interval covers, its stopping rule keeps its word, its layers add up."""

import math

import pytest
import torch
from cases import bits, network, symmetric

import lgn_analysis as lgn
from lgn_analysis.errors import InvalidInputError
from lgn_analysis.hessian import DenseOperator, hutchinson_trace

SPECTRUM = [3.0, -1.0, 2.0, 0.5] + [0.1] * 26


def test_a_diagonal_matrix_is_estimated_exactly():
    operator = DenseOperator(torch.diag(torch.arange(5.0)))
    result = hutchinson_trace(operator, n_probes=2)
    assert result.estimate == 10
    assert result.stderr == 0


@pytest.mark.parametrize("options", [{"n_probes": 12}, {"rtol": 0.1}])
def test_intervals_cover(options):
    # 800 repeats of a 95 % interval: the standard error of the share is 0.8 %; 4 of them below
    # 95 % is 91.9 %. False-alarm rate 3e-5 where the coverage is exactly 95 %.
    matrix = symmetric(SPECTRUM)
    operator, exact = DenseOperator(matrix), float(torch.trace(matrix))
    covered = 0
    for seed in range(800):
        low, high = hutchinson_trace(operator, seed=seed, **options).ci
        covered += low <= exact <= high
    assert covered / 800 > 0.919


def test_the_estimate_is_unbiased():
    matrix = symmetric(SPECTRUM)
    estimates = torch.tensor(
        [hutchinson_trace(DenseOperator(matrix), n_probes=4, seed=s).estimate for s in range(500)]
    )
    # 4.5 standard errors: false-alarm rate 7e-6.
    error = abs(float(estimates.mean()) - float(torch.trace(matrix)))
    assert error < 4.5 * float(estimates.std()) / math.sqrt(500)


@pytest.mark.parametrize("tolerance", [{"rtol": 0.05}, {"atol": 0.3}, {"ftol": 0.05}])
def test_a_converged_interval_is_as_narrow_as_asked(tolerance):
    matrix = symmetric(SPECTRUM)
    options = {"rtol": None, **tolerance}
    result = hutchinson_trace(DenseOperator(matrix), max_matvecs=100_000, **options)
    assert result.converged
    half = (result.ci[1] - result.ci[0]) / 2
    size = {
        "rtol": abs(result.estimate),
        "atol": 1.0,
        "ftol": 1.5 * float(matrix.norm()),  # ‖H‖_F is itself estimated
    }
    ((name, factor),) = tolerance.items()
    assert half <= factor * size[name]


def test_a_trace_near_zero_stops_on_the_frobenius_norm_where_rtol_cannot():
    matrix = symmetric([1.0, -1.0] * 20)
    operator = DenseOperator(matrix)
    assert not hutchinson_trace(operator, rtol=0.01, max_matvecs=200).converged
    assert hutchinson_trace(operator, rtol=0.01, ftol=0.5, max_matvecs=200).converged


def test_an_unconverged_trace_says_why():
    result = hutchinson_trace(DenseOperator(symmetric(SPECTRUM)), rtol=1e-6, max_matvecs=20)
    assert not result.converged
    assert "max_matvecs=20" in result.reason
    assert result.n_matvecs == 20


def test_layers_add_up_to_the_trace_and_agree_with_their_blocks():
    model, (x, y) = network(), bits()
    probe = lgn.HessianProbe(model, (x, y))
    dense = probe.dense()
    result = probe.trace(n_probes=400)
    assert result.per_layer["estimate"].sum() == pytest.approx(result.estimate)
    for row, where in zip(result.per_layer.itertuples(), probe.slices.values(), strict=True):
        exact = float(torch.trace(dense[where, where]))
        assert abs(row.estimate - exact) < 5 * row.stderr  # false-alarm rate 1e-6


def test_equal_seeds_give_equal_bits():
    operator = DenseOperator(symmetric(SPECTRUM))
    first, second = (hutchinson_trace(operator, seed=3).estimate for _ in range(2))
    assert first == second
    assert hutchinson_trace(operator, seed=4).estimate != first


def test_useless_options_are_refused():
    operator = DenseOperator(torch.eye(3))
    with pytest.raises(InvalidInputError, match="tolerance"):
        hutchinson_trace(operator, rtol=None)
    with pytest.raises(InvalidInputError, match="at least 2"):
        hutchinson_trace(operator, n_probes=1)


def test_a_result_reads_as_a_sentence_and_as_a_table():
    result = hutchinson_trace(DenseOperator(torch.eye(3)), n_probes=2)
    assert "95 %" in repr(result)
    assert result.to_frame().loc[0, "estimate"] == 3
    assert "<table" in result._repr_html_()
