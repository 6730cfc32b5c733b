"""Lanczos finds the spectrum as it is: no ghosts, no missing copies, in either precision."""

import numpy as np
import pytest
import torch
from cases import SPECTRA, bits, network, symmetric
from scipy.sparse.linalg import eigsh

import lgn_analysis as lgn
from lgn_analysis.errors import InvalidInputError
from lgn_analysis.hessian import DenseOperator, lanczos, top_eigenpairs

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


def wanted(eigenvalues, k, which):
    falling = np.sort(eigenvalues)[::-1]
    if which == "LA":
        return falling[:k]
    if which == "SA":
        return falling[len(falling) - k :]
    if which == "LM":
        return np.sort(falling[np.argsort(-abs(falling), kind="stable")[:k]])[::-1]
    return np.concatenate([falling[: k - k // 2], falling[len(falling) - k // 2 :]])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_the_basis_is_orthonormal_and_the_recurrence_holds(name, dtype):
    matrix = symmetric(SPECTRA[name], dtype=dtype)
    start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(1))
    krylov = lanczos(DenseOperator(matrix), start.to(dtype), 30)
    q, t = krylov.basis.double(), torch.from_numpy(krylov.tridiagonal)
    scale = max(1.0, float(matrix.norm()))
    assert (q.T @ q - torch.eye(q.shape[1])).abs().max() < TOLERANCE[dtype]
    assert (q.T @ matrix.double() @ q - t).abs().max() < TOLERANCE[dtype] * scale


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_no_ghosts_of_converged_eigenvalues(dtype):
    # One isolated eigenvalue converges at once; without reorthogonalisation it comes back.
    values = [1000.0, *np.linspace(0, 1, 199)]
    matrix = symmetric(values, dtype=dtype)
    krylov = lanczos(DenseOperator(matrix), torch.ones(200, dtype=dtype), 120)
    ritz = np.linalg.eigvalsh(krylov.tridiagonal)
    assert (ritz > 500).sum() == 1


def test_an_invariant_subspace_ends_the_recurrence():
    assert len(lanczos(DenseOperator(torch.eye(30)), torch.ones(30), 10).alpha) == 1
    assert len(lanczos(DenseOperator(torch.zeros(30, 30)), torch.ones(30), 10).alpha) == 1
    krylov = lanczos(DenseOperator(symmetric([2.0] * 10 + [1.0] * 10)), torch.ones(20), 10)
    assert len(krylov.alpha) == 2
    assert krylov.residual == 0


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_eigenvalues_are_those_of_a_dense_solver(name, dtype, which):
    matrix = symmetric(SPECTRA[name], dtype=dtype)
    tol = 1e-4 if dtype == torch.float32 else 1e-9
    result = top_eigenpairs(DenseOperator(matrix), k=5, which=which, tol=tol)
    exact = wanted(np.linalg.eigvalsh(matrix.double().numpy()), 5, which)
    assert result.converged
    assert np.abs(result.values - exact).max() < 10 * tol * max(1.0, abs(exact).max())
    assert (result.residuals <= tol).all()


def test_residuals_are_relative_to_the_largest_eigenvalue():
    matrix = symmetric(SPECTRA["indefinite"])
    result = top_eigenpairs(DenseOperator(matrix), k=4, tol=1e-6)
    error = matrix @ result.vectors - result.vectors * torch.from_numpy(result.values)
    expected = error.norm(dim=0).numpy() / abs(np.linalg.eigvalsh(matrix.numpy())).max()
    assert np.allclose(result.residuals, expected, rtol=1e-3, atol=1e-9)


def test_both_ends_split_as_in_scipy():
    matrix = symmetric(np.linspace(-1, 2, 50)).numpy()
    for k in (4, 5):
        ours = top_eigenpairs(DenseOperator(torch.from_numpy(matrix)), k=k, which="BE", tol=1e-9)
        theirs = eigsh(matrix, k=k, which="BE", return_eigenvectors=False)
        assert np.allclose(np.sort(ours.values), np.sort(theirs), atol=1e-8)


def test_a_network_has_the_eigenvalues_of_its_dense_hessian():
    probe = lgn.HessianProbe(network(), bits())
    result = probe.eigs(k=6, which="BE", tol=1e-8)
    exact = wanted(torch.linalg.eigvalsh(probe.dense()).numpy(), 6, "BE")
    assert np.allclose(result.values, exact, atol=1e-8 * abs(exact).max())


def test_a_budget_is_kept_and_said():
    matrix = symmetric(np.linspace(0, 1, 200))
    result = top_eigenpairs(DenseOperator(matrix), k=4, tol=1e-14, max_matvecs=20)
    assert result.n_matvecs == 20
    assert not result.converged
    assert "20 products" in result.reason


@pytest.mark.parametrize(
    ("options", "sentence"), [({"k": 0}, "k must lie"), ({"which": "XX"}, "which must be")]
)
def test_useless_options_are_refused(options, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        top_eigenpairs(DenseOperator(torch.eye(3)), **options)


class Diagonal:
    """A diagonal matrix that is too large to be written out."""

    def __init__(self, values):
        self.values = values
        self.shape = (len(values), len(values))
        self.dtype, self.device = values.dtype, values.device
        self.slices = {"all": slice(0, len(values))}

    def matvec(self, v):
        return self.values * v

    def matmat(self, v):
        return self.values[:, None] * v


def test_a_second_copy_near_a_dense_spectrum_is_found():
    # A few steps from a fresh start do not show it: the search has to converge too.
    values = torch.linspace(0, 1, 2000, dtype=torch.float64)
    values[-2:] = 1.0002
    result = top_eigenpairs(Diagonal(values), k=2, which="LA", max_matvecs=1000)
    assert result.converged
    assert result.values == pytest.approx([1.0002, 1.0002], abs=1e-6)


def test_a_small_remainder_in_many_dimensions_is_no_breakdown():
    values = 1e-4 * torch.linspace(0.5, 1, 300_000)
    values[0] = 1.0
    start = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    assert len(lanczos(Diagonal(values), start, 12).alpha) == 12


def test_residuals_are_those_of_the_pairs_returned():
    matrix = symmetric(SPECTRA["multiple ends"])
    result = top_eigenpairs(DenseOperator(matrix), k=5, which="BE", tol=1e-10)
    gap = matrix @ result.vectors - result.vectors * torch.from_numpy(result.values)
    assert np.allclose(gap.norm(dim=0).numpy() / 4, result.residuals, atol=1e-14)
    assert torch.allclose(result.vectors.T @ result.vectors, torch.eye(5).double(), atol=1e-12)


def test_a_tolerance_below_rounding_is_missed_aloud():
    matrix = symmetric(np.linspace(-1, 1, 60), dtype=torch.float32)
    result = top_eigenpairs(DenseOperator(matrix), k=2, tol=1e-12)
    assert not result.converged
    assert result.reason


def test_memory_is_refused_with_the_numbers():
    with pytest.raises(InvalidInputError, match="max_bytes"):
        top_eigenpairs(DenseOperator(torch.eye(50)), k=5, max_bytes=600)
