"""Philox4x32-10, Gumbel noise and random signs, as functions that kernels call.

The words are those of :func:`lgn_analysis.gates.noise.philox_words`; a value lies within the bound that
:func:`lgn_analysis.gates.noise.gumbel_from_words` states, and signs are those of
:func:`lgn_analysis.gates.noise.random_signs`. ``state`` is an int64 tensor on the device that
begins with (seed, draw), so that a captured step moves on to its next draw by itself.
"""

from __future__ import annotations

import triton
import triton.language as tl

ROUNDS: tl.constexpr = tl.constexpr(10)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Return the four output words of Philox4x32-10, all arguments uint32."""
    for _ in tl.static_range(ROUNDS):
        high0 = tl.umulhi(c0, 0xD2511F53)
        low0 = c0 * 0xD2511F53
        high1 = tl.umulhi(c2, 0xCD9E8D57)
        low1 = c2 * 0xCD9E8D57
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def gate_words(state, stream, gates, quads):
    """Return the words of options ``4·quad + 0..3``, each [gates, quads].

    ``stream`` is ``purpose << 24 | layer``.
    """
    seed = tl.load(state)
    draw = tl.load(state + 1)
    blocks = gates.to(tl.uint32)[:, None] * 4 + quads.to(tl.uint32)[None, :]
    zeros = tl.zeros_like(blocks)
    return philox(
        blocks,
        zeros + draw.to(tl.uint32),
        zeros + (draw >> 32).to(tl.uint32),
        zeros + tl.cast(stream, tl.uint32),
        seed.to(tl.uint32),
        (seed >> 32).to(tl.uint32),
    )


@triton.jit
def gumbel_from_words(words, dtype: tl.constexpr):
    """Return ``-log(-log u)``, u = (word + ½) / 2**32, for uint32 words."""
    upper = words >= 0x80000000
    nearest = tl.where(upper, words ^ 0xFFFFFFFF, words)
    to_edge = (nearest.to(dtype) + 0.5) * 2.3283064365386963e-10
    u = tl.where(upper, 1 - to_edge, to_edge)
    # In the upper half log1p(-t) = log(u) + r / u, u the rounded 1 - t and r what rounding lost:
    # both differences below are exact, and 1 / u = 2 - u is good enough where r matters.
    lost = tl.where(upper, ((1 - u) - to_edge) * (2 - u), 0.0)
    return -tl.log(-(tl.log(u) + lost))


@triton.jit
def sign_bits(state, stream, gates, halves, DRAWS: tl.constexpr):
    """Return whether signs are positive, bool [DRAWS, halves, gates, 32], for neighbouring draws.

    ``stream`` is ``purpose << 24 | layer``; a half is 32 samples.
    """
    seed = tl.load(state)
    draws = (tl.load(state + 1) + tl.arange(0, DRAWS))[:, None, None]
    halves = halves[None, :, None]
    zeros = tl.zeros((DRAWS, halves.shape[1], gates.shape[0]), tl.uint32)
    w0, w1, w2, w3 = philox(
        zeros + gates.to(tl.uint32)[None, None, :],
        zeros + (draws >> 1).to(tl.uint32),
        zeros + (halves >> 1).to(tl.uint32),
        zeros + tl.cast(stream, tl.uint32),
        seed.to(tl.uint32),
        (seed >> 32).to(tl.uint32),
    )
    low = tl.where(draws % 2 == 0, w0, w2)
    high = tl.where(draws % 2 == 0, w1, w3)
    words = tl.where(halves % 2 == 0, low, high)
    return ((words[:, :, :, None] >> tl.arange(0, 32).to(tl.uint32)) & 1) != 0
