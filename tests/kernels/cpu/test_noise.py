"""Philox words and Gumbel noise on vectors, against the definition in ``lgn_analysis.gates.noise``."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lgn_analysis.gates.noise import NoiseKey, Purpose, gumbel_from_words, philox_words
from lgn_analysis.gates.noise import gumbel as gumbel_of_key
from lgn_analysis.kernels import cpu
from lgn_analysis.kernels.cpu.noise import exp, gumbel, log, philox_pair
from lgn_analysis.kernels.cpu.runtime.compiling import entry
from lgn_analysis.kernels.cpu.simd import load, store

BOUND = 4 * 2.0**-23
"""What ``gumbel_from_words`` promises, relative to max(1, |g|)."""


@entry
def write_words(n, draw_low, draw_high, stream, key_low, key_high, words):
    for gate in range(0, n, 2):
        store(words, 16 * gate, philox_pair(gate, draw_low, draw_high, stream, key_low, key_high))


@entry
def write_gumbel(words, values):
    for start in range(0, len(words), 64):
        store(values, start, gumbel(load(words, start, 64)))


@entry
def write_log(x, values):
    for start in range(0, len(x), 64):
        store(values, start, log(load(x, start, 64)))


@entry
def write_exp(x, values):
    for start in range(0, len(x), 64):
        store(values, start, exp(load(x, start, 64)))


@pytest.mark.parametrize(
    "key",
    [
        NoiseKey(0, Purpose.TRAINING),
        NoiseKey(2**64 - 1, Purpose.PROBE, 2**64 - 1),
        NoiseKey(0x0123456789ABCDEF, Purpose.EVALUATION, 0xFEDCBA9876543210),
    ],
)
def test_words_are_those_of_the_definition(key: NoiseKey) -> None:
    n, layer, mask = 70, 5, 0xFFFFFFFF
    words = np.zeros(16 * n, dtype=np.int32)
    write_words(
        n,
        key.draw & mask,
        key.draw >> 32,
        int(key.purpose) << 24 | layer,
        key.seed & mask,
        key.seed >> 32,
        words,
    )
    expected = philox_words(key, layer, n).reshape(-1).numpy()
    assert np.array_equal(words.view(np.uint32), expected)


def test_noise_keeps_its_bound_at_the_edges_and_between() -> None:
    generator = np.random.default_rng(0)
    near_one = int(2**32 * np.exp(-1.0))  # where g is near 0
    edges = [0, 2**31 - 2**15, 2**32 - 2**15, near_one - 2**14, 2**32 - near_one - 2**14]
    words = np.concatenate(
        [
            *(np.arange(start, start + 2**15) for start in edges),
            generator.integers(2**32, size=2**20),
        ]
    )
    values = np.full(len(words), np.nan, dtype=np.float32)
    write_gumbel(words.astype(np.uint32).view(np.int32), values)
    exact = gumbel_from_words(torch.from_numpy(words), torch.float64).numpy()
    assert np.isfinite(values).all()
    assert (np.abs(values - exact) <= BOUND * np.maximum(1.0, np.abs(exact))).all()


def test_logarithm_is_within_two_ulp_and_exact_at_one() -> None:
    generator = np.random.default_rng(1)
    x = np.exp(generator.uniform(-22, 4, 2**18)).astype(np.float32)
    x[:64] = 1.0
    values = np.full_like(x, np.nan)
    write_log(x, values)
    exact = np.log(x.astype(np.float64))
    assert (values[:64] == 0).all()
    assert (np.abs(values - exact) <= 2 * np.spacing(np.abs(exact).astype(np.float32))).all()


def test_exponential_is_within_two_ulp_and_hands_on_nan() -> None:
    x = np.linspace(-87, 88, 2**18).astype(np.float32)
    values = np.full_like(x, np.nan)
    write_exp(x, values)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(values - exact) <= 2 * np.spacing(exact.astype(np.float32))).all()
    x = np.repeat(np.array([np.nan, -np.inf, -1e30, 0.0], dtype=np.float32), 16)
    values = np.zeros_like(x)
    write_exp(x, values)
    assert np.isnan(values[:16]).all()
    assert (values[16:48] == 0).all()
    assert (values[48:] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_of_whole_layers_is_that_of_the_key(dtype: torch.dtype, n_threads: int) -> None:
    key = NoiseKey(7, Purpose.EVALUATION, 2**40)
    layers = torch.tensor([2, 0, 2**24 - 1])
    noise = cpu.gumbel(key, layers, 131, dtype=dtype)
    exact = gumbel_of_key(key, layers, 131, dtype=torch.float64)
    assert noise.dtype == dtype
    assert ((noise - exact).abs() <= BOUND * exact.abs().clamp(min=1.0)).all()
    assert torch.equal(cpu.gumbel(key, 2, 131, dtype=dtype), noise[0])
