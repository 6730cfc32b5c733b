"""Group sums by counting bits: carry-save adders over whole words, 64 samples at once."""

from __future__ import annotations

from typing import Final

from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK
from lgn_analysis.kernels.cpu.simd import at, bits, ints, load_like, select, store

N_PLANES: Final = 32
"""Bits of a count; a plane holds one bit of each sample's count."""


@device
def _add(a, b, c):
    """Return sum and carry of three bits, lane by lane."""
    half = a ^ b
    return half ^ c, (a & b) | (half & c)


@device
def count_ones(words, start, stride, n_rows, like, planes):
    """Count the ones of each sample over ``n_rows`` rows of as many words as ``like`` has lanes.

    Args:
        words: row r begins at ``start + r · stride``.
        like: an int64 vector of zeros, one lane a word.
        planes: int64 [32, lanes]; out: the counts, bit by bit.

    Returns:
        How many planes may hold ones; the others are not written.
    """
    lanes = len(planes) // N_PLANES
    ones, twos, fours = like, like, like
    n_planes = 3
    row = 0
    while row + 8 <= n_rows:
        offset = start + row * stride
        w0 = load_like(words, offset, like)
        w1 = load_like(words, offset + stride, like)
        w2 = load_like(words, offset + 2 * stride, like)
        w3 = load_like(words, offset + 3 * stride, like)
        w4 = load_like(words, offset + 4 * stride, like)
        w5 = load_like(words, offset + 5 * stride, like)
        w6 = load_like(words, offset + 6 * stride, like)
        w7 = load_like(words, offset + 7 * stride, like)
        ones, twos_a = _add(ones, w0, w1)
        ones, twos_b = _add(ones, w2, w3)
        twos, fours_a = _add(twos, twos_a, twos_b)
        ones, twos_a = _add(ones, w4, w5)
        ones, twos_b = _add(ones, w6, w7)
        twos, fours_b = _add(twos, twos_a, twos_b)
        fours, carry = _add(fours, fours_a, fours_b)
        n_planes = _ripple(planes, lanes, 3, n_planes, row + 8, carry, like)
        row += 8
    while row < n_rows:
        ones, carry = _add(ones, load_like(words, start + row * stride, like), like)
        twos, carry = _add(twos, carry, like)
        fours, carry = _add(fours, carry, like)
        n_planes = _ripple(planes, lanes, 3, n_planes, row + 1, carry, like)
        row += 1
    store(planes, 0, ones)
    store(planes, lanes, twos)
    store(planes, 2 * lanes, fours)
    return n_planes


@device
def _ripple(planes, lanes, plane, n_planes, n_rows, carry, like):
    """Add ``carry`` at a plane; counts up to ``n_rows`` fit the planes returned."""
    while n_rows >> n_planes:
        store(planes, n_planes * lanes, like)
        n_planes += 1
    while plane < n_planes:
        held = load_like(planes, plane * lanes, like)
        store(planes, plane * lanes, held ^ carry)
        carry = held & carry
        plane += 1
    return n_planes


@device
def counts_of(planes, n_planes, lane):
    """Return the counts of one word's samples, int32 x 64."""
    lanes = len(planes) // N_PLANES
    counts = ints(0, BLOCK)
    for plane in range(n_planes):
        word = bits(at(planes, plane * lanes + lane))
        counts = counts + select(word, ints(1 << plane, BLOCK), ints(0, BLOCK))
    return counts
