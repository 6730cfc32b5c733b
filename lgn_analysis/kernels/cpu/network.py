"""A whole network forward and backward in one call each, for PyTorch's autograd."""

from __future__ import annotations

import numpy as np

from lgn_analysis.kernels.cpu.counting import N_PLANES
from lgn_analysis.kernels.cpu.logits import N_OPTIONS, logit_gradient, make_scratch, select_gates
from lgn_analysis.kernels.cpu.passes import (
    backward_dense,
    backward_packed,
    forward_dense,
    forward_packed,
    group_sums_dense,
    group_sums_packed,
    write_inputs,
)
from lgn_analysis.kernels.cpu.runtime.compiling import device, entry
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, BLOCK, level_row
from lgn_analysis.kernels.cpu.runtime.threads import barrier, exclusive, shard
from lgn_analysis.kernels.cpu.simd import at, prefetch, store


@entry
def network_forward_packed(
    worker, wires, logits, rule, draw, weights, gates, words, n_blocks, group_tau, sums
):
    """Choose gates and evaluate them on bits.

    Args:
        worker: see :class:`lgn_analysis.kernels.cpu.runtime.threads.Worker`.
        logits, rule, draw, weights, gates: see
            :func:`lgn_analysis.kernels.cpu.logits.select_gates`.
        words: int64 [n_blocks, n_rows]; in: level 0; out: the others.
        group_tau: group-sum temperature.
        sums: float32 [n_blocks, n_groups, 64]; out: the class logits. Empty: not wanted.
    """
    if not barrier(worker):
        return
    first, last = shard(wires.depth * wires.width, worker)
    coefficients = np.empty(0, dtype=np.float32)
    scratch = make_scratch()
    select_gates(
        logits,
        wires.width,
        first,
        last,
        rule,
        draw,
        weights,
        gates,
        coefficients,
        scratch,
    )
    barrier(worker)
    forward_packed(worker, wires, gates, words, n_blocks)
    if len(sums) > 0:
        planes = np.empty(N_PLANES, dtype=np.int64)
        group_sums_packed(worker, wires, words, n_blocks, group_tau, planes, sums, wires.n_groups)


@device
def _write_logit_gradients(wires, worker, sums, weights, taus, gradients):
    first, last = shard(wires.depth * wires.width, worker)
    begin = first
    while begin < last:
        layer = begin // wires.width
        start = layer * wires.width
        end = min(last, start + wires.width)
        tau = taus[layer]
        for gate in range(begin, end):
            prefetch(sums, 4 * (start + at(wires.position_of, gate + AHEAD)), 4)
            row = start + at(wires.position_of, gate)
            store(gradients, gate * N_OPTIONS, logit_gradient(sums, row, weights, gate, tau))
        begin = end


@entry
def network_backward_packed(
    worker,
    wires,
    taus,
    weights,
    gates,
    words,
    n_blocks,
    deltas,
    factor,
    sums,
    inputs,
    gradients,
):
    """Write ∂L/∂z of every gate, and ∂L/∂x, from ∂L/∂(group sum).

    Args:
        taus: float64 [depth], gate temperature of each layer.
        weights, gates, words: as the forward pass left them.
        deltas, sums, inputs: see :func:`lgn_analysis.kernels.cpu.passes.backward_packed`.
        factor: multiplies the gradient at each layer's input.
        gradients: float32 [depth, width, 16]; out.
    """
    if not barrier(worker):
        return
    backward_packed(worker, wires, gates, words, n_blocks, deltas, np.float32(factor), sums, inputs)
    _write_logit_gradients(wires, worker, sums, weights, taus, gradients)


@entry
def network_forward_dense(
    worker,
    wires,
    logits,
    rule,
    draw,
    weights,
    gates,
    coefficients,
    words,
    rows,
    values,
    keeps,
    n_blocks,
    group_tau,
    sums,
):
    """Choose gates and evaluate their coefficients on floats; see :func:`network_forward_packed`.

    Args:
        coefficients: float32 [depth, width, 4]; out.
        words, rows: the inputs; see :func:`lgn_analysis.kernels.cpu.passes.write_inputs`.
        values: float32 [n_blocks, n_rows, 64]; out: all activations. Where they are not kept, a
            block for each worker.
        keeps: whether the activations are kept for the backward pass.
    """
    if not barrier(worker):
        return
    first, last = shard(wires.depth * wires.width, worker)
    scratch = make_scratch()
    select_gates(
        logits,
        wires.width,
        first,
        last,
        rule,
        draw,
        weights,
        gates,
        coefficients,
        scratch,
    )
    n_rows = level_row(wires, wires.depth + 1)
    barrier(worker)
    # Activations that are kept come from all workers together, layer by layer; where they are not,
    # each worker has blocks of its own and nothing to wait for.
    pool, workspace = worker, 0
    first, last = 0, n_blocks
    if not keeps:
        pool, workspace = exclusive(worker), worker.place * n_rows
        first, last = shard(n_blocks, worker)
    for block in range(first, last):
        block_row = block * n_rows if keeps else workspace
        write_inputs(wires, pool, words, rows, block, values, block_row)
        barrier(pool)
        forward_dense(pool, wires, coefficients, values, block_row)
        start = block * wires.n_groups * BLOCK
        group_sums_dense(pool, wires, values, block_row, group_tau, sums, start)


@entry
def network_backward_dense(
    worker,
    wires,
    taus,
    weights,
    coefficients,
    values,
    n_blocks,
    deltas,
    factor,
    sums,
    inputs,
    gradients,
):
    """Write ∂L/∂z of every gate, and ∂L/∂x; see :func:`network_backward_packed`.

    Args:
        taus: float64 [depth], gate temperature of each layer.
        weights, coefficients, values: as the forward pass left them.
        deltas: float32 [n_blocks · n_groups + 2 · width, 64].
        inputs: float32 [n_blocks, n_features, 64]; out, or empty.
    """
    if not barrier(worker):
        return
    n_rows = level_row(wires, wires.depth + 1)
    for block in range(n_blocks):
        backward_dense(
            worker,
            wires,
            coefficients,
            values,
            block * n_rows,
            deltas,
            block * wires.n_groups * BLOCK,
            n_blocks * wires.n_groups * BLOCK,
            np.float32(factor),
            block > 0,
            sums,
            inputs,
            block * wires.n_features * BLOCK,
        )
    _write_logit_gradients(wires, worker, sums, weights, taus, gradients)
