"""Hutchinson's interval covers, its stopping rule keeps its word, its layers add up."""

import math

import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian import DenseOperator, frobenius_norm, hutchinson_trace
from tests.hessian.cases import SPECTRA, bits, network, symmetric
from tests.hessian.counting import Counting

SPECTRUM = [3.0, -1.0, 2.0, 0.5] + [0.1] * 26


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("diagonal", [[1.0] * 5, [0.0, 1.0, 2.0, 3.0, 4.0], [0.0] * 3, [7.0]])
def test_a_diagonal_matrix_is_estimated_exactly_by_signs(diagonal, dtype):
    operator = DenseOperator(torch.diag(torch.tensor(diagonal, dtype=dtype)))
    result = hutchinson_trace(operator, n_probes=6)
    assert result.estimate == sum(diagonal)
    assert result.stderr == 0
    assert result.ci == (sum(diagonal), sum(diagonal))


def test_five_signs_do_not_prove_that_a_matrix_is_diagonal():
    result = hutchinson_trace(DenseOperator(torch.eye(4).double()), n_probes=5)
    assert result.estimate == 4
    assert result.stderr == pytest.approx(math.sqrt(2 * 4 / 5))


@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
@pytest.mark.parametrize("options", [{"n_probes": 12}, {"rtol": 0.2}])
def test_intervals_cover(options, probes):
    # 800 repeats of a 95 % interval: the standard error of the share is 0.8 %; 4 of them below
    # 95 % is 91.9 %. False-alarm rate 3e-5 where the coverage is exactly 95 %.
    matrix = symmetric(SPECTRUM)
    operator, exact = DenseOperator(matrix), float(torch.trace(matrix))
    covered = 0
    for seed in range(800):
        low, high = hutchinson_trace(operator, seed=seed, probes=probes, **options).ci
        covered += low <= exact <= high
    assert covered / 800 > 0.919


@pytest.mark.parametrize("n_probes", [8, 16, 32])
def test_intervals_cover_at_rank_one(n_probes):
    # The most skewed form: the t interval of the forms' own variance covers 85, 89 and 91 %. 800
    # repeats, and 91.9 % is 4 standard errors below 95 %: false-alarm rate 3e-5.
    operator = DenseOperator(symmetric([1.0] + [0.0] * 59))
    ends = [hutchinson_trace(operator, n_probes=n_probes, seed=seed).ci for seed in range(800)]
    assert sum(low <= 1 <= high for low, high in ends) / 800 > 0.919


@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
def test_the_estimate_is_unbiased_and_its_standard_error_right(probes):
    matrix = symmetric(SPECTRUM)
    operator, exact = DenseOperator(matrix), float(torch.trace(matrix))
    results = [hutchinson_trace(operator, n_probes=6, seed=s, probes=probes) for s in range(500)]
    errors = torch.tensor([result.estimate - exact for result in results])
    # 4.5 standard errors: false-alarm rate 7e-6.
    assert abs(float(errors.mean())) < 4.5 * float(errors.std()) / math.sqrt(500)
    stderr = math.sqrt(sum(result.stderr**2 for result in results) / 500)
    spread = 2 * float(matrix.square().sum())
    if probes == "rademacher":
        spread -= 2 * float(matrix.diagonal().square().sum())
    assert stderr == pytest.approx(math.sqrt(spread / 6), rel=0.1)  # it scatters by 2 %


@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
@pytest.mark.parametrize("tolerance", [{"rtol": 0.05}, {"atol": 0.3}, {"ftol": 0.05}])
def test_a_converged_interval_is_as_narrow_as_asked(tolerance, probes):
    matrix = symmetric(SPECTRUM)
    options = {"rtol": None, **tolerance, "probes": probes}
    result = hutchinson_trace(DenseOperator(matrix), max_matvecs=100_000, **options)
    assert result.converged
    half = (result.ci[1] - result.ci[0]) / 2
    size = {
        "rtol": abs(result.estimate),
        "atol": 1.0,
        "ftol": 1.5 * float(matrix.norm()),  # ‖H‖_F is itself estimated
    }
    ((name, factor),) = tolerance.items()
    assert f"({name})" in result.reason
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


def test_memory_bounds_the_block():
    operator = Counting(symmetric(SPECTRUM))
    result = hutchinson_trace(operator, n_probes=10, max_bytes=4 * 8 * 30 * 4)
    assert operator.widest == 3  # the sums take the place of a fourth
    assert result.estimate == pytest.approx(hutchinson_trace(operator, n_probes=10).estimate)
    assert operator.widest == 10


@pytest.mark.parametrize("spectrum", ["zero", "identity", "rank-deficient", "clustered"])
@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
def test_the_frobenius_norm_is_covered(spectrum, probes):
    operator = DenseOperator(symmetric(SPECTRA[spectrum]))
    exact = math.hypot(*SPECTRA[spectrum])
    results = [
        frobenius_norm(operator, n_probes=n, seed=seed, probes=probes)
        for seed in range(150)
        for n in (8, 40)
    ]
    rounding = 1e-12
    covered = sum(r.ci[0] - rounding <= exact <= r.ci[1] + rounding for r in results)
    # The standard error of the share is 1.3 %; 90 % is 4 below 95 %: false-alarm rate 3e-5.
    assert covered / 300 > 0.90


def test_the_standard_error_of_the_frobenius_norm_bounds_its_scatter():
    matrix = symmetric(SPECTRUM)
    results = [frobenius_norm(DenseOperator(matrix), n_probes=20, seed=s) for s in range(300)]
    errors = torch.tensor([result.estimate - float(matrix.norm()) for result in results])
    claimed = math.sqrt(sum(result.stderr**2 for result in results) / 300)
    # Equal for Gaussian probes; signs spare the diagonal of H². The ratio scatters by 5 %.
    assert 0.9 < claimed / float(errors.square().mean().sqrt()) < 1.6


def test_the_frobenius_norm_stops_when_it_is_certain():
    operator = Counting(symmetric(SPECTRUM))
    result = frobenius_norm(operator, rtol=0.1)
    assert result.converged
    assert (result.ci[1] - result.ci[0]) / 2 <= 0.1 * result.estimate
    assert result.n_matvecs == operator.count
    short = frobenius_norm(operator, rtol=0.001, max_matvecs=33)
    assert not short.converged
    assert "max_matvecs=33" in short.reason
    fixed = frobenius_norm(operator, rtol=None, n_probes=7)
    assert (fixed.n_matvecs, fixed.reason) == (7, "7 probes as asked")
    with pytest.raises(InvalidInputError, match=r"tolerance \(rtol\), or n_probes"):
        frobenius_norm(operator, rtol=None)
    with pytest.raises(InvalidInputError, match="at least 2"):
        frobenius_norm(operator, n_probes=1)
    assert "95 %" in repr(fixed)
    assert fixed.to_frame().loc[0, "ci_low"] == fixed.ci[0]


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


def test_unknown_probes_are_refused():
    operator = DenseOperator(torch.eye(3))
    for estimate in (hutchinson_trace, frobenius_norm):
        with pytest.raises(InvalidInputError, match="'normal'; use one of rademacher, gaussian"):
            estimate(operator, n_probes=2, probes="normal")


def test_a_result_reads_as_a_sentence_and_as_a_table():
    result = hutchinson_trace(DenseOperator(torch.eye(3)), n_probes=2)
    assert "95 %" in repr(result)
    assert result.to_frame().loc[0, "estimate"] == 3
    assert "<table" in result._repr_html_()
