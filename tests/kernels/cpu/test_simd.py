"""Vectors in Numba, operation by operation, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit

from lgn_analysis.kernels.cpu.simd import (
    as_floats,
    as_ints,
    at,
    bits,
    exchange,
    fill,
    first_true,
    floats,
    fma,
    four_totals,
    interleave,
    lane_numbers,
    lanes_with,
    largest,
    load,
    load_like,
    longs,
    low_half,
    maximum,
    n_ones,
    prefetch,
    put,
    select,
    shift_down,
    sqrt,
    store,
    store_apart,
    to_floats,
    to_word,
    total,
    zip_bytes,
)

RNG = np.random.default_rng(0)


def normals(n: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(n).astype(np.float32)


def longs_at_random(n: int) -> np.ndarray[Any, Any]:
    return RNG.integers(-(2**63), 2**63 - 1, size=n, dtype=np.int64)


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda a, b: a + b, lambda a, b: a + b),
        (lambda a, b: a - b, lambda a, b: a - b),
        (lambda a, b: a * b, lambda a, b: a * b),
        (lambda a, b: a / b, lambda a, b: a / b),
        (lambda a, b: a * 2.0 - 1.0, lambda a, b: a * np.float32(2) - np.float32(1)),
        (lambda a, b: 1.0 - a, lambda a, b: np.float32(1) - a),
        (lambda a, b: maximum(a, b), np.maximum),
        (lambda a, b: select(a < b, a, b), np.minimum),
        (lambda a, b: select(a > b, a, b), np.maximum),
        (lambda a, b: sqrt(a * a), lambda a, b: np.sqrt(a * a)),
        (lambda a, b: as_floats(as_ints(a)), lambda a, b: a),
        (
            lambda a, b: select(lanes_with(4, 16), a, b),
            lambda a, b: np.where(np.arange(16) & 4, a, b),
        ),
        (lambda a, b: exchange(a, 2), lambda a, b: a[np.arange(16) ^ 2]),
    ],
)
def test_lane_wise_on_floats(compute: Callable[..., Any], expected: Callable[..., Any]) -> None:
    function = njit(compute)

    @njit
    def run(a, b, out):
        store(out, 3, function(load(a, 1, 16), load(b, 2, 16)))

    a, b, out = normals(20), normals(20), np.zeros(20, dtype=np.float32)
    run(a, b, out)
    assert np.array_equal(out[3:19], expected(a[1:17], b[2:18]))
    assert not out[:3].any()
    assert not out[19:].any()


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda a, b: a + b, lambda a, b: a + b),
        (lambda a, b: a * b, lambda a, b: a * b),
        (lambda a, b: (a & b) | (a ^ 5), lambda a, b: (a & b) | (a ^ 5)),
        (lambda a, b: a << 7, lambda a, b: a << 7),
        (lambda a, b: a >> 7, lambda a, b: a >> 7),
        (
            lambda a, b: shift_down(a, 7),
            lambda a, b: (a.view(np.uint64) >> np.uint64(7)).view(np.int64),
        ),
        (lambda a, b: a + lane_numbers(8), lambda a, b: a + np.arange(8)),
        (
            lambda a, b: select(a != b, longs(1, 8), longs(2, 8)),
            lambda a, b: np.where(a != b, 1, 2),
        ),
    ],
)
def test_lane_wise_on_longs(compute: Callable[..., Any], expected: Callable[..., Any]) -> None:
    function = njit(compute)

    @njit
    def run(a, b, out):
        x = load(a, 0, 8)
        store(out, 0, function(x, load_like(b, 0, x)))

    a, b, out = longs_at_random(8), longs_at_random(8), np.zeros(8, dtype=np.int64)
    b[3] = a[3]
    with np.errstate(over="ignore"):
        run(a, b, out)
        assert np.array_equal(out, expected(a, b))


def test_nan_survives_a_maximum_on_the_right() -> None:
    @njit
    def run(a, out):
        store(out, 0, maximum(-1.0, load(a, 0, 16)))

    a, out = np.full(16, np.nan, dtype=np.float32), np.zeros(16, dtype=np.float32)
    a[0] = -5.0
    run(a, out)
    assert out[0] == -1.0
    assert np.isnan(out[1:]).all()


def test_fma_rounds_once() -> None:
    @njit
    def run(a, out):
        store(out, 0, fma(load(a, 0, 16), load(a, 0, 16), -1.0))

    a = (1 + 2.0**-12 * np.arange(16)).astype(np.float32)
    out = np.zeros(16, dtype=np.float32)
    run(a, out)
    assert np.array_equal(out, (a.astype(np.float64) ** 2 - 1).astype(np.float32))


def test_reductions_add_halves_and_find_the_largest() -> None:
    @njit
    def run(a, four):
        x = load(a, 0, 64)
        store(four, 0, four_totals(x, x * 2.0, x * x, floats(1.0, 64)))
        return total(x), largest(x)

    a, four = normals(64), np.zeros(4, dtype=np.float32)
    summed, top = run(a, four)
    halves = a
    while len(halves) > 1:
        halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
    assert summed == halves[0]
    assert top == a.max()
    exact = a.astype(np.float64)
    np.testing.assert_allclose(
        four, [exact.sum(), 2 * exact.sum(), (exact**2).sum(), 64], rtol=1e-5
    )


def test_bits_and_words_are_inverse() -> None:
    @njit
    def run(words, out, ones):
        for place in range(len(words)):
            mask = bits(at(words, place))
            put(out, place, to_word(mask))
            store(ones, 64 * place, select(mask, fill(ones, 1, 64), fill(ones, 0, 64)))

    words = longs_at_random(5)
    out, ones = np.zeros_like(words), np.zeros(5 * 64, dtype=np.uint8)
    run(words, out, ones)
    assert np.array_equal(out, words)
    assert np.array_equal(ones.reshape(5, 64), (words[:, None] >> np.arange(64)) & 1)


def test_first_true_is_the_lowest_lane_and_the_last_where_none_is() -> None:
    @njit
    def run(a, value):
        return first_true(load(a, 0, 16) == value)

    a = np.array([0, 1, 2, 3] * 4, dtype=np.float32)
    assert [run(a, value) for value in (0.0, 3.0, 9.0, np.nan)] == [0, 3, 15, 15]


def test_interleaving_zips_four_vectors() -> None:
    @njit
    def run(a, out):
        w, x = load(a, 0, 8), load(a, 8, 8)
        y, z = load(a, 16, 8), load(a, 24, 8)
        store(out, 0, low_half(interleave(w, x, y, z)))

    a, out = np.arange(32, dtype=np.int64), np.zeros(32, dtype=np.int32)
    run(a, out)
    assert np.array_equal(out, a.reshape(4, 8).T.reshape(-1))


def test_bytes_are_zipped_into_longs_and_stored_apart() -> None:
    @njit
    def run(a, out):
        zipped = zip_bytes(
            load(a, 0, 64),
            load(a, 64, 64),
            load(a, 128, 64),
            load(a, 192, 64),
            load(a, 256, 64),
            load(a, 320, 64),
            load(a, 384, 64),
            load(a, 448, 64),
        )
        store_apart(out, 1, 3, zipped)

    a = RNG.integers(256, size=8 * 64).astype(np.uint8)
    out = np.zeros(3 * 64, dtype=np.int64)
    run(a, out)
    expected = np.ascontiguousarray(a.reshape(8, 64).T).view(np.int64).reshape(-1)
    assert np.array_equal(out[1::3], expected)
    assert not out[0::3].any()
    assert not out[2::3].any()


def test_integers_become_floats_by_value() -> None:
    @njit
    def run(a, out):
        store(out, 0, to_floats(low_half(load(a, 0, 16))))

    a, out = np.arange(-8, 8, dtype=np.int64) * 2**25 + 1, np.zeros(16, dtype=np.float32)
    run(a, out)
    assert np.array_equal(out, a.astype(np.float32))


def test_asking_ahead_beyond_an_array_is_harmless() -> None:
    @njit
    def run(a):
        prefetch(a, 2**40, 64)
        prefetch(a, -(2**40), 64)
        return a[0]

    assert run(np.ones(64, dtype=np.float32)) == 1.0


def test_ones_are_counted_over_all_lanes() -> None:
    @njit
    def run(values: Any) -> Any:
        return n_ones(load(values, 0, 8))

    for values in (longs_at_random(8), np.full(8, -1), np.zeros(8, dtype=np.int64)):
        expected = sum(bin(value % 2**64).count("1") for value in values.tolist())
        assert run(values) == expected
