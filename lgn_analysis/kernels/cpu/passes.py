"""Forward and backward through a whole network, shared out among the workers of a pool.

When a function returns, a worker may read only what it wrote itself, unless all have met at its end.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lgn_analysis.kernels.cpu.counting import count_ones, counts_of
from lgn_analysis.kernels.cpu.dense import gate_backward_dense, gate_forward_dense, gate_sums_dense
from lgn_analysis.kernels.cpu.packed import (
    gate_backward_packed,
    gate_forward_packed,
    gate_sums_packed,
)
from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK, level_row
from lgn_analysis.kernels.cpu.runtime.threads import barrier, shard
from lgn_analysis.kernels.cpu.simd import (
    at,
    bits,
    floats,
    load,
    longs,
    select,
    store,
    to_floats,
)

_RUN: Final = 32
"""Rows that are added up before their sum is: it keeps rounding small where groups are wide."""


@device
def forward_packed(worker, wires, gates, words, n_blocks):
    """Evaluate all layers on blocks of bits; all workers meet at the end."""
    n_rows = level_row(wires, wires.depth + 1)
    first, last = shard(wires.width, worker)
    for layer in range(wires.depth):
        for block in range(n_blocks):
            gate_forward_packed(wires, layer, first, last, gates, words, block * n_rows)
        barrier(worker)


@device
def group_sums_packed(worker, wires, words, n_blocks, group_tau, planes, sums, stride):
    """Write the class logits, count / group_tau, of all blocks.

    Args:
        words: int64 [n_blocks, n_rows].
        planes: int64 [32], scratch.
        sums: float32; group g of block b is the row at ``(b · stride + g) · 64``.
    """
    n_rows = level_row(wires, wires.depth + 1)
    level = level_row(wires, wires.depth)
    size = wires.width // wires.n_groups
    first, last = shard(n_blocks * wires.n_groups, worker)
    for unit in range(first, last):
        block, group = unit // wires.n_groups, unit % wires.n_groups
        start = block * n_rows + level + group * size
        n_planes = count_ones(words, start, 1, size, longs(0, 1), planes)
        counts = to_floats(counts_of(planes, n_planes, 0))
        store(sums, (block * stride + group) * BLOCK, counts / np.float32(group_tau))


@device
def backward_packed(worker, wires, gates, words, n_blocks, deltas, factor, sums, inputs):
    """Propagate gradients from the groups down; all workers meet at the end.

    Args:
        deltas: float32 [n_blocks · n_groups + 2 · width, 64]: the gradient of every gate of a group,
            zero beyond the batch, and then room for two layers' gradients.
        factor: multiplies the gradient at each layer's input.
        sums: float32 [depth, width, 4], by position; out.
        inputs: float32 [n_blocks, n_features, 64]; out, or empty.
    """
    n_rows = level_row(wires, wires.depth + 1)
    last_layer = wires.depth - 1
    size = wires.width // wires.n_groups
    first, last = shard(wires.width, worker)
    for block in range(n_blocks):
        row, adds = block * n_rows, block > 0
        source = block * wires.n_groups * BLOCK
        for group in range(first // size, -(-last // size)):
            delta = load(deltas, source + group * BLOCK, BLOCK)
            for place in range(max(first, group * size), min(last, (group + 1) * size)):
                gate_sums_packed(wires, last_layer, place, delta, words, row, adds, sums)
        for layer in range(last_layer, 0, -1):
            target = (n_blocks * wires.n_groups + (layer & 1) * wires.width) * BLOCK
            gate_backward_packed(
                wires,
                layer,
                first,
                last,
                gates,
                words,
                row,
                deltas,
                source,
                deltas,
                target,
                factor,
                adds,
                sums,
            )
            source = target
            barrier(worker)
        if len(inputs) > 0:
            first_input, last_input = shard(wires.n_features, worker)
            target = block * wires.n_features * BLOCK
            gate_backward_packed(
                wires,
                0,
                first_input,
                last_input,
                gates,
                words,
                row,
                deltas,
                source,
                inputs,
                target,
                factor,
                adds,
                sums,
            )
            barrier(worker)
    barrier(worker)


@device
def write_inputs(wires, worker, words, rows, block, values, block_row):
    """Write level 0 of a block of activations from bits, or from float rows where there are any.

    Args:
        words: int64 [n_blocks, n_features].
        rows: float32 [n_blocks, n_features, 64], or empty.
    """
    first, last = shard(wires.n_features, worker)
    one, zero = floats(1.0, BLOCK), floats(0.0, BLOCK)
    for feature in range(first, last):
        place = block * wires.n_features + feature
        if len(rows) > 0:
            row = load(rows, place * BLOCK, BLOCK)
        else:
            row = select(bits(at(words, place)), one, zero)
        store(values, (block_row + feature) * BLOCK, row)


@device
def forward_dense(worker, wires, coefficients, values, block_row):
    """Evaluate all layers on one block of activations; all workers meet at the end."""
    first, last = shard(wires.width, worker)
    for layer in range(wires.depth):
        gate_forward_dense(wires, layer, first, last, coefficients, values, block_row)
        barrier(worker)


@device
def group_sums_dense(worker, wires, values, block_row, group_tau, sums, start):
    """Write the class logits of one block; group g is the row at ``start + 64 · g`` of ``sums``."""
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
        store(sums, start + group * BLOCK, summed / np.float32(group_tau))


@device
def backward_dense(
    worker,
    wires,
    coefficients,
    values,
    block_row,
    deltas,
    source,
    workspace,
    factor,
    adds,
    sums,
    inputs,
    inputs_start,
):
    """Propagate the gradient of one block from the groups down; all workers meet at the end.

    Args:
        deltas: float32; the gradient of group g is the row at ``source + 64 · g``, zero beyond the
            batch; from ``workspace`` on, room for two layers' gradients [2, width, 64].
        factor: multiplies the gradient at each layer's input.
        adds: whether to add to what ``sums`` holds.
        sums: float32 [depth, width, 4], by position; out.
        inputs: float32, or empty; out: feature f is the row at ``inputs_start + 64 · f``.
    """
    size = wires.width // wires.n_groups
    first, last = shard(wires.width, worker)
    for group in range(first // size, -(-last // size)):
        delta = load(deltas, source + group * BLOCK, BLOCK)
        for place in range(max(first, group * size), min(last, (group + 1) * size)):
            gate_sums_dense(wires, wires.depth - 1, place, delta, values, block_row, adds, sums)
    for layer in range(wires.depth - 1, 0, -1):
        target = workspace + (layer & 1) * wires.width * BLOCK
        gate_backward_dense(
            wires,
            layer,
            first,
            last,
            coefficients,
            values,
            block_row,
            deltas,
            source,
            deltas,
            target,
            factor,
            adds,
            sums,
        )
        source = target
        barrier(worker)
    if len(inputs) > 0:
        first, last = shard(wires.n_features, worker)
        gate_backward_dense(
            wires,
            0,
            first,
            last,
            coefficients,
            values,
            block_row,
            deltas,
            source,
            inputs,
            inputs_start,
            factor,
            adds,
            sums,
        )
    barrier(worker)
