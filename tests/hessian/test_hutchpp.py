"""Hutch++ is exact on what its sketch holds, unbiased, covered, and as good as curvlinops' own."""

import math

import pytest
import torch
from curvlinops import hutchpp_trace as curvlinops_hutchpp

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import Purpose, generator_for
from lgn_analysis.hessian import DenseOperator, hutchinson_trace
from lgn_analysis.hessian.estimators.hutchpp import hutchpp_trace
from lgn_analysis.hessian.estimators.quadratic_forms import draw
from tests.hessian.cases import SPECTRA, bits, network, symmetric
from tests.hessian.counting import Counting

DECAYING = [(-1) ** i * 2.0 ** (-i / 6) for i in range(70)]
SLICES = {"a": slice(0, 30), "b": slice(30, 70)}


def rms(errors):
    return float(torch.as_tensor(errors, dtype=torch.float64).square().mean().sqrt())


@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
@pytest.mark.parametrize("sketch", [1, 7, 20])
def test_it_is_its_definition(sketch, probes):
    matrix = symmetric(DECAYING)
    result = hutchpp_trace(
        DenseOperator(matrix, SLICES), n_probes=5, sketch=sketch, probes=probes, seed=4
    )
    start = draw(sketch, 70, generator_for(4, Purpose.PROBE, 1), probes)
    z = draw(5, 70, generator_for(4, Purpose.PROBE, 0), probes)
    q, _ = torch.linalg.qr(matrix @ start.T)
    inside = q @ q.T
    rest = torch.eye(70, dtype=torch.float64) - inside
    known = inside @ matrix + matrix @ inside - inside @ matrix @ inside
    terms = known.diagonal() + (z * (z @ rest @ matrix @ rest)).mean(0)
    layers = torch.stack([terms[where].sum() for where in SLICES.values()])
    torch.testing.assert_close(
        torch.tensor(result.per_layer["estimate"]), layers, rtol=0, atol=1e-12
    )
    assert result.estimate == pytest.approx(float(layers.sum()), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
def test_it_is_exact_where_the_sketch_holds_the_range(dtype, probes):
    matrix = symmetric(SPECTRA["rank-deficient"], dtype=dtype)  # rank 4
    result = hutchpp_trace(DenseOperator(matrix), n_probes=2, sketch=4, probes=probes)
    eps = torch.finfo(dtype).eps
    assert result.estimate == pytest.approx(7.0, abs=100 * eps)
    assert result.ci[0] <= 7.0 <= result.ci[1]
    assert result.ci[1] - result.ci[0] < 1e5 * eps
    assert result.n_matvecs == 4 + 4 + 2


def test_a_wider_sketch_multiplies_only_the_rank():
    operator = Counting(symmetric(SPECTRA["rank-deficient"]))
    result = hutchpp_trace(operator, n_probes=3, sketch=20)
    assert result.n_matvecs == operator.count == 20 + 4 + 3
    assert "exact on 4 sketched directions" in result.reason


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("n_probes", [3, 9])
def test_small_operators_and_more_probes_than_dimensions(n, n_probes):
    matrix = symmetric([2.0, -1.0, 0.5][:n])
    result = hutchpp_trace(DenseOperator(matrix), n_probes=n_probes)
    assert result.estimate == pytest.approx(float(matrix.trace()), abs=1e-13)


def test_the_zero_operator_has_trace_zero():
    result = hutchpp_trace(DenseOperator(torch.zeros(7, 7)), n_probes=4)
    assert (result.estimate, result.stderr, *result.ci) == (0.0, 0.0, 0.0, 0.0)


def test_it_is_unbiased_and_its_interval_covers():
    matrix = symmetric(DECAYING)
    operator, exact = DenseOperator(matrix), float(matrix.trace())
    results = [hutchpp_trace(operator, n_probes=8, sketch=8, seed=seed) for seed in range(400)]
    errors = torch.tensor([result.estimate - exact for result in results])
    # 4.5 standard errors: false-alarm rate 7e-6.
    assert abs(float(errors.mean())) < 4.5 * float(errors.std()) / math.sqrt(400)
    # The variance is unbiased. Its mean over 400 repeats scatters by 3 %, that of the squared errors
    # by 8 %: 40 % off is 4.5 standard errors.
    claimed = rms([result.stderr for result in results])
    assert 0.84 < claimed / rms(errors) < 1.2
    # 8 probes cover about 98 %; 93 % is below by 7 standard errors.
    assert sum(r.ci[0] <= exact <= r.ci[1] for r in results) / 400 > 0.93


def test_it_beats_hutchinson_on_a_decaying_spectrum():
    matrix = symmetric(DECAYING)
    operator, exact = DenseOperator(matrix), float(matrix.trace())
    ours = [hutchpp_trace(operator, n_probes=12, seed=s).estimate - exact for s in range(100)]
    plain = [hutchinson_trace(operator, n_probes=36, seed=s).estimate - exact for s in range(100)]
    assert rms(ours) < 0.5 * rms(plain)  # about 0.17; the ratio scatters by a tenth of itself


def test_it_agrees_with_curvlinops_in_distribution():
    # 400 repeats of 24 products each. Means within 4.5 standard errors: false-alarm rate 7e-6. The
    # log of the ratio of two rms errors scatters by 0.07: 0.7 is 5 of it away.
    matrix = symmetric(DECAYING)
    exact = float(matrix.trace())
    operator = DenseOperator(matrix)
    ours = torch.tensor(
        [hutchpp_trace(operator, n_probes=8, seed=seed).estimate - exact for seed in range(400)]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.tensor([float(curvlinops_hutchpp(matrix, 24)) - exact for _ in range(400)])
    standard_error = math.hypot(float(ours.std()), float(theirs.std())) / 20
    assert abs(float(ours.mean() - theirs.mean())) < 4.5 * standard_error
    assert 0.7 < rms(ours) / rms(theirs) < 1 / 0.7


def test_layers_add_up_and_agree_with_their_blocks():
    probe = lgn.HessianProbe(network(), bits())
    dense = probe.dense()
    result = hutchpp_trace(probe, n_probes=200, sketch=20)
    assert result.per_layer["estimate"].sum() == pytest.approx(result.estimate)
    for row, where in zip(result.per_layer.itertuples(), probe.slices.values(), strict=True):
        exact = float(torch.trace(dense[where, where]))
        assert abs(row.estimate - exact) < 5 * row.stderr  # false-alarm rate 1e-6
        assert row.stderr < float(dense.norm())


def test_layers_are_unbiased_at_a_small_sketch():
    matrix = symmetric(DECAYING)
    operator = DenseOperator(matrix, SLICES)
    layers = torch.stack(
        [
            torch.tensor(
                hutchpp_trace(operator, n_probes=2, sketch=3, seed=s).per_layer["estimate"]
            )
            for s in range(600)
        ]
    )
    exact = torch.stack([matrix[w, w].trace() for w in SLICES.values()])
    errors = (layers.mean(0) - exact).abs() / (layers.std(0) / math.sqrt(600))
    assert float(errors.max()) < 4.7  # of two: false-alarm rate 5e-6


def test_it_stops_on_a_tolerance_and_keeps_its_sketch():
    operator = Counting(symmetric(DECAYING))
    result = hutchpp_trace(operator, rtol=None, atol=0.2, sketch=10)
    assert result.converged
    assert (result.ci[1] - result.ci[0]) / 2 <= 0.2
    assert result.n_matvecs == operator.count
    more = result.extend(7)
    assert "exact on 10 sketched directions" in more.reason
    assert more.n_matvecs == result.n_matvecs + 7


def test_seeds_are_kept_apart_from_hutchinsons():
    operator = DenseOperator(symmetric(DECAYING))
    first, again, other = (hutchpp_trace(operator, n_probes=4, seed=s).estimate for s in (1, 1, 2))
    assert first == again != other


def test_a_sketch_that_does_not_fit_is_refused():
    operator = Counting(symmetric(DECAYING))
    with pytest.raises(
        InvalidInputError, match=r"sketch of 1000 vectors of 70 numbers takes .*, and max_bytes"
    ):
        hutchpp_trace(operator, n_probes=4, sketch=1000, max_bytes=10**5)
    with pytest.raises(InvalidInputError, match="sketch of 40 takes 80 products"):
        hutchpp_trace(operator, sketch=40, max_matvecs=80)
    with pytest.raises(InvalidInputError, match="sketch must be at least 1"):
        hutchpp_trace(operator, n_probes=4, sketch=0)
    with pytest.raises(InvalidInputError, match="use one of rademacher, gaussian"):
        hutchpp_trace(operator, n_probes=4, probes="normal")
    assert operator.count == 0
