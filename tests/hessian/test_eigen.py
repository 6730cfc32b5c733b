"""Eigenpairs as a dense solver has them: no ghosts, no missing copies, within products and memory."""

import numpy as np
import pandas as pd
import pytest
import torch
from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

import lgn_analysis as lgn
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian import DenseOperator, top_eigenpairs
from lgn_analysis.hessian.estimators import eigen as eigen_module
from lgn_analysis.hessian.estimators.search import choose
from tests.hessian.cases import SPECTRA, Diagonal, bits, network, peak_bytes, symmetric

WHICH = ["LA", "SA", "LM", "BE"]
TOL = {torch.float32: 1e-4, torch.float64: 1e-9}


class Counted(DenseOperator):
    """A matrix that counts its products."""

    n_matvecs = 0

    def matvec(self, v):
        self.n_matvecs += 1
        return super().matvec(v)

    def matmat(self, v):
        self.n_matvecs += v.shape[1]
        return super().matmat(v)


def wanted(eigenvalues, k, which):
    falling = np.sort(eigenvalues)[::-1]
    if which == "LA":
        return falling[:k]
    if which == "SA":
        return falling[len(falling) - k :]
    if which == "LM":
        return np.sort(falling[np.argsort(-abs(falling), kind="stable")[:k]])[::-1]
    return np.concatenate([falling[: k - k // 2], falling[len(falling) - k // 2 :]])


def check(result, matrix, k, which, tol):
    matrix = matrix.double()
    spectrum = np.linalg.eigvalsh(matrix.numpy())
    exact, scale = wanted(spectrum, k, which), abs(spectrum).max() or 1.0
    assert result.converged, result.reason
    assert np.abs(result.values - exact).max() <= 10 * tol * scale
    assert (result.residuals <= tol).all()
    values = torch.from_numpy(result.values)
    gap = (matrix @ result.vectors - result.vectors * values).norm(dim=0).numpy() / scale
    assert np.allclose(gap, result.residuals, atol=1e-6 if tol > 1e-6 else 1e-13)
    eye = torch.eye(k, dtype=torch.float64)
    assert (result.vectors.T @ result.vectors - eye).abs().max() < 1e-11


@pytest.mark.parametrize("method", ["lanczos", "dense"])
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("dtype", TOL, ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_pairs_are_those_of_a_dense_solver(name, dtype, which, method):
    matrix = symmetric(SPECTRA[name], dtype=dtype)
    operator, tol = Counted(matrix), TOL[dtype]
    result = top_eigenpairs(operator, k=5, which=which, tol=tol, method=method)
    check(result, matrix, 5, which, tol)
    assert result.n_matvecs == operator.n_matvecs
    assert (result.method, result.which) == (method, which)


@pytest.mark.parametrize("method", ["lanczos", "dense", "auto"])
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("n", [1, 2, 3, 30])
@pytest.mark.parametrize("dtype", TOL, ids=str)
def test_all_pairs_of_a_small_matrix(dtype, n, which, method):
    matrix = symmetric(np.arange(n) - 1.0, dtype=dtype)
    for k in {n, (n + 1) // 2}:
        result = top_eigenpairs(
            DenseOperator(matrix), k=k, which=which, tol=TOL[dtype], method=method
        )
        check(result, matrix, k, which, TOL[dtype])


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("dtype", TOL, ids=str)
def test_clusters_at_both_ends_are_found_whole(dtype, which):
    # Twins, triplets and a tight pair at each end of a spectrum that piles up at zero.
    rest = 1e-3 * np.random.default_rng(0).normal(size=300)
    ends = [5.0, 5.0, 5.0, 4.0, 4.0, 3.0, 2.999, -6.0, -6.0, -6.0, -3.0, -3.0, -2.0, -1.999]
    matrix = symmetric([*ends, *rest], dtype=dtype)
    result = top_eigenpairs(
        DenseOperator(matrix), k=12, which=which, tol=TOL[dtype], method="lanczos"
    )
    check(result, matrix, 12, which, TOL[dtype])


@pytest.mark.parametrize("seed", range(5))
def test_a_small_basis_restarts_and_finds_the_same(seed):
    values = [*np.linspace(-2, -1, 8), *np.linspace(1, 2, 8), *np.linspace(-0.9, 0.9, 384)]
    matrix = symmetric(values)
    least = eigen_module.least_bytes(400, 8, 8)[1]
    operator = Counted(matrix)
    result = top_eigenpairs(
        operator, k=8, tol=1e-9, method="lanczos", max_bytes=least, max_matvecs=4000, seed=seed
    )
    check(result, matrix, 8, "BE", 1e-9)
    free = top_eigenpairs(DenseOperator(matrix), k=8, tol=1e-9, method="lanczos", seed=seed)
    assert free.n_matvecs < result.n_matvecs < 12 * free.n_matvecs
    with pytest.raises(InvalidInputError, match="max_bytes allows"):
        top_eigenpairs(operator, k=8, method="lanczos", max_bytes=least - 1)


def test_no_ghost_takes_a_place():
    # Outliers that converge at once, and a slow end that keeps the iteration going.
    values = [1000.0, -800.0, *np.linspace(0, 1, 398)]
    matrix = symmetric(values)
    result = top_eigenpairs(
        DenseOperator(matrix), k=6, tol=1e-9, method="lanczos", max_matvecs=3000
    )
    check(result, matrix, 6, "BE", 1e-9)


def test_a_second_copy_near_a_dense_spectrum_is_found():
    values = torch.linspace(0, 1, 2000, dtype=torch.float64)
    values[-2:] = 1.0002
    result = top_eigenpairs(Diagonal(values), k=2, which="LA", max_matvecs=1000)
    assert result.converged
    assert result.values == pytest.approx([1.0002, 1.0002], abs=1e-6)


def test_one_start_sees_one_copy_and_spends_less():
    values = 0.01 * torch.linspace(-1, 1, 4000, dtype=torch.float64)
    values[-3:] = torch.tensor([2.0, 3.0, 3.0])
    options = {"k": 2, "which": "LA", "tol": 1e-4}
    both, one = (top_eigenpairs(Diagonal(values), copies=c, **options) for c in (True, False))
    assert both.values == pytest.approx([3, 3], abs=1e-6)
    assert one.values == pytest.approx([3, 2], abs=1e-6)
    assert one.n_matvecs < both.n_matvecs


@pytest.mark.parametrize("copies", [True, False])
def test_no_more_products_than_scipy_by_more_than_a_third(copies):
    rest = 1e-4 * np.random.default_rng(0).normal(size=20_000)
    values = np.concatenate([0.93 ** np.arange(80), -0.5 * 0.95 ** np.arange(80), rest])
    matrix = Diagonal(torch.from_numpy(values))
    ours = top_eigenpairs(matrix, k=20, copies=copies)
    counted = 0

    def product(v):
        nonlocal counted
        counted += 1
        return values * v.ravel()

    operator = LinearOperator((len(values),) * 2, matvec=product, dtype="float64")
    start = np.random.default_rng(1).normal(size=len(values))
    theirs = eigsh(operator, k=20, which="BE", tol=1e-6, v0=start, return_eigenvectors=False)
    assert ours.converged
    assert np.abs(ours.values - np.sort(theirs)[::-1]).max() < 1e-9
    # The products of the residuals, one a pair, are ours alone.
    assert ours.n_matvecs - 20 <= counted * (4 / 3 if copies else 1)


def test_both_ends_split_as_in_scipy():
    matrix = symmetric(np.linspace(-1, 2, 50)).numpy()
    for k in (4, 5):
        ours = top_eigenpairs(
            DenseOperator(torch.from_numpy(matrix)), k=k, tol=1e-9, method="lanczos"
        )
        theirs = eigsh(matrix, k=k, which="BE", return_eigenvectors=False)
        assert np.allclose(np.sort(ours.values), np.sort(theirs), atol=1e-8)


def test_a_network_has_the_eigenvalues_of_its_dense_hessian_and_of_curvlinops():
    model, (x, y) = network(), bits()
    probe = lgn.HessianProbe(model, (x, y))
    result = probe.eigs(k=6, which="BE", tol=1e-8, method="lanczos")
    exact = wanted(torch.linalg.eigvalsh(probe.dense()).numpy(), 6, "BE")
    assert np.allclose(result.values, exact, atol=1e-8 * abs(exact).max())

    class SoftMode(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, inputs):
            return self.inner(inputs, mode="soft")

    soft = SoftMode()
    params = list(soft.parameters())
    hessian = HessianLinearOperator(soft, nn.CrossEntropyLoss(), params, [(x, y)])
    theirs = eigsh(hessian.to_scipy(), k=6, which="BE", return_eigenvectors=False)
    assert np.allclose(np.sort(result.values), np.sort(theirs), atol=1e-8 * abs(exact).max())


def test_a_budget_is_kept_and_said():
    matrix = symmetric(np.linspace(0, 1, 200))
    for copies in (True, False):
        operator = Counted(matrix)
        result = top_eigenpairs(operator, k=4, tol=1e-14, max_matvecs=20, copies=copies)
        assert operator.n_matvecs == result.n_matvecs == 20
        assert not result.converged
        assert "20 products" in result.reason
        assert len(result.values) == 4


def test_a_search_that_runs_out_of_products_says_so():
    # The triplet is found once at first; what is left cannot pay for a search.
    values = torch.linspace(0, 1, 5000, dtype=torch.float64)
    values[-3:] = 5.0
    enough = top_eigenpairs(Diagonal(values), k=2, which="LA")
    short = top_eigenpairs(Diagonal(values), k=2, which="LA", max_matvecs=enough.n_matvecs - 10)
    assert enough.converged
    assert not short.converged
    assert short.values == pytest.approx([5, 5], abs=1e-6)


def test_a_tolerance_below_rounding_is_missed_aloud():
    matrix = symmetric(np.linspace(-1, 1, 60), dtype=torch.float32)
    result = top_eigenpairs(DenseOperator(matrix), k=2, tol=1e-12, method="lanczos")
    assert not result.converged
    assert "float32" in result.reason or "products" in result.reason


def test_a_wrong_estimate_of_orthogonality_is_noticed(monkeypatch):
    # Tolerate almost any loss: ghosts appear, are not independent, and all is done again.
    tolerated = []
    monkeypatch.setattr(eigen_module, "tolerated_cosine", lambda dtype, tol: 0.9)
    made = eigen_module.Basis
    monkeypatch.setattr(
        eigen_module, "Basis", lambda *a, **k: tolerated.append(k["semi"]) or made(*a, **k)
    )
    matrix = symmetric([1000.0, *np.linspace(0, 1, 399)])
    operator = Counted(matrix)
    result = top_eigenpairs(
        operator, k=4, tol=1e-10, which="LA", method="lanczos", max_matvecs=4000
    )
    check(result, matrix, 4, "LA", 1e-10)
    assert tolerated == [0.9, 0.0]
    assert result.n_matvecs == operator.n_matvecs


def test_products_that_are_not_finite_are_refused():
    values = torch.ones(5000)
    values[7] = torch.nan
    with pytest.raises(InvalidInputError, match="not finite"):
        top_eigenpairs(Diagonal(values), k=2)


@pytest.mark.parametrize("dtype", TOL, ids=str)
@pytest.mark.parametrize("slack", [1, 2, 100])
def test_the_memory_budget_is_kept(slack, dtype):
    n, k = 20_000, 6
    values = torch.cat([torch.linspace(-3, 3, 40), torch.linspace(-0.1, 0.1, n - 40)]).to(dtype)
    budget = slack * eigen_module.least_bytes(n, dtype.itemsize, k)[1]
    peak, result = peak_bytes(
        lambda: top_eigenpairs(Diagonal(values), k=k, tol=1e-4, max_bytes=budget)
    )
    assert result.converged
    assert peak <= budget
    assert peak >= 2 * k * n * dtype.itemsize  # the measure sees the basis


def test_dense_is_taken_where_it_is_cheap_and_fits():
    matrix = symmetric(np.linspace(-1, 1, 60))
    assert top_eigenpairs(DenseOperator(matrix), k=3).method == "dense"
    assert top_eigenpairs(DenseOperator(matrix), k=3).n_matvecs == 60
    assert top_eigenpairs(DenseOperator(matrix), k=3, max_matvecs=50).method == "lanczos"
    assert top_eigenpairs(DenseOperator(matrix), k=3, max_bytes=80_000).method == "lanczos"
    assert top_eigenpairs(DenseOperator(symmetric(np.linspace(-1, 1, 400))), k=3).method == (
        "lanczos"
    )
    with pytest.raises(InvalidInputError, match="method='lanczos'"):
        top_eigenpairs(DenseOperator(matrix), k=3, max_bytes=80_000, method="dense")


def test_a_dense_matrix_that_is_not_symmetric_shows_in_the_residuals():
    matrix = symmetric(np.linspace(-1, 1, 20)).clone()
    matrix[0, 1] += 0.1
    result = top_eigenpairs(DenseOperator(matrix), k=20, method="dense")
    assert not result.converged
    assert result.residuals.max() > 0.01


def test_seeds_repeat_and_differ():
    operator = DenseOperator(symmetric(np.linspace(-1, 1, 300)))
    runs = [top_eigenpairs(operator, k=4, tol=1e-5, seed=seed).vectors for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_no_bar_is_drawn_unless_asked(capsys):
    operator = DenseOperator(symmetric(np.linspace(-1, 1, 300)))
    top_eigenpairs(operator, k=2, tol=1e-2)
    assert capsys.readouterr().err == ""
    top_eigenpairs(operator, k=2, tol=1e-2, progress=True)
    assert "eigs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": 0}, "k must lie"),
        ({"k": 4}, "k must lie"),
        ({"which": "XX"}, "which must be"),
        ({"method": "qr"}, "method must be"),
        ({"tol": 0.0}, "tol must be"),
        ({"k": 2, "max_matvecs": 3, "method": "lanczos"}, "at least 5 products"),
        ({"k": 2, "max_bytes": 100, "method": "lanczos"}, "KiB, and max_bytes allows 100 bytes"),
    ],
)
def test_useless_options_are_refused(options, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        top_eigenpairs(DenseOperator(torch.eye(3)), **{"k": 1, **options})


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_choosing_agrees_with_sorting(k, which):
    values = np.array([0.5, -3.0, 2.0, 1.0, -1.0, 2.5])
    assert values[choose(values, k, which)].tolist() == wanted(values, k, which).tolist()


def test_mass_and_participation_of_known_vectors():
    # Two blocks: the vectors of one lie in one slice, and one of them on one coordinate.
    matrix = torch.zeros(6, 6, dtype=torch.float64)
    matrix[0, 0] = 3.0
    matrix[2:, 2:] = -torch.ones(4, 4)
    slices = {"a": slice(0, 2), "b": slice(2, 6)}
    result = top_eigenpairs(DenseOperator(matrix, slices), k=2)
    assert result.values == pytest.approx([3, -4])
    assert result.mass.to_numpy() == pytest.approx(np.eye(2), abs=1e-12)
    assert list(result.mass.columns) == ["a", "b"]
    assert result.participation == pytest.approx([1 / 6, 4 / 6])
    assert result.pair_converged.all()
    frame = result.to_frame()
    assert list(frame.columns) == [
        "value", "residual", "converged", "participation", "mass a", "mass b",
    ]  # fmt: skip
    assert frame["mass b"].tolist() == pytest.approx([0, 1], abs=1e-12)
    long = result.per_layer
    assert long.groupby("pair")["mass"].sum().tolist() == pytest.approx([1, 1])
    assert list(long.columns) == ["pair", "value", "layer", "mass"]
    assert isinstance(long, pd.DataFrame)
    assert "products" in repr(result)
    assert "<table" in result._repr_html_()


def test_mass_adds_to_one_over_a_networks_layers():
    probe = lgn.HessianProbe(network(), bits())
    result = probe.eigs(k=5)
    assert list(result.mass.columns) == list(probe.slices)
    assert result.mass.sum(axis=1).to_numpy() == pytest.approx(np.ones(5))
