"""Wirings: what they cover, what they repeat, what they refuse."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.wiring import WIRINGS, check_wiring, make_wiring

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32)).filter(
    lambda sizes: 2 * sizes[1] >= sizes[0]
)


def drawn(kind: str, n_in: int, n_out: int, seed: int = 0) -> torch.Tensor:
    return make_wiring(kind, n_in, n_out, generator=torch.Generator().manual_seed(seed))


@given(SIZES)
def test_random_wiring_reads_every_input_equally_often(sizes: tuple[int, int, int]) -> None:
    n_in, n_out, seed = sizes
    wiring = drawn("random", n_in, n_out, seed)
    assert wiring.shape == (2, n_out)
    assert wiring.dtype == torch.int64
    counts = torch.bincount(wiring.ravel(), minlength=n_in)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1


@given(SIZES)
def test_unique_wiring_reads_every_input_and_no_pair_twice(sizes: tuple[int, int, int]) -> None:
    n_in, n_out, seed = sizes
    if n_out > n_in * (n_in - 1) // 2:
        return
    wiring = drawn("unique", n_in, n_out, seed)
    assert (wiring[0] < wiring[1]).all()
    assert wiring[0].min() >= 0
    assert torch.equal(wiring.unique(), torch.arange(n_in))
    assert len({*map(tuple, wiring.T.tolist())}) == n_out


def published_pairs(n_in: int) -> Iterator[tuple[int, int]]:
    """(0,1), (2,3), …, then (1,2), (3,4), …, then offsets 2, 3, …"""
    yield from ((a, a + 1) for a in range(0, n_in - 1, 2))
    yield from ((a, a + 1) for a in range(1, n_in - 1, 2))
    for offset in range(2, n_in):
        yield from ((a, a + offset) for a in range(n_in - offset))


@pytest.mark.parametrize("n_out", [4, 5, 7, 8, 13, 14, 28])
def test_unique_wiring_takes_the_published_pairs_in_any_order(n_out: int) -> None:
    pairs = map(tuple, drawn("unique", 8, n_out).T.tolist())
    assert {*pairs} == {*itertools.islice(published_pairs(8), n_out)}


def test_unique_wiring_of_every_pair_is_complete() -> None:
    pairs = map(tuple, drawn("unique", 9, 36).T.tolist())
    assert {*pairs} == {*itertools.combinations(range(9), 2)}


def test_random_wiring_may_read_one_input_twice_at_one_gate() -> None:
    """Over 50 draws of 12 gates on 3 inputs: P(never) is below (2/3)^600."""
    assert any((w[0] == w[1]).any() for w in (drawn("random", 3, 12, seed) for seed in range(50)))


@pytest.mark.parametrize("kind", WIRINGS)
def test_a_wiring_is_a_function_of_its_generator(kind: str) -> None:
    assert torch.equal(drawn(kind, 20, 30, seed=1), drawn(kind, 20, 30, seed=1))
    assert not torch.equal(drawn(kind, 20, 30, seed=1), drawn(kind, 20, 30, seed=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("random", 0, 5), "at least one input and one gate, got n_in=0, n_out=5"),
        (("random", 5, 0), "at least one input and one gate, got n_in=5, n_out=0"),
        (("random", 11, 5), "5 gates read at most 10 of 11 inputs; use a width of at least 6"),
        (("unique", 4, 7), "4 inputs make only 6 different pairs, too few for 7 gates"),
        (("uniqe", 4, 4), "unknown wiring 'uniqe'; use one of random, unique"),
    ],
)
def test_what_cannot_be_wired_is_refused(arguments: tuple[str, int, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        drawn(*arguments)


@pytest.mark.parametrize(
    ("wiring", "message"),
    [
        (torch.zeros(2, 3), "integer indices, got dtype torch.float32"),
        (torch.zeros(2, 3, dtype=torch.bool), "integer indices, got dtype torch.bool"),
        (torch.zeros(3, 2, dtype=torch.int64), r"shape \(2, 3\), got \(3, 2\)"),
        (torch.tensor([[0, 1, 2], [0, 1, 4]]), r"must lie in 0\.\.3, got 0\.\.4"),
        (torch.tensor([[0, -1, 2], [0, 1, 3]]), r"must lie in 0\.\.3, got -1\.\.3"),
    ],
)
def test_a_foreign_wiring_is_checked(wiring: torch.Tensor, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_wiring(wiring, n_in=4, n_out=3)


def test_a_narrow_integer_wiring_is_widened() -> None:
    wiring = torch.tensor([[0, 3], [3, 1]], dtype=torch.int32)
    assert torch.equal(check_wiring(wiring, 4, 2), torch.tensor([[0, 3], [3, 1]]))
