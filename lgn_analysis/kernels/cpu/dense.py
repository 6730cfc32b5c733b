"""Gates as four coefficients on floats, forward and backward: a layer, and a whole network.

A row is 64 float32, one block of samples. These are the twins of :mod:`.packed`, with its arguments.
"""

from __future__ import annotations

from typing import Final

import numpy as np

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
    prefetch,
    select,
    store,
)

_RUN: Final = 32
"""Rows that are added up before their sum is: it keeps rounding small where groups are wide."""


@device
def gate_forward_dense(wires, activations, layer, span, block_row):
    """Evaluate ``c0 + c1·a + (c2 + c3·a)·b`` for positions ``span[0]``..``span[1] - 1`` on one block."""
    coefficients, values = activations.coefficients, activations.values
    source = block_row + level_row(wires, layer)
    target = block_row + level_row(wires, layer + 1)
    base = layer * wires.width
    for place in range(span[0], span[1]):
        ahead = base + place + AHEAD
        prefetch(values, (source + at(wires.sources, 2 * ahead)) * BLOCK, BLOCK)
        prefetch(values, (source + at(wires.sources, 2 * ahead + 1)) * BLOCK, BLOCK)
        prefetch(coefficients, 4 * (base + at(wires.gate_at, ahead)), 4)
        a = load(values, (source + at(wires.sources, 2 * (base + place))) * BLOCK, BLOCK)
        b = load(values, (source + at(wires.sources, 2 * (base + place) + 1)) * BLOCK, BLOCK)
        c = 4 * (base + at(wires.gate_at, base + place))
        of_b = fma(at(coefficients, c + 3), a, floats(at(coefficients, c + 2), BLOCK))
        rest = fma(at(coefficients, c + 1), a, floats(at(coefficients, c), BLOCK))
        store(values, (target + place) * BLOCK, fma(of_b, b, rest))


@device
def gate_sums_dense(wires, layer, place, delta, values, block_row, adds, sums):
    """Write or add Σδ, Σδa, Σδb and Σδab of one gate over one block."""
    base = layer * wires.width
    source = block_row + level_row(wires, layer)
    ahead = 2 * (base + place + AHEAD)
    prefetch(values, (source + at(wires.sources, ahead)) * BLOCK, BLOCK)
    prefetch(values, (source + at(wires.sources, ahead + 1)) * BLOCK, BLOCK)
    a = load(values, (source + at(wires.sources, 2 * (base + place))) * BLOCK, BLOCK)
    b = load(values, (source + at(wires.sources, 2 * (base + place) + 1)) * BLOCK, BLOCK)
    delta_a = delta * a
    four = four_totals(delta, delta_a, delta * b, delta_a * b)
    offset = 4 * (base + place)
    store(sums, offset, load(sums, offset, 4) + four if adds else four)


@device
def gate_backward_dense(wires, activations, gradients, layer, span, block, source, target):
    """Propagate a layer's gradient to positions ``span[0]``..``span[1] - 1`` of its inputs, over a block."""
    block_row, adds = block
    coefficients, values = activations.coefficients, activations.values
    deltas, sums = source.values, gradients.sums
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
            prefetch(values, (level + at(wires.consumers, ahead + 2)) * BLOCK, BLOCK)
            gate = at(wires.consumers, ahead + 1) >> 1
            prefetch(coefficients, 4 * (base + gate), 4)
        gathered = floats(0.0, BLOCK)
        for entry in range(begin, end):
            gate_and_side = at(wires.consumers, 3 * entry + 1)
            c = 4 * (base + (gate_and_side >> 1))
            other = load(values, (level + at(wires.consumers, 3 * entry + 2)) * BLOCK, BLOCK)
            delta = load(deltas, source.start + at(wires.consumers, 3 * entry) * BLOCK, BLOCK)
            slope = floats(at(coefficients, c + 1 + (gate_and_side & 1)), BLOCK)
            gathered = fma(fma(at(coefficients, c + 3), other, slope), delta, gathered)
        gathered = gathered * gradients.factor
        store(target.values, target.start + row * BLOCK, gathered)
        if layer > 0:
            gate_sums_dense(wires, layer - 1, row, gathered, values, block_row, adds, sums)


@device
def write_inputs(wires, worker, activations, block, block_row):
    """Write level 0 of a block of activations from bits, or from float rows where there are any."""
    inputs = activations.inputs
    first, last = shard(wires.n_features, worker)
    one, zero = floats(1.0, BLOCK), floats(0.0, BLOCK)
    for feature in range(first, last):
        place = block * wires.n_features + feature
        if len(inputs) > 0:
            row = load(inputs, place * BLOCK, BLOCK)
        else:
            row = select(bits(at(activations.words, place)), one, zero)
        store(activations.values, (block_row + feature) * BLOCK, row)


@device
def forward_dense(worker, wires, activations, block_row):
    """Evaluate all layers on one block of activations; a barrier at the end."""
    span = shard(wires.width, worker)
    for layer in range(wires.depth):
        gate_forward_dense(wires, activations, layer, span, block_row)
        barrier(worker)


@device
def group_sums_dense(worker, wires, activations, block, block_row, outputs):
    """Write the class logits of one block."""
    values, start = activations.values, block * outputs.stride * BLOCK
    level = block_row + level_row(wires, wires.depth)
    size = wires.width // wires.n_groups
    first, last = shard(wires.n_groups, worker)
    for group in range(first, last):
        summed = floats(0.0, BLOCK)
        row = level + group * size
        end = row + size
        while row < end:
            run = floats(0.0, BLOCK)
            run_end = min(end, row + _RUN)
            while row < run_end:
                run = run + load(values, row * BLOCK, BLOCK)
                row += 1
            summed = summed + run
        store(outputs.logits, start + group * BLOCK, summed / np.float32(outputs.group_tau))


@device
def backward_dense(worker, wires, activations, gradients, place, block_row):
    """Propagate the gradient of block number ``place`` from the groups down; a barrier at the end."""
    values, deltas, sums = activations.values, gradients.deltas, gradients.sums
    size = wires.width // wires.n_groups
    block = block_row, place > 0
    source = Rows(deltas, place * wires.n_groups * BLOCK)
    first, last = span = shard(wires.width, worker)
    for group in range(first // size, -(-last // size)):
        delta = load(deltas, source.start + group * BLOCK, BLOCK)
        for gate in range(max(first, group * size), min(last, (group + 1) * size)):
            gate_sums_dense(wires, wires.depth - 1, gate, delta, values, block_row, place > 0, sums)
    for layer in range(wires.depth - 1, 0, -1):
        start = (activations.n_blocks * wires.n_groups + (layer & 1) * wires.width) * BLOCK
        target = Rows(deltas, start)
        gate_backward_dense(wires, activations, gradients, layer, span, block, source, target)
        source = target
        barrier(worker)
    if len(gradients.inputs) > 0:
        of_inputs = shard(wires.n_features, worker)
        target = Rows(gradients.inputs, place * wires.n_features * BLOCK)
        gate_backward_dense(wires, activations, gradients, 0, of_inputs, block, source, target)
    barrier(worker)
