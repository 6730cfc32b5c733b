"""Hard gates on packed bits: forward, and the gradient with respect to inputs and weights.

A row is one word, 64 samples. In the backward pass, gradients are 64 float32 a row.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lgn_analysis.gates.table import COEFFICIENTS
from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, BLOCK, level_row, level_start
from lgn_analysis.kernels.cpu.simd import (
    at,
    bits,
    floats,
    fma,
    four_totals,
    load,
    prefetch,
    put,
    select,
    store,
)

MASKS: Final = -(COEFFICIENTS.numpy() & 1).reshape(-1)
"""int64 [16, 4]: modulo 2 the coefficients are a gate's algebraic normal form; as masks."""

_SLOPES: Final = COEFFICIENTS.numpy().astype(np.float32)
_AT_ZERO: Final = np.ascontiguousarray(_SLOPES[:, 1:3]).reshape(-1)
"""float32 [16, 2]: ∂y/∂a where b = 0, and ∂y/∂b where a = 0."""
_AT_ONE: Final = np.ascontiguousarray(_SLOPES[:, 1:3] + _SLOPES[:, 3:]).reshape(-1)
"""The same where the other input is 1."""


@device
def gate_forward_packed(wires, layer, first, last, gates, words, block_row):
    """Evaluate positions ``first``..``last - 1`` of a layer on one block of bits.

    Args:
        wires: the network.
        layer: which layer.
        first, last: the range.
        gates: uint8 [depth, width].
        words: int64, the blocks of bits; in: level ``layer``; out: level ``layer + 1``.
        block_row: the block's first row.
    """
    source = block_row + level_row(wires, layer)
    target = block_row + level_row(wires, layer + 1)
    base = layer * wires.width
    for place in range(first, last):
        a = at(words, source + at(wires.sources, 2 * (base + place)))
        b = at(words, source + at(wires.sources, 2 * (base + place) + 1))
        mask = 4 * at(gates, base + at(wires.gate_at, base + place))
        m0, m1, m2, m3 = (
            at(MASKS, mask),
            at(MASKS, mask + 1),
            at(MASKS, mask + 2),
            at(MASKS, mask + 3),
        )
        put(words, target + place, m0 ^ (m1 & a) ^ ((m2 ^ (m3 & a)) & b))


@device
def gate_sums_packed(wires, layer, place, delta, words, block_row, adds, sums):
    """Write or add Σδ, Σδa, Σδb and Σδab of one gate over one block.

    Args:
        wires: the network.
        layer, place: which gate, by position; its successors come next.
        delta: the gate's gradient, one lane a sample, zero beyond the batch.
        words: int64, the blocks of bits.
        block_row: the block's first row.
        adds: whether to add to what ``sums`` holds.
        sums: float32 [depth, width, 4], by position.
    """
    base = layer * wires.width
    source = block_row + level_row(wires, layer)
    ahead = 2 * (base + place + AHEAD)
    prefetch(words, source + at(wires.sources, ahead), 1)
    prefetch(words, source + at(wires.sources, ahead + 1), 1)
    a = at(words, source + at(wires.sources, 2 * (base + place)))
    b = at(words, source + at(wires.sources, 2 * (base + place) + 1))
    zero = floats(0.0, BLOCK)
    four = four_totals(
        delta,
        select(bits(a), delta, zero),
        select(bits(b), delta, zero),
        select(bits(a & b), delta, zero),
    )
    offset = 4 * (base + place)
    store(sums, offset, load(sums, offset, 4) + four if adds else four)


@device
def gate_backward_packed(
    wires,
    layer,
    first,
    last,
    gates,
    words,
    block_row,
    deltas,
    source,
    inputs,
    target,
    factor,
    adds,
    sums,
):
    """Propagate a layer's gradient to positions ``first``..``last - 1`` of its inputs, over a block.

    Each row gathers from its consumers in a fixed order; where the rows are gates, their four sums
    are taken while the gradient is at hand.

    Args:
        wires, layer, words, block_row, adds, sums: see :func:`gate_sums_packed`.
        first, last: the range.
        gates: uint8 [depth, width].
        deltas, source: float32; the gradient of row r of the layer's outputs (of a group, in the
            last layer) begins at ``source + 64 · r``.
        inputs, target: float32; the gradient of row r of its inputs is written at
            ``target + 64 · r``.
        factor: multiplies what is written.
    """
    level = block_row + level_row(wires, layer)
    entries = 2 * layer * wires.width
    base = layer * wires.width
    start = level_start(wires, layer)
    for row in range(first, last):
        begin = entries + at(wires.starts, start + row)
        end = entries + at(wires.starts, start + row + 1)
        for entry in range(begin, end):
            ahead = 3 * (entry + 2 * AHEAD)
            prefetch(deltas, source + at(wires.consumers, ahead) * BLOCK, BLOCK)
        gathered = floats(0.0, BLOCK)
        for entry in range(begin, end):
            gate_and_side = at(wires.consumers, 3 * entry + 1)
            slope = 2 * at(gates, base + (gate_and_side >> 1)) + (gate_and_side & 1)
            other = bits(at(words, level + at(wires.consumers, 3 * entry + 2)))
            delta = load(deltas, source + at(wires.consumers, 3 * entry) * BLOCK, BLOCK)
            at_one, at_zero = floats(at(_AT_ONE, slope), BLOCK), floats(at(_AT_ZERO, slope), BLOCK)
            gathered = fma(select(other, at_one, at_zero), delta, gathered)
        gathered = gathered * factor
        store(inputs, target + row * BLOCK, gathered)
        if layer > 0:
            gate_sums_packed(wires, layer - 1, row, gathered, words, block_row, adds, sums)
