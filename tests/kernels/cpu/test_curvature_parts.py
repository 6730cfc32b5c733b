"""What the passes of a curvature are made of, part by part."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from numba import njit

from lgn_analysis.gates.noise import NoiseKey, Purpose, random_signs
from lgn_analysis.gates.table import TRUTH_TABLE
from lgn_analysis.kernels.cpu import noise
from lgn_analysis.kernels.cpu.curvature.order import build_order
from lgn_analysis.kernels.cpu.curvature.signs import length_forms
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, build_wires
from lgn_analysis.kernels.cpu.simd import (
    concatenate,
    fma,
    four_totals,
    load,
    load_like,
    mask_of,
    n_lanes,
    put,
    repeat,
    select,
    slice_totals,
    spread,
    sqrt,
    store,
    to_longs,
    total,
    widen,
    zero_line,
)
from lgn_analysis.kernels.interface import Weight, length_scales

RNG = np.random.default_rng(0)
FLOATS = [np.float32, np.float64]


@pytest.mark.parametrize("number", FLOATS)
def test_a_line_is_64_bytes_whatever_it_holds(number: type) -> None:
    @njit
    def run(a, lanes):
        put(lanes, 0, n_lanes(zero_line(a, (0,))))
        put(lanes, 1, n_lanes(zero_line(a, (0, 0, 0, 0))))

    lanes = np.zeros(2, dtype=np.int64)
    run(np.zeros(1, dtype=number), lanes)
    n = 64 // np.dtype(number).itemsize
    assert lanes.tolist() == [n, 4 * n]


@pytest.mark.parametrize("number", FLOATS)
def test_slices_are_repeated_spread_and_summed(number: type) -> None:
    @njit
    def run(a, repeated, slices, sums, joined):
        line, wide = zero_line(a, (0,)), zero_line(a, (0, 0, 0, 0))
        store(repeated, 0, repeat(load_like(a, 0, line), wide))
        store(slices, 0, spread(a, 1, 3, line, wide))
        x = load_like(a, 0, wide)
        store(sums, 0, widen(slice_totals(x, x * 2.0, x * x, wide + 1.0, line)))
        store(joined, 0, concatenate(load_like(a, 5, line), load_like(a, 1, line)))

    a = RNG.integers(-8, 9, size=64).astype(number)
    n = 64 // np.dtype(number).itemsize
    repeated, slices, joined = np.zeros((3, 4 * n), dtype=number)
    sums = np.zeros(16)
    run(a, repeated, slices, sums, joined)
    assert np.array_equal(repeated.reshape(4, n), np.tile(a[:n], (4, 1)))
    assert np.array_equal(slices.reshape(4, n), np.repeat(a[1:13:3, None], n, axis=1))
    rows = a[: 4 * n].reshape(4, n).astype(np.float64)
    expected = [[row.sum(), 2 * row.sum(), (row**2).sum(), n] for row in rows]
    assert np.array_equal(sums.reshape(4, 4), expected)
    assert np.array_equal(joined[: 2 * n], np.concatenate([a[5 : 5 + n], a[1 : 1 + n]]))


@pytest.mark.parametrize("number", FLOATS)
def test_masks_are_the_low_bits_of_a_word(number: type) -> None:
    @njit
    def run(a, word, out):
        line = zero_line(a, (0,))
        store(out, 0, select(mask_of(word, line), line + 1.0, line))

    out = np.zeros(64 // np.dtype(number).itemsize, dtype=number)
    word = int(RNG.integers(-(2**63), 2**63))
    run(out, word, out)
    assert np.array_equal(out, (word >> np.arange(len(out))) & 1)


def test_float64_lanes_calculate_in_float64() -> None:
    @njit
    def run(a, out, scalars):
        x, y = load(a, 0, 8), load(a, 1, 8)
        store(out, 0, fma(x, y, sqrt(x * x)) / y - 0.1)
        store(scalars, 0, four_totals(x, y, x + y, 1.0 - x))
        put(scalars, 4, total(x))

    a, out, scalars = RNG.standard_normal(9), np.zeros(8), np.zeros(5)
    run(a, out, scalars)
    x, y = a[:8], a[1:]
    np.testing.assert_allclose(out, (x * y + abs(x)) / y - 0.1, rtol=1e-14)
    wanted = [x.sum(), y.sum(), (x + y).sum(), (1 - x).sum(), x.sum()]
    np.testing.assert_allclose(scalars, wanted, rtol=1e-13)


def test_signs_are_those_of_every_backend() -> None:
    @njit
    def run(gates, pair, stream, low, high, words):
        for block in range(2):
            even, odd = noise.philox_signs(
                to_longs(load(gates, 0, 8)), pair, block, stream, low, high
            )
            store(words, 16 * block, even)
            store(words, 16 * block + 8, odd)

    seed, layer, pair = 2**64 - 5, 3, 2**32 - 1
    gates = RNG.integers(50, size=8).astype(np.uint32)
    words = np.zeros(32, dtype=np.int64)
    stream = int(Purpose.SIGNS) << 24 | layer
    run(gates, pair, stream, seed & 0xFFFFFFFF, seed >> 32, words)
    bits = (words.reshape(2, 2, 8, 1) >> np.arange(64)) & 1
    for half in (0, 1):
        key = NoiseKey(seed, Purpose.SIGNS, 2 * pair + half)
        wanted = random_signs(key, layer, 50, 128)[gates.astype(np.int64)].numpy()
        got = 2 * np.concatenate([bits[0, half], bits[1, half]], axis=1) - 1
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize("weight", get_args(Weight))
@pytest.mark.parametrize("sharpness", [1.0, 30.0])
def test_lengths_are_exact_where_a_gate_has_nearly_chosen(sharpness: float, weight: Weight) -> None:
    """At sharpness 30, q differs by some ten orders of magnitude between the corners of a gate."""
    generator = torch.Generator().manual_seed(0)
    z = sharpness * torch.rand(200, 16, generator=generator, dtype=torch.float64)
    p = torch.softmax(z, dim=-1)
    inputs = torch.rand(2, 200, generator=generator, dtype=torch.float64)
    inputs[:, :160] = inputs[:, :160].round()  # all four corners
    a, b = inputs
    scales = length_scales(p, 0.7, weight)
    forms = length_forms(p, scales).view(-1, 3, 3)
    of_a = torch.stack([(1 - a) ** 2, a * (1 - a), a**2], dim=-1)
    of_b = torch.stack([(1 - b) ** 2, b * (1 - b), b**2], dim=-1)
    got = torch.einsum("ni,nij,nj->n", of_a, forms, of_b)
    corners = torch.stack([(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b], dim=-1)
    h = corners @ TRUTH_TABLE.double().T
    y, not_y = (p * h).sum(-1, keepdim=True), (p * (1 - h)).sum(-1, keepdim=True)
    scales = p / 0.7 if weight == "softmax" else p.sqrt()
    wanted = (scales * (h * not_y - (1 - h) * y)).square().sum(-1)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=0.0)


def test_neighbouring_steps_share_an_input_and_none_is_left_out() -> None:
    rng = np.random.default_rng(1)
    width, depth = 60, 3
    wirings = [rng.permutation(2 * width).reshape(2, width) % n for n in (width, width, width)]
    wires = build_wires(wirings, width, 5)
    order = build_order(wires)
    rows = order.rows.reshape(-1, 4)[: width * depth].reshape(depth, width, 4)
    gates = order.gates[: width * depth].reshape(depth, width)
    assert len(order.gates) == width * depth + AHEAD
    positions = np.arange(width)  # of the inputs
    for layer in range(depth):
        a, b, out, taken = rows[layer].T
        assert sorted(gates[layer]) == sorted(out) == list(range(width))
        gate = gates[layer]
        assert np.array_equal(a, positions[wirings[layer][0, gate]])
        assert np.array_equal(b, positions[wirings[layer][1, gate]])
        assert np.array_equal(taken, out // 12 if layer == depth - 1 else out)
        positions = np.empty(width, dtype=np.int64)
        positions[gate] = out
        if layer > 0:  # the inputs of the first layer keep their order
            pairs = zip(rows[layer][:-1, :2], rows[layer][1:, :2], strict=True)
            sharing = [bool(set(x) & set(y)) for x, y in pairs]
            assert np.mean(sharing) > 0.8
