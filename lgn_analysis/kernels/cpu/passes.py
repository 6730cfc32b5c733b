"""A whole network forward and backward in one call each, for PyTorch's autograd."""

from __future__ import annotations

import numpy as np

from lgn_analysis.kernels.cpu.bits import N_PLANES
from lgn_analysis.kernels.cpu.dense import (
    backward_dense,
    forward_dense,
    group_sums_dense,
    write_inputs,
)
from lgn_analysis.kernels.cpu.logits import N_OPTIONS, logit_gradient, make_scratch, select_gates
from lgn_analysis.kernels.cpu.packed import backward_packed, forward_packed, group_sums_packed
from lgn_analysis.kernels.cpu.runtime.compiling import device, entry
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, level_row
from lgn_analysis.kernels.cpu.runtime.workers import barrier, exclusive, shard
from lgn_analysis.kernels.cpu.simd import at, prefetch, store
from lgn_analysis.kernels.cpu.tables import N_ENTRIES, SIXTEEN, table_gradient


@entry
def network_forward_packed(worker, wires, logits, rule, activations, outputs):
    """Choose gates and evaluate them on bits.

    Args:
        worker: see :class:`lgn_analysis.kernels.cpu.runtime.workers.Worker`.
        wires: the network.
        logits: int64 [depth], where each layer's logits float32 [width, 16] lie, or of
            another law [width, 4].
        rule: see :class:`lgn_analysis.kernels.cpu.logits.Rule`.
        activations, outputs: see :mod:`lgn_analysis.kernels.cpu.runtime.layout`.
    """
    if not barrier(worker):
        return
    span = shard(wires.depth * wires.width, worker)
    select_gates(logits, wires.width, span, rule, activations, make_scratch())
    barrier(worker)
    forward_packed(worker, wires, activations)
    if len(outputs.logits) > 0:
        planes = np.empty(N_PLANES, dtype=np.int64)
        group_sums_packed(worker, wires, activations, planes, outputs)


@entry
def network_backward_packed(worker, wires, rule, activations, gradients, grad_logits):
    """Write ∂L/∂z of every gate, and ∂L/∂x, from ∂L/∂(group sum).

    Args:
        rule: as in the forward pass.
        activations: as the forward pass left them.
        grad_logits: float32 [depth, width, 16], or of another law [depth, width, 4]; out.
    """
    if not barrier(worker):
        return
    backward_packed(worker, wires, activations, gradients)
    _write_logit_gradients(wires, worker, rule, activations.weights, gradients.sums, grad_logits)


@entry
def network_forward_dense(worker, wires, logits, rule, activations, outputs):
    """Choose gates and evaluate their coefficients on floats; see :func:`network_forward_packed`."""
    if not barrier(worker):
        return
    span = shard(wires.depth * wires.width, worker)
    select_gates(logits, wires.width, span, rule, activations, make_scratch())
    n_rows = level_row(wires, wires.depth + 1)
    barrier(worker)
    # Activations that are kept come from all workers together, layer by layer; where they are not,
    # each worker has blocks of its own and nothing to wait for.
    pool, workspace = worker, 0
    first, last = 0, activations.n_blocks
    if not activations.keeps:
        pool, workspace = exclusive(worker), worker.place * n_rows
        first, last = shard(activations.n_blocks, worker)
    for block in range(first, last):
        block_row = block * n_rows if activations.keeps else workspace
        write_inputs(wires, pool, activations, block, block_row)
        barrier(pool)
        forward_dense(pool, wires, activations, block_row)
        group_sums_dense(pool, wires, activations, block, block_row, outputs)


@entry
def network_backward_dense(worker, wires, rule, activations, gradients, grad_logits):
    """Write ∂L/∂z of every gate, and ∂L/∂x; see :func:`network_backward_packed`."""
    if not barrier(worker):
        return
    n_rows = level_row(wires, wires.depth + 1)
    for block in range(activations.n_blocks):
        backward_dense(worker, wires, activations, gradients, block, block * n_rows)
    _write_logit_gradients(wires, worker, rule, activations.weights, gradients.sums, grad_logits)


@device
def _write_logit_gradients(wires, worker, rule, weights, sums, grad_logits):
    first, last = shard(wires.depth * wires.width, worker)
    begin = first
    while begin < last:
        layer = begin // wires.width
        start = layer * wires.width
        end = min(last, start + wires.width)
        tau = rule.taus[layer]
        for gate in range(begin, end):
            prefetch(sums, 4 * (start + at(wires.position_of, gate + AHEAD)), 4)
            row = start + at(wires.position_of, gate)
            if rule.law == SIXTEEN:
                store(grad_logits, gate * N_OPTIONS, logit_gradient(sums, row, weights, gate, tau))
            else:
                of_table = table_gradient(sums, row, weights, gate, rule.law)
                store(grad_logits, gate * N_ENTRIES, of_table)
        begin = end
