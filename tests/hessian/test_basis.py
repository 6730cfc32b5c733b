"""The restarted basis keeps its relation H Qᵀ = Qᵀ T + Nᵀ C, whatever has happened to it."""

import numpy as np
import pytest
import torch

from lgn_analysis.hessian import DenseOperator
from lgn_analysis.hessian.estimators.basis import Basis, random_unit, remove, tolerated_cosine
from tests.hessian.cases import SPECTRA, symmetric


def basis_of(matrix, *, capacity=30, block=2, semi=0.0):
    generator = torch.Generator().manual_seed(0)
    return Basis(
        DenseOperator(matrix), capacity=capacity, block=block, generator=generator, semi=semi
    )


def gap(basis, matrix):
    """The largest entry of H Qᵀ − Qᵀ T − Nᵀ C."""
    m, end = basis.size, basis.size + basis.width
    q, after = basis.rows[:m].double(), basis.rows[m:end].double()
    t, c = basis._projected[:m, :m], basis._coupling[: basis.width, :m]
    right = q.T @ torch.from_numpy(t) + after.T @ torch.from_numpy(c)
    return float((matrix.double() @ q.T - right).abs().max())


def cosines(basis):
    rows = basis.rows[: basis.locked + basis.size + basis.width].double()
    return float((rows @ rows.T - torch.eye(len(rows))).abs().max())


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_the_relation_holds_through_restarts(name, dtype, block):
    matrix = symmetric(SPECTRA[name], dtype=dtype)
    basis = basis_of(matrix, capacity=20, block=block)
    for _ in range(3):
        while not (basis.full or basis.complete):
            basis.grow()
        values, turn, _ = basis.ritz()
        basis.restart(values[-7:], turn[:, -7:])
        assert basis.size == 7
    rounding = 300 * torch.finfo(dtype).eps
    assert cosines(basis) < rounding
    assert gap(basis, matrix) < rounding * max(1.0, abs(np.array(SPECTRA[name])).max())


def lgn_like():
    """A few outliers at both ends of a spectrum that piles up at zero."""
    rest = 1e-4 * np.random.default_rng(0).normal(size=400)
    return np.concatenate([0.8 ** np.arange(20), -0.5 * 0.85 ** np.arange(20), rest])


@pytest.mark.parametrize("block", [1, 2])
def test_partial_orthogonality_keeps_the_projected_matrix_to_rounding(block):
    matrix = symmetric(lgn_like())
    semi = tolerated_cosine(torch.float64, 1e-6)
    lazy, strict = (basis_of(matrix, capacity=120, block=block, semi=s) for s in (semi, 0.0))
    for _ in range(60 // block):
        lazy.grow(), strict.grow()
    assert 1e-13 < cosines(lazy) < 1e-6  # something was left undone, and not too much
    assert cosines(strict) < 1e-13
    assert np.abs(lazy.ritz()[0] - strict.ritz()[0]).max() < 1e-12


def test_without_any_removal_there_would_be_ghosts():
    matrix = symmetric(lgn_like())
    tops = {}
    for semi in (1e9, tolerated_cosine(torch.float64, 1e-6)):
        basis = basis_of(matrix, capacity=120, block=1, semi=semi)
        for _ in range(100):
            basis.grow()
        tops[semi] = int((basis.ritz()[0] > 0.9).sum())
    assert tops.pop(1e9) > 1
    assert list(tops.values()) == [1]


def test_removal_repeats_until_nothing_is_left():
    rows = torch.eye(3, 50, dtype=torch.float64)
    v = torch.ones(50, dtype=torch.float64) * 1e-12
    v[0] = 1.0
    norm, level = remove(v, rows)
    assert level == pytest.approx(1, abs=1e-9)
    assert norm == pytest.approx(1e-12 * 47**0.5)
    assert (rows @ v).abs().max() == 0


def test_a_random_vector_fits_into_the_last_dimension():
    basis, _ = torch.linalg.qr(torch.randn(40, 39, generator=torch.Generator().manual_seed(0)))
    v = random_unit(basis.T.contiguous(), torch.Generator().manual_seed(1))
    assert (basis.T @ v).abs().max() < 1e-5
    assert float(v.norm()) == pytest.approx(1, abs=1e-5)


def test_an_operator_may_return_its_argument():
    class Identity(DenseOperator):
        def matvec(self, v):
            return v

        def matmat(self, v):
            return v

    matrix = torch.eye(40, dtype=torch.float64)
    basis = Basis(
        Identity(matrix), capacity=20, block=2, generator=torch.Generator().manual_seed(0), semi=0
    )
    for _ in range(6):
        basis.grow()
    assert gap(basis, matrix) < 1e-13
    assert cosines(basis) < 1e-13
