"""Philox words, logarithm, exponential and Gumbel noise on vectors of float32.

``log`` and ``exp`` are polynomials of this package's own fit (weighted minimax by Remez exchange);
their errors are stated per function and tested.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.simd import (
    as_floats,
    as_ints,
    floats,
    fma,
    interleave,
    lane_numbers,
    longs,
    low_half,
    select,
    shift_down,
    to_floats,
)

_MASK: Final = 0xFFFFFFFF
_MULTIPLIER_0: Final = 0xD2511F53
_MULTIPLIER_1: Final = 0xCD9E8D57
_WEYL_0: Final = 0x9E3779B9
_WEYL_1: Final = 0xBB67AE85

_SQRT_HALF: Final = 0x3F3504F3
_LN2_HIGH: Final = 0.693359375
_LN2_LOW: Final = -2.12194440e-4
_LOG2_E: Final = 1.4426950408889634
_SHIFTER: Final = 12582912.0  # 1.5 · 2**23: adding it leaves the nearest integer in the low bits
_SMALLEST: Final = -87.0


@device
def philox_pair(gate, draw_low, draw_high, stream, key_low, key_high):
    """Return the Philox4x32-10 words of gates ``gate`` and ``gate + 1``: int32 x 32, 16 a gate.

    ``stream`` is ``purpose << 24 | layer``; every argument is an int64 that holds 32 bits.
    """
    c0 = lane_numbers(8) + 4 * gate
    w0, w1, w2, w3 = _philox_rounds(
        c0, longs(draw_low, 8), longs(draw_high, 8), longs(stream, 8), key_low, key_high
    )
    return interleave(low_half(w0), low_half(w1), low_half(w2), low_half(w3))


@device
def philox_signs(gates, pair, block, stream, key_low, key_high):
    """Return the signs of 64 samples of draws ``2·pair`` and ``2·pair + 1``, a word a gate for each.

    As :func:`lgn_analysis.gates.noise.random_signs`: sample s is bit s, set for 1.

    Args:
        gates: int64 x 8.
        pair, block, stream, key_low, key_high: each an int64 that holds 32 bits; ``block`` counts 64
            samples, ``stream`` is ``purpose << 24 | layer``.
    """
    w0, w1, w2, w3 = _philox_rounds(
        gates, longs(pair, 8), longs(block, 8), longs(stream, 8), key_low, key_high
    )
    return (w0 & _MASK) | (w1 << 32), (w2 & _MASK) | (w3 << 32)


@device
def _philox_rounds(c0, c1, c2, c3, key_low, key_high):
    """Return the four words of Philox4x32-10 in the low halves of int64 lanes, noise above them."""
    for _ in range(10):
        # The bits above the 32nd are noise of the multiplication; each use masks or drops them.
        product0 = (c0 & _MASK) * _MULTIPLIER_0
        product1 = (c2 & _MASK) * _MULTIPLIER_1
        c0 = shift_down(product1, 32) ^ c1 ^ key_low
        c1 = product1
        c2 = shift_down(product0, 32) ^ c3 ^ key_high
        c3 = product0
        key_low = (key_low + _WEYL_0) & _MASK
        key_high = (key_high + _WEYL_1) & _MASK
    return c0, c1, c2, c3


@device
def log(x):
    """Return the logarithm of normal positive float32 lanes, within 2 ulp; exactly 0 at 1."""
    pattern = as_ints(x)
    exponent = (pattern - _SQRT_HALF) >> 23
    fraction = as_floats(pattern - (exponent << 23)) - 1.0
    e = to_floats(exponent)
    p = fma(fraction, -0.0786019042134285, 0.12881389260292053)
    p = fma(fraction, p, -0.13128402829170227)
    p = fma(fraction, p, 0.14181216061115265)
    p = fma(fraction, p, -0.1662459671497345)
    p = fma(fraction, p, 0.2000228613615036)
    p = fma(fraction, p, -0.25000807642936707)
    p = fma(fraction, p, 0.33333316445350647)
    square = fraction * fraction
    p = fma(square * fraction, p, e * _LN2_LOW)
    return fma(e, _LN2_HIGH, fraction + fma(square, -0.5, p))


@device
def exp(x):
    """Return the exponential of float32 lanes up to 88, within 2 ulp; NaN of NaN.

    Below -87 it is 0, not a denormal number: those cost some processors a hundred cycles each.
    """
    shifted = fma(x, _LOG2_E, _SHIFTER)
    n = shifted - _SHIFTER
    r = fma(n, -_LN2_LOW, fma(n, -_LN2_HIGH, x))
    p = fma(r, 0.0013950587017461658, 0.008368946611881256)
    p = fma(r, p, 0.04166620597243309)
    p = fma(r, p, 0.166665181517601)
    p = fma(r, p, 0.5)
    p = fma(r * r, p, r) + 1.0
    scaled = as_floats(as_ints(p) + (as_ints(shifted) << 23))
    return select(x < _SMALLEST, as_floats(as_ints(x) & 0), scaled)


@device
def gumbel(words):
    """Return ``-log(-log u)`` of int32 x 64 words: ``noise.gumbel_from_words`` in float32.

    Within 2.2 · 2**-23 · max(1, abs(g)) of the float64 value, tried for all 2**32 words.
    """
    # The distance of u to the nearer of 0 and 1, from the integer: min(word, 2**32 - 1 - word).
    upper = words < 0
    to_edge = (to_floats(words ^ (words >> 31)) + 0.5) * np.float32(2.0**-32)
    complement = 1.0 - to_edge
    # log1p(-t) = log(1 - t) + what rounding 1 - t lost, to first order.
    lost = (1.0 - complement) - to_edge
    exponential = log(select(upper, complement, to_edge))
    exponential = exponential + select(upper, lost, floats(0.0, 64))
    return 0.0 - log(0.0 - exponential)


@device
def logistic(words):
    """Return ``log(u / (1 - u))`` of int32 x 64 words: :func:`lgn_analysis.gates.noise.logistic` in float32.

    Within 4 · 2**-23 · max(1, abs(l)) of the float64 value.
    """
    to_edge = (to_floats(words ^ (words >> 31)) + 0.5) * np.float32(2.0**-32)
    complement = 1.0 - to_edge
    lost = (1.0 - complement) - to_edge  # in rounding 1 - t, to first order in its logarithm
    size = (log(complement) + lost) - log(to_edge)
    return select(words < 0, size, 0.0 - size)
