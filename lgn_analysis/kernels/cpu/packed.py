"""Hard gates on packed bits, forward and backward: a layer, and a whole network among the workers of a pool.

A row is one word, 64 samples. In the backward pass, gradients are 64 float32 a row. When a pass over a
network returns, a worker may read only what it wrote itself, unless all have met at its end.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lgn_analysis.gates.table import COEFFICIENTS
from lgn_analysis.kernels.cpu.bits import count_ones, counts_of
from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, BLOCK, Rows, level_row, level_start
from lgn_analysis.kernels.cpu.runtime.workers import barrier, shard
from lgn_analysis.kernels.cpu.simd import (
    at,
    bits,
    floats,
    fma,
    four_totals,
    load,
    longs,
    prefetch,
    put,
    select,
    store,
    to_floats,
)

MASKS: Final = -(COEFFICIENTS.numpy() & 1).reshape(-1)
"""int64 [16, 4]: modulo 2 the coefficients are a gate's algebraic normal form; as masks."""

_SLOPES: Final = COEFFICIENTS.numpy().astype(np.float32)
_AT_ZERO: Final = np.ascontiguousarray(_SLOPES[:, 1:3]).reshape(-1)
"""float32 [16, 2]: ∂y/∂a where b = 0, and ∂y/∂b where a = 0."""
_AT_ONE: Final = np.ascontiguousarray(_SLOPES[:, 1:3] + _SLOPES[:, 3:]).reshape(-1)
"""The same where the other input is 1."""


@device
def gate_forward_packed(wires, activations, layer, span, block_row):
    """Evaluate a layer's positions ``span[0]``..``span[1] - 1`` on the block of rows from ``block_row`` on."""
    gates, words = activations.gates, activations.words
    source = block_row + level_row(wires, layer)
    target = block_row + level_row(wires, layer + 1)
    base = layer * wires.width
    for place in range(span[0], span[1]):
        a = at(words, source + at(wires.sources, 2 * (base + place)))
        b = at(words, source + at(wires.sources, 2 * (base + place) + 1))
        mask = 4 * at(gates, base + at(wires.gate_at, base + place))
        m0, m1 = at(MASKS, mask), at(MASKS, mask + 1)
        m2, m3 = at(MASKS, mask + 2), at(MASKS, mask + 3)
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
def gate_backward_packed(wires, activations, gradients, layer, span, block, source, target):
    """Propagate a layer's gradient to positions ``span[0]``..``span[1] - 1`` of its inputs, over a block.

    Each row gathers from its consumers in a fixed order; where the rows are gates, their four sums
    are taken while the gradient is at hand.

    Args:
        wires, activations, gradients, layer: which layer of what.
        span: the range.
        block: the block's first row, and whether to add to the sums of blocks before it.
        source: :class:`Rows`, the gradients of the layer's outputs (of groups, in the last layer).
        target: :class:`Rows`, those of its inputs; out.
    """
    block_row, adds = block
    gates, words, sums = activations.gates, activations.words, gradients.sums
    deltas = source.values
    level = block_row + level_row(wires, layer)
    entries = 2 * layer * wires.width
    base = layer * wires.width
    start = level_start(wires, layer)
    for row in range(span[0], span[1]):
        begin = entries + at(wires.starts, start + row)
        end = entries + at(wires.starts, start + row + 1)
        for entry in range(begin, end):
            ahead = 3 * (entry + 2 * AHEAD)
            prefetch(deltas, source.start + at(wires.consumers, ahead) * BLOCK, BLOCK)
        gathered = floats(0.0, BLOCK)
        for entry in range(begin, end):
            gate_and_side = at(wires.consumers, 3 * entry + 1)
            slope = 2 * at(gates, base + (gate_and_side >> 1)) + (gate_and_side & 1)
            other = bits(at(words, level + at(wires.consumers, 3 * entry + 2)))
            delta = load(deltas, source.start + at(wires.consumers, 3 * entry) * BLOCK, BLOCK)
            at_one, at_zero = floats(at(_AT_ONE, slope), BLOCK), floats(at(_AT_ZERO, slope), BLOCK)
            gathered = fma(select(other, at_one, at_zero), delta, gathered)
        gathered = gathered * gradients.factor
        store(target.values, target.start + row * BLOCK, gathered)
        if layer > 0:
            gate_sums_packed(wires, layer - 1, row, gathered, words, block_row, adds, sums)


@device
def forward_packed(worker, wires, activations):
    """Evaluate all layers on blocks of bits; a barrier at the end."""
    n_rows = level_row(wires, wires.depth + 1)
    span = shard(wires.width, worker)
    for layer in range(wires.depth):
        for block in range(activations.n_blocks):
            gate_forward_packed(wires, activations, layer, span, block * n_rows)
        barrier(worker)


@device
def group_sums_packed(worker, wires, activations, planes, outputs):
    """Write the class logits, count / group_tau, of all blocks; ``planes`` int64 [32] is scratch."""
    n_rows = level_row(wires, wires.depth + 1)
    level = level_row(wires, wires.depth)
    size = wires.width // wires.n_groups
    first, last = shard(activations.n_blocks * wires.n_groups, worker)
    for unit in range(first, last):
        block, group = unit // wires.n_groups, unit % wires.n_groups
        start = block * n_rows + level + group * size
        n_planes = count_ones(activations.words, start, 1, size, longs(0, 1), planes)
        counts = to_floats(counts_of(planes, n_planes, 0))
        row = (block * outputs.stride + group) * BLOCK
        store(outputs.logits, row, counts / np.float32(outputs.group_tau))


@device
def backward_packed(worker, wires, activations, gradients):
    """Propagate gradients from the groups down; a barrier at the end."""
    words, deltas, sums = activations.words, gradients.deltas, gradients.sums
    n_blocks, n_rows = activations.n_blocks, level_row(wires, wires.depth + 1)
    last_layer = wires.depth - 1
    size = wires.width // wires.n_groups
    first, last = span = shard(wires.width, worker)
    for place in range(n_blocks):
        block = row, adds = place * n_rows, place > 0
        source = Rows(deltas, place * wires.n_groups * BLOCK)
        for group in range(first // size, -(-last // size)):
            delta = load(deltas, source.start + group * BLOCK, BLOCK)
            for gate in range(max(first, group * size), min(last, (group + 1) * size)):
                gate_sums_packed(wires, last_layer, gate, delta, words, row, adds, sums)
        for layer in range(last_layer, 0, -1):
            start = (n_blocks * wires.n_groups + (layer & 1) * wires.width) * BLOCK
            target = Rows(deltas, start)
            gate_backward_packed(wires, activations, gradients, layer, span, block, source, target)
            source = target
            barrier(worker)
        if len(gradients.inputs) > 0:
            of_inputs = shard(wires.n_features, worker)
            target = Rows(gradients.inputs, place * wires.n_features * BLOCK)
            gate_backward_packed(wires, activations, gradients, 0, of_inputs, block, source, target)
            barrier(worker)
    barrier(worker)
