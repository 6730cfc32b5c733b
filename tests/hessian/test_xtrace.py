"""XTrace is the mean of leave-one-out estimates, exact where it can be, and never NaN."""

import math

import pytest
import torch
from curvlinops import xtrace as curvlinops_xtrace

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import Purpose, generator_for
from lgn_analysis.hessian import DenseOperator
from lgn_analysis.hessian.estimators.quadratic_forms import draw
from lgn_analysis.hessian.estimators.xtrace import xtrace_trace
from tests.hessian.cases import SPECTRA, bits, network, symmetric
from tests.hessian.counting import Counting

DECAYING = [(-1) ** i * 2.0 ** (-i / 6) for i in range(70)]
SLICES = {"a": slice(0, 30), "b": slice(30, 70)}


def rms(errors):
    return float(torch.as_tensor(errors, dtype=torch.float64).square().mean().sqrt())


def leave_one_out(matrix, tests, slices):
    """The definition, word for word: a basis of all other images for every test vector."""
    n, m = len(matrix), len(tests)
    rows = []
    for i, test in enumerate(tests):
        others = torch.cat([tests[:i], tests[i + 1 :]]) @ matrix
        q, _ = torch.linalg.qr(others.T)
        inside = q @ q.T
        rest = torch.eye(n, dtype=torch.float64) - inside
        v = rest @ test
        known = inside @ matrix + matrix @ inside - inside @ matrix @ inside
        terms = known.diagonal() + (n - m + 1) / (v @ v) * v * (rest @ matrix @ v)
        rows.append(torch.stack([terms[where].sum() for where in slices.values()]))
    return torch.stack(rows)


@pytest.mark.parametrize("m", [2, 7, 33])
def test_the_shortcut_is_the_definition(m):
    matrix = symmetric(DECAYING)
    result = xtrace_trace(DenseOperator(matrix, SLICES), n_probes=m, seed=5)
    tests = draw(m, 70, generator_for(5, Purpose.PROBE, 2), "gaussian")
    tests *= math.sqrt(70) / tests.norm(dim=1, keepdim=True)
    terms = leave_one_out(matrix, tests, SLICES)
    assert result.estimate == pytest.approx(float(terms.sum(1).mean()), abs=1e-11)
    assert result.stderr == pytest.approx(float(terms.sum(1).std()) / math.sqrt(m), rel=1e-7)
    layers = torch.tensor(result.per_layer["estimate"])
    torch.testing.assert_close(layers, terms.mean(0), rtol=0, atol=1e-11)
    errors = torch.tensor(result.per_layer["stderr"])
    torch.testing.assert_close(errors, terms.std(0) / math.sqrt(m), rtol=1e-7, atol=0)
    assert result.n_matvecs == 2 * m


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [4, 5, 6, 25, 100])
def test_it_is_exact_from_one_vector_more_than_the_rank(m, dtype):
    matrix = symmetric(SPECTRA["rank-deficient"], dtype=dtype)  # rank 4 of 64
    operator = Counting(matrix)
    result = xtrace_trace(operator, n_probes=m)
    exact, eps = float(matrix.double().trace()), torch.finfo(dtype).eps
    assert math.isfinite(result.stderr)
    assert result.n_matvecs == operator.count
    if m == 4:  # leaving one out, three are left
        assert result.stderr > 1e-3
    else:
        assert abs(result.estimate - exact) < 1e4 * eps
        assert result.stderr < 1e4 * eps
    if m > 5 and dtype == torch.float64:
        assert "spans the range, of rank 4" in result.reason
        assert operator.count == m + 4


@pytest.mark.parametrize("spectrum", ["identity", "zero"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [2, 9, 40, 90])
def test_multiples_of_the_identity_are_exact(spectrum, dtype, m):
    values = SPECTRA[spectrum]
    matrix = torch.diag(torch.tensor(values, dtype=dtype))
    result = xtrace_trace(DenseOperator(matrix), n_probes=m)
    assert result.estimate == pytest.approx(sum(values), abs=1e3 * torch.finfo(dtype).eps)
    assert result.stderr <= 1e3 * torch.finfo(dtype).eps
    assert bool(result.per_layer["stderr"].notna().all())


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("m", [2, 3, 11])
def test_small_operators_and_more_vectors_than_dimensions(n, m):
    matrix = symmetric([2.0, -1.0, 0.5][:n])
    result = xtrace_trace(DenseOperator(matrix), n_probes=m)
    if m >= n:
        assert result.estimate == pytest.approx(float(matrix.trace()), abs=1e-13)
        assert result.stderr < 1e-12
    else:
        assert math.isfinite(result.estimate)
        assert result.stderr > 1e-3


def test_a_tail_at_the_edge_of_rounding_is_neither_lost_nor_nan():
    values = [1.0, -0.5] + [1e-14] * 98
    result = xtrace_trace(DenseOperator(symmetric(values)), n_probes=10)
    assert abs(result.estimate - sum(values)) <= 1e-12
    assert result.stderr <= 1e-11


def test_it_is_unbiased_and_its_error_estimate_is_of_the_right_size():
    matrix = symmetric(DECAYING)
    operator, exact = DenseOperator(matrix), float(matrix.trace())
    results = [xtrace_trace(operator, n_probes=10, seed=seed) for seed in range(300)]
    errors = torch.tensor([result.estimate - exact for result in results])
    # 4.5 standard errors: false-alarm rate 7e-6.
    assert abs(float(errors.mean())) < 4.5 * float(errors.std()) / math.sqrt(300)
    assert 0.6 < rms([result.stderr for result in results]) / rms(errors) < 1.4


def test_it_is_no_worse_than_curvlinops_and_better_on_a_shifted_spectrum():
    # 300 repeats of 20 products each. The log of the ratio of two rms errors scatters by 0.08:
    # 1.4 is 4 of it away.
    exact = {}
    for name, shift in (("decaying", 0.0), ("shifted", 1.0)):
        matrix = symmetric([value + shift for value in DECAYING])
        truth = float(matrix.trace())
        operator = DenseOperator(matrix)
        ours = [
            xtrace_trace(operator, n_probes=10, seed=seed).estimate - truth for seed in range(300)
        ]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            theirs = [float(curvlinops_xtrace(matrix, 20)) - truth for _ in range(300)]
        exact[name] = rms(ours) / rms(theirs)
        spread = math.hypot(float(torch.tensor(ours).std()), float(torch.tensor(theirs).std()))
        gap = abs(sum(ours) - sum(theirs)) / 300
        assert gap < 4.5 * spread / math.sqrt(300)  # false-alarm rate 7e-6
    assert exact["decaying"] < 1.4
    assert exact["shifted"] < 0.9


def test_layers_add_up_and_are_unbiased():
    matrix = symmetric(DECAYING)
    operator = DenseOperator(matrix, SLICES)
    results = [xtrace_trace(operator, n_probes=4, seed=seed) for seed in range(300)]
    for result in results[:5]:
        assert result.per_layer["estimate"].sum() == pytest.approx(result.estimate)
    layers = torch.tensor([list(result.per_layer["estimate"]) for result in results])
    exact = torch.stack([matrix[w, w].trace() for w in SLICES.values()])
    errors = (layers.mean(0) - exact).abs() / (layers.std(0) / math.sqrt(300))
    assert float(errors.max()) < 4.7  # of two: false-alarm rate 5e-6


def test_it_runs_on_a_network_in_float32():
    probe = lgn.HessianProbe(network(dtype=torch.float32), bits())
    exact = float(lgn.HessianProbe(network(), bits()).dense().trace())
    result = xtrace_trace(probe, n_probes=100)
    assert list(result.per_layer["layer"]) == list(probe.slices)
    assert abs(result.estimate - exact) < 6 * result.stderr + 1e-6


def test_it_says_that_it_owns_no_interval():
    result = xtrace_trace(DenseOperator(symmetric(DECAYING)), n_probes=6)
    assert result.error_kind == "error estimate"
    assert not result.has_interval
    assert all(math.isnan(end) for end in result.ci)
    assert "(error estimate), no interval" in repr(result)
    assert result.to_frame().loc[0, "error_kind"] == "error estimate"


def test_it_stops_on_its_error_estimate():
    operator = Counting(symmetric(DECAYING))
    result = xtrace_trace(operator, rtol=None, ftol=0.01)
    assert result.converged
    assert result.reason.startswith("converged (ftol)")
    assert result.stderr < 0.01 * float(operator.matrix.norm())
    assert result.n_matvecs == operator.count


def test_memory_bounds_the_sketch():
    operator = Counting(symmetric(DECAYING))
    # The algebra takes at most a quarter, here 6 blocks of 8 float64 vectors; 49 times three fit
    # into the rest, which are 48 in whole chunks of 16.
    room = 110_000
    assert (room - 6 * 8 * 8 * 70) // (3 * 8 * 70) == 49
    with pytest.raises(InvalidInputError, match=r"49 test vectors of 70 numbers .* room for 48"):
        xtrace_trace(operator, n_probes=49, max_bytes=room)
    assert operator.count == 0
    result = xtrace_trace(operator, rtol=None, atol=0.0, max_bytes=room)
    assert not result.converged
    assert "max_bytes" in result.reason
    assert result.n_matvecs == 96
    with pytest.raises(InvalidInputError, match="room for 48"):
        result.extend(1)
