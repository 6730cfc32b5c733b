"""The recurrence: orthonormal, without ghosts, and over when there is nothing left."""

import numpy as np
import pytest
import torch

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian import DenseOperator, lanczos
from tests.hessian.cases import SPECTRA, Diagonal, symmetric

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


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


def test_a_small_remainder_in_many_dimensions_is_no_breakdown():
    values = 1e-4 * torch.linspace(0.5, 1, 300_000)
    values[0] = 1.0
    start = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    assert len(lanczos(Diagonal(values), start, 12).alpha) == 12


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_full_recurrence_has_every_eigenvalue(n):
    matrix = symmetric(np.arange(n) - 1.0)
    krylov = lanczos(DenseOperator(matrix), torch.ones(n, dtype=torch.float64), 10)
    assert np.allclose(np.linalg.eigvalsh(krylov.tridiagonal), np.arange(n) - 1.0)
    assert krylov.residual < 1e-12


def test_useless_starts_and_steps_are_refused():
    operator = DenseOperator(torch.eye(3))
    with pytest.raises(InvalidInputError, match="other than zero"):
        lanczos(operator, torch.zeros(3), 2)
    with pytest.raises(InvalidInputError, match="steps must be"):
        lanczos(operator, torch.ones(3), 0)
