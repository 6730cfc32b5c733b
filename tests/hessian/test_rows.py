"""Rows grow one at a time, copies share what is full, and bits do not depend on the portions."""

import torch

from lgn_analysis.hessian.estimators.rows import CHUNK, Rows, append_orthonormal


def filled(values):
    rows = Rows(values.shape[1], values.dtype, values.device)
    for row in values:
        rows.append(row)
    return rows


def numbers(m, n, *, seed=0):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_products_are_those_of_the_matrix():
    values, others = numbers(CHUNK + 5, 30), numbers(4, 30, seed=1)
    rows = filled(values)
    assert len(rows) == CHUNK + 5
    torch.testing.assert_close(rows.inner(others), values @ others.T)
    weights = numbers(CHUNK + 5, 3, seed=2)
    torch.testing.assert_close(rows.combine(weights), weights.T @ values)
    assert torch.equal(rows.between(CHUNK - 2, 10**6), values[CHUNK - 2 :])
    assert torch.equal(torch.cat(list(rows.chunks)), values)


def test_no_rows_are_a_matrix_too():
    rows = Rows(3, torch.float64, torch.device("cpu"))
    assert rows.inner(torch.ones(2, 3).double()).shape == (0, 2)
    assert torch.equal(rows.combine(torch.ones(0, 2).double()), torch.zeros(2, 3).double())


def test_copies_grow_apart():
    values = numbers(2 * CHUNK, 4)
    rows = filled(values[: CHUNK + 3])
    first, second = rows.copy(), rows.copy()
    first.append(values[CHUNK + 3])
    second.append(-values[CHUNK + 3])
    assert torch.equal(torch.cat(list(rows.chunks)), values[: CHUNK + 3])
    assert torch.equal(torch.cat(list(first.chunks)), values[: CHUNK + 4])
    assert torch.equal(list(second.chunks)[-1][-1], -values[CHUNK + 3])


def test_a_basis_is_orthonormal_and_gives_its_vectors_back():
    vectors = numbers(20, 25)
    vectors[7] = vectors[3] + 1e-9 * vectors[7]  # nearly dependent, yet more than rounding
    basis = Rows(25, torch.float64, vectors.device)
    for vector in vectors:
        coordinates, outside = append_orthonormal(basis, vector, 1e-14)
        assert outside == 0
        back = basis.combine(coordinates.unsqueeze(1))[0]
        torch.testing.assert_close(back, vector, rtol=0, atol=1e-14 * float(vector.norm()) * 10)
    q = torch.cat(list(basis.chunks))
    torch.testing.assert_close(q @ q.T, torch.eye(20).double(), rtol=0, atol=1e-14)


def test_dependent_vectors_add_nothing():
    vectors = numbers(3, 10)
    basis = Rows(10, torch.float64, vectors.device)
    for vector in (*vectors, vectors.sum(0), torch.zeros(10).double()):
        coordinates, outside = append_orthonormal(basis, vector, 1e-13)
    assert len(basis) == 3
    assert outside == 0
    assert torch.equal(coordinates, torch.zeros(3).double())
    coordinates, outside = append_orthonormal(basis, vectors[0] - vectors[2], 1e-13)
    assert 0 <= outside < 1e-13
    back = basis.combine(coordinates.unsqueeze(1))[0]
    torch.testing.assert_close(back, vectors[0] - vectors[2])
