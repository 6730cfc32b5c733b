"""Bits into words and out of them, their transpose, and group sums by counting them.

Counts come from carry-save adders over whole words, 64 samples at once.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lgn_analysis.kernels.cpu.runtime.compiling import device, entry
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK
from lgn_analysis.kernels.cpu.simd import (
    at,
    bits,
    exchange,
    fill,
    ints,
    lanes_with,
    load,
    load_like,
    put,
    select,
    shift_down,
    store,
    store_apart,
    to_word,
    zip_bytes,
)

N_PLANES: Final = 32
"""Bits of a count; a plane holds one bit of each sample's count."""


@device
def _swap(matrix, partner, is_upper, distance, mask):
    """Exchange the off-diagonal quarters of every square of 2·distance bits."""
    lower = (matrix & mask) | ((partner & mask) << distance)
    upper = (matrix & ~mask) | (shift_down(partner, distance) & mask)
    return select(is_upper, upper, lower)


@device
def transpose_bits(matrix):
    """Return the transpose of 64 x 64 bits, int64 x 64: bit i of word j is bit j of word i."""
    matrix = _swap(matrix, exchange(matrix, 32), lanes_with(32, 64), 32, 0x00000000FFFFFFFF)
    matrix = _swap(matrix, exchange(matrix, 16), lanes_with(16, 64), 16, 0x0000FFFF0000FFFF)
    matrix = _swap(matrix, exchange(matrix, 8), lanes_with(8, 64), 8, 0x00FF00FF00FF00FF)
    matrix = _swap(matrix, exchange(matrix, 4), lanes_with(4, 64), 4, 0x0F0F0F0F0F0F0F0F)
    matrix = _swap(matrix, exchange(matrix, 2), lanes_with(2, 64), 2, 0x3333333333333333)
    return _swap(matrix, exchange(matrix, 1), lanes_with(1, 64), 1, 0x5555555555555555)


@device
def row_word(values, offset, n):
    """Return which of ``n <= 64`` neighbouring values are not zero, as a word."""
    if n == BLOCK:
        return to_word(load(values, offset, BLOCK) != 0)
    word = 0
    for place in range(n):
        word |= np.int64(values[offset + place] != 0) << place
    return word


@entry
def pack_rows(values, n_columns, words):
    """Pack rows of ``n_columns`` values, zero or not, into rows of words, bits beyond them zero."""
    n_words = -(-n_columns // BLOCK)
    for row in range(len(values) // n_columns):
        for word in range(n_words):
            n = min(BLOCK, n_columns - word * BLOCK)
            words[row * n_words + word] = row_word(values, row * n_columns + word * BLOCK, n)


@entry
def unpack_rows(words, n_columns, values):
    """Unpack rows of words into rows of ``n_columns`` values, 0 or 1."""
    n_words = -(-n_columns // BLOCK)
    one, zero = fill(values, 1, BLOCK), fill(values, 0, BLOCK)
    for row in range(len(words) // n_words):
        start = row * n_columns
        for word in range(n_columns // BLOCK):
            chosen = select(bits(at(words, row * n_words + word)), one, zero)
            store(values, start + word * BLOCK, chosen)
        for place in range(n_columns // BLOCK * BLOCK, n_columns):
            values[start + place] = (words[row * n_words + n_words - 1] >> (place % BLOCK)) & 1


@device
def _octet(values, offset, stride, n):
    """Return 64 neighbouring values of eight rows, the first ``n`` of them, a bit a row: uint8 x 64."""
    octet = fill(values, 0, BLOCK)
    for row in range(7, -1, -1):
        octet = octet + octet
        if row < n:
            octet = octet | load(values, offset + row * stride, BLOCK)
    return octet


@device
def pack_block(values, n_features, batch, block, words, start, stride):
    """Pack one block of samples.

    Args:
        values: uint8 [batch, n_features], 0 or 1.
        block: which 64 samples; those beyond the batch give 0.
        words: out: feature f is the word at ``start + f · stride``.
    """
    n = min(BLOCK, batch - block * BLOCK)
    row = block * BLOCK * n_features
    eight = 8 * n_features
    whole = n_features // BLOCK * BLOCK
    for first in range(0, whole, BLOCK):
        offset = row + first
        packed = zip_bytes(
            _octet(values, offset, n_features, n),
            _octet(values, offset + eight, n_features, n - 8),
            _octet(values, offset + 2 * eight, n_features, n - 16),
            _octet(values, offset + 3 * eight, n_features, n - 24),
            _octet(values, offset + 4 * eight, n_features, n - 32),
            _octet(values, offset + 5 * eight, n_features, n - 40),
            _octet(values, offset + 6 * eight, n_features, n - 48),
            _octet(values, offset + 7 * eight, n_features, n - 56),
        )
        if stride == 1:
            store(words, start + first, packed)
        else:
            store_apart(words, start + first * stride, stride, packed)
    for feature in range(whole, n_features):
        word = 0
        for sample in range(n):
            word |= np.int64(values[row + sample * n_features + feature]) << sample
        words[start + feature * stride] = word


@entry
def pack_samples(values, n_features, batch, words, block_stride, feature_stride):
    """Pack uint8 [batch, n_features], 0 or 1: feature f of block b is a word; see :func:`pack_block`."""
    for block in range(-(-batch // BLOCK)):
        pack_block(values, n_features, batch, block, words, block * block_stride, feature_stride)


@entry
def unpack_samples(words, block_stride, n_features, batch, values):
    """Unpack words into [batch, n_features], 0 or 1: the inverse of :func:`pack_samples`.

    Args:
        words: feature f of block b is the word at ``b · block_stride + f``.
    """
    square = np.empty(BLOCK, dtype=np.int64)
    one, zero = fill(values, 1, BLOCK), fill(values, 0, BLOCK)
    for block in range(-(-batch // BLOCK)):
        n_samples = min(BLOCK, batch - block * BLOCK)
        for group in range(-(-n_features // BLOCK)):
            n = min(BLOCK, n_features - group * BLOCK)
            square[n:] = 0
            for feature in range(n):
                put(square, feature, at(words, block * block_stride + group * BLOCK + feature))
            store(square, 0, transpose_bits(load(square, 0, BLOCK)))
            for sample in range(n_samples):
                offset = (block * BLOCK + sample) * n_features + group * BLOCK
                if n == BLOCK:
                    store(values, offset, select(bits(at(square, sample)), one, zero))
                else:
                    for place in range(n):
                        values[offset + place] = (at(square, sample) >> place) & 1


@entry
def to_bytes(values, octets):
    """Write float32 values as bytes, 0 or 1, and return whether that is all they were."""
    one, zero = fill(octets, 1, BLOCK), fill(octets, 0, BLOCK)
    whole = len(values) // BLOCK * BLOCK
    for start in range(0, whole, BLOCK):
        chunk = load(values, start, BLOCK)
        is_one = chunk == 1.0
        if to_word(is_one | (chunk == 0.0)) != -1:
            return False
        store(octets, start, select(is_one, one, zero))
    for place in range(whole, len(values)):
        if values[place] != 0 and values[place] != 1:
            return False
        octets[place] = values[place] == 1
    return True


@device
def _add_bits(a, b, c):
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
        ones, twos_a = _add_bits(ones, w0, w1)
        ones, twos_b = _add_bits(ones, w2, w3)
        twos, fours_a = _add_bits(twos, twos_a, twos_b)
        ones, twos_a = _add_bits(ones, w4, w5)
        ones, twos_b = _add_bits(ones, w6, w7)
        twos, fours_b = _add_bits(twos, twos_a, twos_b)
        fours, carry = _add_bits(fours, fours_a, fours_b)
        n_planes = _ripple(planes, lanes, 3, n_planes, row + 8, carry, like)
        row += 8
    while row < n_rows:
        ones, carry = _add_bits(ones, load_like(words, start + row * stride, like), like)
        twos, carry = _add_bits(twos, carry, like)
        fours, carry = _add_bits(fours, carry, like)
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
