"""Noise as a function: the published generator, the Gumbel law, and no two uses alike."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
from scipy import stats

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import (
    MAX_GATES,
    NoiseKey,
    Purpose,
    derive_seed,
    fresh_key,
    generator_for,
    gumbel,
    gumbel_from_words,
    philox4x32,
    philox_words,
    random_signs,
)
from tests import oracles

# From the known-answer file of Random123, philox4x32 with 10 rounds.
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (
        [0xFFFFFFFF] * 4,
        [0xFFFFFFFF] * 2,
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    ),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]
EXTREME_WORDS = torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])
BIG = 2**64 - 1


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_published_answers(
    counter: list[int], key: list[int], answer: list[int]
) -> None:
    assert philox4x32(torch.tensor(counter), (key[0], key[1])).tolist() == answer
    assert oracles.philox4x32_10(counter, key) == answer


def test_philox_agrees_with_python_integers_on_random_counters() -> None:
    rng = random.Random(0)
    counters = [[rng.getrandbits(32) for _ in range(4)] for _ in range(200)]
    for key in ((0, 0), (rng.getrandbits(32), rng.getrandbits(32))):
        words = philox4x32(torch.tensor(counters), key).tolist()
        assert words == [oracles.philox4x32_10(counter, key) for counter in counters]


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**63, BIG])
@pytest.mark.parametrize("draw", [0, 3, 2**32, 2**63 + 5, BIG])
@pytest.mark.parametrize("layer", [0, 2**24 - 1])
def test_words_follow_the_documented_layout(seed: int, draw: int, layer: int) -> None:
    words = philox_words(NoiseKey(seed, Purpose.PROBE, draw), layer, 3)
    assert words.tolist() == oracles.noise_words(seed, 3, draw, layer, 3).tolist()


def test_the_numbers_of_the_purposes_never_change() -> None:
    """They are part of the counter: renumbering would change every run that can be resumed."""
    assert {purpose.name: int(purpose) for purpose in Purpose} == {
        "TRAINING": 1,
        "EVALUATION": 2,
        "PROBE": 3,
        "WIRING": 4,
        "LOGITS": 5,
        "DATA_ORDER": 6,
        "SIGNS": 7,
    }


def test_purposes_draws_layers_and_seeds_never_share_a_block() -> None:
    """A block has 128 bits: two of these 6 400 equal by chance once in 2^103."""
    keys = [
        NoiseKey(seed, purpose, draw)
        for seed in (0, 1, 2**32)
        for purpose in list(Purpose)[:4]
        for draw in (0, 1, 2**32, 2**32 + 1)
    ] + [NoiseKey(2**32 + 1, Purpose.TRAINING, draw) for draw in (0, 1)]
    words = [philox_words(key, torch.tensor([0, 1, 256, 2**24 - 1]), 8) for key in keys]
    blocks = torch.stack(words).reshape(-1, 4).tolist()
    assert len(blocks) == 50 * 4 * 8 * 4
    assert len({*map(tuple, blocks)}) == len(blocks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_call_over_layers_equals_a_call_a_layer(dtype: torch.dtype) -> None:
    key = NoiseKey(3, Purpose.TRAINING, 2**33)
    layers = torch.tensor([4, 0, 7])
    together = gumbel(key, layers, 5, dtype=dtype)
    assert together.shape == (3, 5, 16)
    assert torch.equal(together, torch.stack([gumbel(key, i, 5, dtype=dtype) for i in (4, 0, 7)]))


def test_a_wider_layer_begins_with_the_noise_of_a_narrower_one() -> None:
    key = NoiseKey(3, Purpose.TRAINING)
    assert torch.equal(gumbel(key, 1, 9)[:4], gumbel(key, 1, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_words_give_finite_noise(dtype: torch.dtype) -> None:
    """Trap 1: a uniform that rounds to 0 or 1 turns logits into NaN, silently."""
    values = gumbel_from_words(EXTREME_WORDS, dtype)
    assert values.dtype == dtype
    assert torch.isfinite(values).all()
    assert (values.diff() > 0)[[0, 1, 3, 4]].all()
    assert values.min().item() == pytest.approx(-math.log(33 * math.log(2)), rel=1e-6)
    assert values.max().item() == pytest.approx(33 * math.log(2), rel=1e-6)


def test_float64_noise_is_the_double_logarithm() -> None:
    words = torch.cat([EXTREME_WORDS, philox_words(NoiseKey(1, Purpose.PROBE), 0, 500).ravel()])
    expected = [-math.log(-math.log((word + 0.5) / 2**32)) for word in words.tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(
        gumbel_from_words(words, torch.float64), expected, rtol=1e-14, atol=1e-14
    )


def test_float32_noise_keeps_its_stated_bound() -> None:
    spread = torch.linspace(0, 2**32 - 1, 1_000_000, dtype=torch.float64).to(torch.int64)
    edges = torch.arange(100_000)
    words = torch.cat([spread, edges, 2**32 - 1 - edges, 2**31 + edges - 50_000])
    exact = gumbel_from_words(words, torch.float64)
    error = (gumbel_from_words(words, torch.float32).double() - exact).abs()
    assert (error <= 4 * 2.0**-23 * exact.abs().clamp(min=1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(InvalidInputError, match=f"float32 or float64, not {dtype}; convert"):
        gumbel(NoiseKey(0, Purpose.TRAINING), 0, 2, dtype=dtype)


def many_gumbels() -> np.ndarray:
    return gumbel(NoiseKey(7, Purpose.TRAINING), 0, 12_500, dtype=torch.float64).numpy().ravel()


def test_noise_is_gumbel() -> None:
    """Kolmogorov-Smirnov on 200 000 values, false-alarm rate 1e-6."""
    assert stats.kstest(many_gumbels(), stats.gumbel_r.cdf).pvalue > 1e-6


def test_noise_has_the_mean_and_variance_of_gumbel() -> None:
    """Each within five standard errors of 200 000 values: false-alarm rate 1.2e-6 together."""
    values, variance = many_gumbels(), math.pi**2 / 6
    n = len(values)
    assert abs(values.mean() - np.euler_gamma) < 5 * math.sqrt(variance / n)
    excess = 12 / 5
    assert abs(values.var() - variance) < 5 * variance * math.sqrt((excess + 2) / n)


def test_consecutive_draws_layers_and_gates_are_uncorrelated() -> None:
    """Three correlations of 16 000 pairs, each within five standard errors: 1.7e-6 together."""
    noise = torch.stack(
        [
            gumbel(NoiseKey(0, Purpose.TRAINING, draw), torch.tensor([0, 1]), 1001)[:, :1001]
            for draw in (0, 1)
        ]
    ).numpy()
    pairs = [
        (noise[0, 0, 1:], noise[1, 0, 1:]),
        (noise[0, 0, 1:], noise[0, 1, 1:]),
        (noise[0, 0, 1:], noise[0, 0, :-1]),
    ]
    for first, second in pairs:
        correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(correlation) < 5 / math.sqrt(first.size)


def test_the_largest_noisy_logit_is_a_draw_from_the_softmax() -> None:
    """χ² over the 16 gates, 100 000 draws, false-alarm rate 1e-6."""
    z = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64)
    noise = gumbel(NoiseKey(11, Purpose.TRAINING), 0, 100_000, dtype=torch.float64)
    counts = torch.bincount((z + noise).argmax(-1), minlength=16).numpy()
    expected = z.softmax(-1).numpy() * counts.sum()
    assert stats.chisquare(counts, expected).pvalue > 1e-6


@pytest.mark.parametrize("name", ["seed", "draw"])
@pytest.mark.parametrize("value", [-1, 2**64])
def test_a_key_out_of_range_is_refused(name: str, value: int) -> None:
    arguments = {"seed": 0, "purpose": Purpose.PROBE, "draw": 0, name: value}
    with pytest.raises(InvalidInputError, match=rf"{name} must lie in 0\.\.2\*\*64-1, got {value}"):
        NoiseKey(**arguments)


def test_more_gates_than_counters_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at most 1073741824 gates a layer"):
        philox_words(NoiseKey(0, Purpose.PROBE), 0, MAX_GATES + 1)


def test_derived_seeds_are_all_different() -> None:
    """63 bits: two of these 1 400 equal by chance once in 2^43."""
    cases = itertools.product((0, 1, 2**40), Purpose, (*range(60), 2**32, *range(500, 505)))
    seeds = [derive_seed(*case) for case in cases]
    assert len({*seeds}) == len(seeds) == 3 * 7 * 66
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_is_a_function_of_seed_purpose_and_index() -> None:
    def drawn(*arguments: int) -> list[float]:
        return torch.rand(3, generator=generator_for(*arguments)).tolist()

    assert drawn(1, Purpose.WIRING, 2) == drawn(1, Purpose.WIRING, 2)
    others = [(2, Purpose.WIRING, 2), (1, Purpose.LOGITS, 2), (1, Purpose.WIRING, 3)]
    assert all(drawn(*other) != drawn(1, Purpose.WIRING, 2) for other in others)


def test_a_fresh_key_obeys_the_seed_of_torch() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = fresh_key(Purpose.TRAINING), fresh_key(Purpose.TRAINING)
        torch.manual_seed(0)
        assert fresh_key(Purpose.TRAINING) == first != second


def test_signs_are_the_bits_of_philox_words_and_balance():
    key = NoiseKey(2**40 + 3, Purpose.SIGNS, 5)
    signs = random_signs(key, 2, 50, 130, dtype=torch.float64)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    counter = torch.tensor([7, 5 // 2, 1, int(Purpose.SIGNS) << 24 | 2])
    words = philox4x32(counter, (key.seed & 0xFFFFFFFF, key.seed >> 32))
    for sample in (64, 95, 96, 127):
        word = int(words[2 * (5 % 2) + sample % 64 // 32])
        assert signs[7, sample] == 2 * (word >> sample % 32 & 1) - 1
    # Means and products of neighbours over 6500 signs: 5 standard errors, false-alarm rate 2e-6.
    bound = 5 / 6500**0.5
    assert abs(float(signs.mean())) < bound
    assert abs(float((signs[:, 1:] * signs[:, :-1]).mean())) < bound
    other = random_signs(NoiseKey(2**40 + 3, Purpose.SIGNS, 4), 2, 50, 130, dtype=torch.float64)
    assert abs(float((signs * other).mean())) < bound


def test_signs_of_a_draw_beyond_the_counter_are_refused():
    with pytest.raises(InvalidInputError, match="draws"):
        random_signs(NoiseKey(0, Purpose.SIGNS, 2**33), 0, 1, 1)
