"""The density keeps the spectrum's mass and moments, and says how far it may be from it."""

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian import DenseOperator, DensityResult, spectral_density, top_eigenpairs
from tests.hessian.cases import SPECTRA, Diagonal, bits, network, peak_bytes, symmetric

LANCZOS = {"method": "lanczos", "deflate": 0}


def density_of(name, *, dtype=torch.float64, **options):
    operator = DenseOperator(symmetric(SPECTRA[name], dtype=dtype))
    return spectral_density(operator, **{**LANCZOS, **options})


def by_hand(nodes, weights, **options):
    """A result with these nodes and weights, one row a probe."""
    rest = {"n": 10, "n_matvecs": 0, "converged": True, "reason": "", "seed": 0}
    return DensityResult(np.array(nodes, float), np.array(weights, float), **{**rest, **options})


def signs(n, seed, count=1):
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randint(0, 2, (n,), generator=generator, dtype=torch.int8) for _ in range(count)]
    return [2.0 * draw.double() - 1 for draw in draws]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("deflate", [0, 2])
@pytest.mark.parametrize("name", SPECTRA)
def test_weights_are_a_distribution(name, deflate, dtype):
    result = density_of(name, n_probes=3, steps=20, deflate=deflate, dtype=dtype)
    assert result.weights.sum() == pytest.approx(1, abs=1e-6)
    assert (result.weights >= 0).all()
    assert result.cdf(np.inf) == pytest.approx(1, abs=1e-6)
    reach = abs(np.array(SPECTRA[name])).max()
    assert np.nanmax(abs(result.nodes)) <= reach * (1 + 1e-5) + 1e-6


def test_a_multiple_of_the_identity_is_one_spike():
    result = spectral_density(DenseOperator(3 * torch.eye(20)), n_probes=2, steps=10, **LANCZOS)
    assert result.to_frame()["node"].tolist() == pytest.approx([3, 3])
    assert result.cdf(2.9) == 0
    assert result.n_matvecs == 2
    assert result.error == 0
    assert result.converged


def test_the_zero_operator_has_its_mass_at_zero():
    result = density_of("zero", n_probes=3)
    assert result.wasserstein(0.0) == 0
    assert result.negative_mass == result.negative_mass_stderr == 0
    assert result.converged


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("method", ["auto", "lanczos", "dense"])
def test_tiny_operators(n, method):
    values = np.arange(n) - 1.0
    operator = DenseOperator(torch.diag(torch.from_numpy(values)))
    result = spectral_density(operator, n_probes=4, method=method)
    # A probe of signs weighs the eigenvectors of a diagonal matrix alike.
    assert result.wasserstein(values) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("steps", [2, 4, 7])
def test_moments_below_twice_the_steps_are_those_of_the_probes(steps):
    matrix = symmetric(np.linspace(-1, 2, 40))
    result = spectral_density(DenseOperator(matrix), n_probes=3, steps=steps, seed=3, **LANCZOS)
    for order in range(1, 2 * steps):
        exact = [
            float(z @ torch.linalg.matrix_power(matrix, order) @ z) / 40 for z in signs(40, 3, 3)
        ]
        estimate, stderr = result.moment(order)
        assert estimate == pytest.approx(np.mean(exact), abs=1e-10)
        assert stderr == pytest.approx(np.std(exact, ddof=1) / 3**0.5, abs=1e-10)


def test_moments_agree_with_the_spectrum_within_their_error():
    values = np.array(SPECTRA["indefinite"])
    for deflate in (0, 4):
        moments = density_of("indefinite", n_probes=64, steps=30, deflate=deflate).moments(4)
        for order, estimate, stderr in moments.itertuples(index=False):
            # 64 probes, 5.5 standard errors: false-alarm rate below 1e-6 for each, by Student's t.
            assert abs(estimate - (values**order).mean()) < 5.5 * stderr


def test_one_probe_has_no_error_and_does_not_converge():
    result = density_of("indefinite", n_probes=1, steps=10)
    assert np.isnan(result.moment(2)[1])
    assert np.isnan(result.error)
    assert np.isnan(result.negative_mass_stderr)
    assert not result.converged
    assert "2 or more" in result.reason


def lgn_like(seed=0):
    """Outliers at both ends, a bulk about zero, and a sixteenth of it exactly there."""
    rng = np.random.default_rng(seed)
    bulk = rng.laplace(size=600) * 5e-3
    ends = [*rng.uniform(0.3, 1, 9), *(0.3 * 0.9 ** np.arange(30)), *(-0.3 * 0.9 ** np.arange(30))]
    return np.concatenate([ends, bulk, np.zeros(45)])


@pytest.mark.parametrize(
    "values", [lgn_like(), np.array(SPECTRA["indefinite"] * 5)], ids=["lgn", "indefinite"]
)
def test_the_default_is_ten_times_nearer_to_the_spectrum_than_a_spike_at_zero(values):
    operator = DenseOperator(symmetric(values))
    spike = abs(values).mean()
    errors = []
    for seed in range(3):
        result = spectral_density(operator, seed=seed, method="lanczos")
        assert result.converged
        assert result.wasserstein(values) < spike / 10
        errors.append(result.error)
        # The estimate is of the mean over seeds; a single one strays by a factor of about two.
        assert result.error / 4 < result.wasserstein(values) < 4 * result.error + 0.01 * spike


def test_deflation_removes_most_of_the_error():
    values = lgn_like()
    operator = DenseOperator(symmetric(values))
    pairs = top_eigenpairs(operator, k=40, which="LM", method="lanczos")
    distances, stderrs = [], []
    for deflate in (0, pairs):
        runs = [
            spectral_density(operator, deflate=deflate, seed=seed, method="lanczos")
            for seed in range(3)
        ]
        distances.append(np.mean([run.wasserstein(values) for run in runs]))
        stderrs.append(np.mean([run.moment(2)[1] for run in runs]))
    assert distances[1] < distances[0] / 2
    assert stderrs[1] < stderrs[0] / 10


def test_the_continued_recurrence_resolves_what_the_steps_do_not():
    # Plain Gauss quadrature of m nodes is a staircase of m steps.
    values = np.linspace(-1, 2, 800)
    operator = DenseOperator(symmetric(values))
    result = spectral_density(operator, n_probes=8, steps=20, **LANCZOS)
    plain = []
    for z in signs(800, 0, 8):
        krylov = lgn.hessian.lanczos(operator, z, 20)
        nodes, vectors = np.linalg.eigh(krylov.tridiagonal)
        plain.append((nodes, vectors[0] ** 2 / 8))
    staircase = wasserstein_distance(
        np.concatenate([p[0] for p in plain]), values, np.concatenate([p[1] for p in plain])
    )
    assert result.wasserstein(values) < staircase / 2


@pytest.mark.parametrize("steps", [0, 60])
def test_a_network_trained_or_not_has_the_density_of_its_dense_hessian(steps):
    model, (x, y) = network(), bits(64)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x, mode="soft"), y).backward()
        optimiser.step()
    probe = lgn.HessianProbe(model, (x, y))
    exact = torch.linalg.eigvalsh(probe.dense()).numpy()
    spike = abs(exact).mean()
    result = probe.density(n_probes=16, steps=40, method="lanczos")
    assert result.wasserstein(exact) < spike / 10
    # 16 probes, 8 standard errors: false-alarm rate below 1e-6 for each, by Student's t.
    for order, estimate, stderr in result.moments(4).itertuples(index=False):
        assert abs(estimate - (exact**order).mean()) < 8 * stderr
    negative = -exact[exact < 0].sum() / abs(exact).sum()
    assert abs(result.negative_mass - negative) < 8 * result.negative_mass_stderr + 0.01
    dense = probe.density(method="dense")
    assert dense.exact
    assert dense.wasserstein(exact) == pytest.approx(0, abs=1e-12 * spike)
    assert dense.moments(2)["stderr"].tolist() == [0, 0]


def test_probes_advance_together_in_blocks_that_do_not_matter():
    class Widths(DenseOperator):
        seen: tuple[int, ...] = ()

        def matmat(self, v):
            self.seen = (*self.seen, v.shape[1])
            return super().matmat(v)

    matrix = symmetric(np.linspace(-1, 2, 200))
    options = {"n_probes": 5, "steps": 10, **LANCZOS}
    wide, narrow = Widths(matrix), Widths(matrix)
    a = spectral_density(wide, **options)
    b = spectral_density(narrow, max_bytes=35 * 200 * 8 + 5 * 200 * 8 + 2 * 200 * 8, **options)
    assert wide.seen == (5,) * 10
    assert narrow.seen == (2,) * 20  # the fifth goes alone
    assert a.n_matvecs == b.n_matvecs == 50
    assert np.allclose(a.nodes, b.nodes, atol=1e-8)


def test_a_probe_that_ends_early_leaves_the_others_alone():
    # Two swaps: a probe with the same sign in both is an eigenvector, any other needs two steps.
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    operator = DenseOperator(torch.block_diag(swap, swap))
    result = spectral_density(operator, n_probes=30, steps=4, **LANCZOS)
    lengths = (~np.isnan(result.nodes)).sum(1)
    assert set(lengths) == {1, 2}
    assert result.n_matvecs == lengths.sum()
    assert result.moment(2) == (pytest.approx(1), pytest.approx(0, abs=1e-12))
    # 30 probes, 5 standard errors of 0.13.
    assert result.wasserstein(np.array([-1.0, -1.0, 1.0, 1.0])) < 0.7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", [{"n_probes": 6, "steps": 12}, {"n_probes": 8, "steps": 40}])
@pytest.mark.parametrize("slack", [1, 4, 100])
def test_the_memory_budget_is_kept(slack, options, dtype):
    n = 20_000
    values = torch.cat([torch.linspace(-3, 3, 40), torch.linspace(-0.1, 0.1, n - 40)]).to(dtype)
    row = n * dtype.itemsize
    budget = slack * ((options["steps"] + 9) * row + 16 * n)
    peak, result = peak_bytes(
        lambda: spectral_density(Diagonal(values), max_bytes=budget, **options)
    )
    assert peak <= budget
    assert peak >= options["steps"] * row
    assert result.n_matvecs >= options["n_probes"] * options["steps"]


def test_memory_is_refused_with_the_steps_that_would_fit():
    operator = Diagonal(torch.linspace(-1, 1, 10_000))
    with pytest.raises(InvalidInputError, match="enough for 12 steps"):
        spectral_density(operator, n_probes=2, steps=30, max_bytes=1_000_000)
    assert spectral_density(operator, n_probes=2, steps=12, max_bytes=1_000_000).n_matvecs == 24


def test_dense_is_taken_where_it_is_cheap_and_fits():
    operator = DenseOperator(symmetric(np.linspace(-1, 2, 100)))
    result = spectral_density(operator)
    assert (result.reason, result.n_matvecs, result.exact) == ("dense", 100, True)
    assert spectral_density(operator, n_probes=2, steps=10).n_matvecs == 20
    assert not spectral_density(operator, deflate=3).exact
    assert not spectral_density(operator, max_bytes=150_000).exact


def test_without_being_asked_outliers_are_deflated_where_that_is_cheap():
    operator = Diagonal(torch.linspace(-1, 1, 5000))
    assert spectral_density(operator, n_probes=4, steps=20).n_matvecs == 80
    assert spectral_density(operator, n_probes=8, steps=40, deflate=0).n_matvecs == 320
    assert spectral_density(operator, n_probes=8, steps=40).n_matvecs > 320


def test_seeds_repeat_and_differ():
    runs = [density_of("indefinite", n_probes=2, steps=8, seed=seed).nodes for seed in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1], equal_nan=True)
    assert not np.array_equal(runs[0], runs[2], equal_nan=True)


def test_cdf_quantiles_and_intervals_of_a_known_result():
    result = by_hand([[0, 1, 2], [0, 1, 4]], np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]) / 2)
    assert result.cdf([-1, 0, 1, 3, 4]).tolist() == [0, 0.375, 0.75, 0.875, 1]
    assert result.quantile([0, 0.375, 0.4, 0.75, 0.8, 0.9, 1]).tolist() == [0, 0, 1, 1, 2, 4, 4]
    low, high = result.cdf_interval([0, 1])
    # Two probes, 0.5 and 0.25: t with one degree of freedom is 12.7, so the ends are 0 and 1.
    assert (low[0], high[0]) == (0, 1)
    assert low[1] == high[1] == 0.75
    with pytest.raises(InvalidInputError, match="a share in"):
        result.quantile(1.5)


def test_the_interval_covers_the_distribution_function():
    values = lgn_like()
    operator = DenseOperator(symmetric(values))
    result = spectral_density(operator, n_probes=16, method="lanczos")
    points = np.array([-0.1, -0.01, 0.003, 0.01, 0.1, 0.35])
    exact = (values[:, None] <= points).mean(0)
    low, high = result.cdf_interval(points)
    # 95 % pointwise; all six outside of twice the interval happen in less than one run of 1e5.
    half = (high - low) / 2
    assert (abs(exact - result.cdf(points)) <= 2 * half + 0.002).all()
    assert (half < 0.05).all()


def test_distances_of_known_results():
    result = by_hand([[0.0, 2.0]], [[0.5, 0.5]])
    assert result.wasserstein(0.0) == pytest.approx(1)
    assert result.wasserstein([0.0, 2.0]) == pytest.approx(0)
    assert result.wasserstein(by_hand([[1.0]], [[1.0]])) == pytest.approx(1)
    # cdf 0.25 and 0.75 between the nodes 0 and 2: a standard error of 0.25 over a length of 2.
    pair = by_hand([[0.0, 2.0], [0.0, 2.0]], [[0.125, 0.375], [0.375, 0.125]])
    assert pair.error == pytest.approx(np.sqrt(2 / np.pi) * 0.25 * 2)


def test_negative_mass_is_the_share_of_negative_curvature():
    values = np.array(SPECTRA["indefinite"])
    exact = -values[values < 0].sum() / abs(values).sum()
    result = density_of("indefinite", n_probes=64, steps=30)
    # 64 probes, 5.5 standard errors: false-alarm rate below 1e-6.
    assert abs(result.negative_mass - exact) < 5.5 * result.negative_mass_stderr
    assert result.negative_mass_stderr < 0.05


@pytest.mark.parametrize("sigma", [None, 0.05])
def test_smoothing_keeps_the_mass_even_of_spikes(sigma):
    grid = np.linspace(-8, 8, 2001)
    for name in ("rank-deficient", "identity", "multiple ends"):
        density = density_of(name, n_probes=4, steps=20).density(grid, sigma)
        assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)
        assert (density >= 0).all()


def test_the_default_smoothing_resolves_the_bulk_beside_outliers():
    # A bulk of width 0.01 beside an outlier at 1: a hundredth of the range would blur it away.
    values = np.concatenate([np.linspace(-0.01, 0.01, 800), [1.0]])
    result = spectral_density(DenseOperator(symmetric(values)), n_probes=4, steps=30, **LANCZOS)
    grid = np.linspace(-0.03, 0.03, 601)
    density = result.density(grid)
    inside = (density[(grid > -0.008) & (grid < 0.008)] * 0.02).mean()
    assert inside == pytest.approx(1, abs=0.1)
    assert density[abs(grid) > 0.015].max() * 0.02 < 0.05


def test_a_result_prints_its_numbers():
    result = density_of("indefinite", n_probes=3, steps=20)
    assert "3 probes" in repr(result)
    assert "converged" in repr(result)
    assert "<table" in result._repr_html_()
    assert list(result.to_frame().columns) == ["probe", "node", "weight"]
    assert list(result.moments().columns) == ["order", "estimate", "stderr"]


def test_no_bar_is_drawn_unless_asked(capsys):
    density_of("indefinite", n_probes=2, steps=3)
    assert capsys.readouterr().err == ""
    density_of("indefinite", n_probes=2, steps=3, progress=True)
    assert "density" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_probes": 0}, "n_probes and steps"),
        ({"steps": 0}, "n_probes and steps"),
        ({"method": "qr"}, "method must be"),
        ({"deflate": 20}, "deflate must lie"),
        ({"deflate": -1}, "deflate must lie"),
        ({"method": "dense", "max_bytes": 10}, "max_bytes allows"),
    ],
)
def test_useless_options_are_refused(options, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        spectral_density(DenseOperator(torch.eye(20)), **options)


def test_eigenpairs_of_something_else_are_refused():
    operator, pairs = DenseOperator(torch.eye(20)), top_eigenpairs(DenseOperator(torch.eye(8)), k=2)
    with pytest.raises(InvalidInputError, match="vectors of 8 numbers"):
        spectral_density(operator, deflate=pairs)
    loose = top_eigenpairs(
        DenseOperator(symmetric(np.linspace(-1, 1, 200))), k=2, tol=1e-9, max_matvecs=9
    )
    with pytest.raises(InvalidInputError, match="converged eigenpairs"):
        spectral_density(DenseOperator(torch.eye(200).double()), deflate=loose)
