"""A compiled run of training steps for a whole network.

One call runs many steps: noise and gates, the batch out of packed data, forward, group sums,
cross-entropy, backward, Adam. Workers of the pool share out gates, features and groups, and meet
where one needs what another computed; every number is computed by one worker in one order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.kernels.cpu.bits import transpose_bits
from lgn_analysis.kernels.cpu.counting import N_PLANES
from lgn_analysis.kernels.cpu.logits import (
    N_OPTIONS,
    TILE,
    adam_factors,
    adam_step,
    floats_at,
    logit_gradient,
    make_scratch,
    rule_at,
    select_gates,
)
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
from lgn_analysis.kernels.cpu.runtime.threads import barrier, shard
from lgn_analysis.kernels.cpu.simd import at, load, prefetch, put, store
from lgn_analysis.kernels.cpu.training.confidence import (
    Adaptation,
    follow_confidence,
    rate_gates,
    soften_gates,
)
from lgn_analysis.kernels.cpu.training.loss import cross_entropy_block


class Workspace(NamedTuple):
    """What a run of steps writes to and reads again; all of it uninitialised at first.

    Attributes:
        weights: float32 [depth, width, 16].
        gates: uint8 [depth, width].
        coefficients: float32 [depth, width, 4]; empty where gates are hard.
        words: int64 [n_blocks, n_rows]: bits; of the inputs alone where gates are soft.
        values: float32 [n_rows, 64]: one block of activations; empty where gates are hard.
        logits: float32 [n_blocks, n_groups + 1, 64]: class logits, and their logsumexp.
        deltas: float32 [n_blocks · n_groups + 2 · width, 64]: gradients of group sums, and of the
            two layers at hand.
        sums: float32 [depth, width, 4], by position.
        losses: float64 [n_blocks].
        adaptation: how temperatures follow confidence, if they do.
    """

    weights: NDArray[np.float32]
    gates: NDArray[np.uint8]
    coefficients: NDArray[np.float32]
    words: NDArray[np.int64]
    values: NDArray[np.float32]
    logits: NDArray[np.float32]
    deltas: NDArray[np.float32]
    sums: NDArray[np.float32]
    losses: NDArray[np.float64]
    adaptation: Adaptation


class Batches(NamedTuple):
    """Training data and the batches that are taken from them.

    Attributes:
        data: int64 [n_samples, ceil(n_features / 64)]: the bits of each sample.
        labels: int64 [n_samples].
        order: int64 [n_steps, batch]: which samples.
        batch: samples a step.
    """

    data: NDArray[np.int64]
    labels: NDArray[np.int64]
    order: NDArray[np.int64]
    batch: int


class Parameters(NamedTuple):
    """Where each layer's float32 [width, 16] lie: int64 [depth] addresses that the caller keeps alive.

    Attributes:
        logits: the parameters.
        means: Adam's first moment.
        squares: Adam's second moment.
    """

    logits: NDArray[np.int64]
    means: NDArray[np.int64]
    squares: NDArray[np.int64]


@device
def _gather_batch(wires, batches, step, worker, square, words, block_stride):
    """Write level 0 of every block: the batch's bits, transposed to one word a feature."""
    n_words = -(-wires.n_features // BLOCK)
    n_blocks = -(-batches.batch // BLOCK)
    first, last = shard(n_blocks * n_words, worker)
    for unit in range(first, last):
        block, group = unit // n_words, unit % n_words
        begin = step * batches.batch + block * BLOCK
        n_samples = min(BLOCK, batches.batch - block * BLOCK)
        for sample in range(n_samples):
            row = at(batches.order, begin + sample)
            put(square, sample, at(batches.data, row * n_words + group))
        for sample in range(n_samples, BLOCK):
            square[sample] = 0
        store(square, 0, transpose_bits(load(square, 0, BLOCK)))
        for feature in range(min(BLOCK, wires.n_features - group * BLOCK)):
            put(words, block * block_stride + group * BLOCK + feature, at(square, feature))


@device
def _batch_labels(batches, step, block, labels):
    n_samples = min(BLOCK, batches.batch - block * BLOCK)
    for sample in range(n_samples):
        index = batches.order[step * batches.batch + block * BLOCK + sample]
        labels[sample] = batches.labels[index]
    return n_samples


@device
def _move_gates(
    wires, work, rule, adam, parameters, place, step, draw, first, last, chooses, scratch
):
    """Take Adam's step number ``step`` of gates ``first``..``last - 1``, and choose them anew.

    ``place`` is the step's place in the run, whose temperatures move it; the next one's choose.
    """
    rate, scale = adam_factors(adam, step)
    size = wires.width * N_OPTIONS
    taus = rule_at(rule, place, wires.depth).taus
    tile = first
    while tile < last:
        layer = tile // wires.width
        start = layer * wires.width
        tile_end = min(last, min(tile + TILE, start + wires.width))
        tau = taus[layer]
        logits = floats_at(parameters.logits[layer], size)
        means = floats_at(parameters.means[layer], size)
        squares = floats_at(parameters.squares[layer], size)
        if work.adaptation.active:
            soften_gates(parameters.logits, wires.width, tile, tile_end, tau, work.weights)
        for gate in range(tile, tile_end):
            offset = (gate - start) * N_OPTIONS
            prefetch(work.sums, 4 * (start + at(wires.position_of, gate + AHEAD)), 4)
            row = start + at(wires.position_of, gate)
            gradient = logit_gradient(work.sums, row, work.weights, gate, tau)
            adam_step(
                logits,
                means,
                squares,
                offset,
                gradient,
                adam,
                rate,
                scale,
            )
        if chooses:
            _choose_gates(wires, work, rule, parameters, place + 1, draw, tile, tile_end, scratch)
        tile = tile_end


@device
def _choose_gates(wires, work, rule, parameters, place, draw, first, last, scratch):
    if work.adaptation.active:
        rate_gates(
            parameters.logits, wires.width, first, last, work.adaptation, work.gates, scratch
        )
        return
    select_gates(
        parameters.logits,
        wires.width,
        first,
        last,
        rule_at(rule, place, wires.depth),
        draw,
        work.weights,
        work.gates,
        work.coefficients,
        scratch,
    )


@device
def _losses_and_deltas(wires, work, batches, step, first, last, group_tau, labels):
    """Write the losses of blocks ``first``..``last - 1`` and the gradient of their group sums."""
    n_groups = wires.n_groups
    for block in range(first, last):
        n_samples = _batch_labels(batches, step, block, labels)
        work.losses[block] = cross_entropy_block(
            n_groups,
            work.logits,
            block * (n_groups + 1) * BLOCK,
            labels,
            n_samples,
            1.0 / (batches.batch * group_tau),
            work.deltas,
            block * n_groups * BLOCK,
        )


@device
def _note_loss(work, batch, n_blocks, step, worker, losses):
    """Write the mean loss of a step and return whether it is finite, the same to every worker."""
    mean = 0.0
    for block in range(n_blocks):
        mean += work.losses[block] / batch
    if worker.place == 0:
        losses[step] = mean
    return math.isfinite(mean)


@entry
def train_packed(
    worker,
    wires,
    work,
    rule,
    adam,
    parameters,
    batches,
    first_draw,
    steps_done,
    n_steps,
    group_tau,
    factor,
    losses,
):
    """Run steps of a network of hard gates.

    Args:
        worker: see :class:`lgn_analysis.kernels.cpu.runtime.threads.Worker`.
        wires, work, rule, adam, parameters, batches: the network, its memory, how gates are chosen
            and moved, and the data.
        first_draw: the first step's noise; the draw goes up by one a step.
        steps_done: Adam's steps before these.
        n_steps: how many.
        group_tau: group-sum temperature.
        factor: multiplies the gradient at each layer's input.
        losses: float64 [n_steps], the mean loss of each step. One that is not finite ends the run:
            it and those behind it move nothing.
    """
    if not barrier(worker):
        return
    n_groups = wires.n_groups
    n_rows = level_row(wires, wires.depth + 1)
    n_blocks = -(-batches.batch // BLOCK)
    first_gate, last_gate = shard(wires.depth * wires.width, worker)
    first_block, last_block = shard(n_blocks, worker)
    square = np.empty(BLOCK, dtype=np.int64)
    planes = np.empty(N_PLANES, dtype=np.int64)
    none = np.empty(0, dtype=np.float32)
    scratch = make_scratch()
    factor = np.float32(factor)
    _choose_gates(wires, work, rule, parameters, 0, first_draw, first_gate, last_gate, scratch)
    for step in range(n_steps):
        _gather_batch(wires, batches, step, worker, square, work.words, n_rows)
        barrier(worker)
        if work.adaptation.active:
            taus = rule_at(rule, step, wires.depth).taus
            follow_confidence(work.adaptation, wires.depth, wires.width, worker, taus)
        forward_packed(worker, wires, work.gates, work.words, n_blocks)
        group_sums_packed(
            worker, wires, work.words, n_blocks, group_tau, planes, work.logits, n_groups + 1
        )
        barrier(worker)
        _losses_and_deltas(wires, work, batches, step, first_block, last_block, group_tau, square)
        barrier(worker)
        if not _note_loss(work, batches.batch, n_blocks, step, worker, losses):
            return
        backward_packed(
            worker,
            wires,
            work.gates,
            work.words,
            n_blocks,
            work.deltas,
            factor,
            work.sums,
            none,
        )
        _move_gates(
            wires,
            work,
            rule,
            adam,
            parameters,
            step,
            steps_done + step + 1,
            first_draw + step + 1,
            first_gate,
            last_gate,
            step + 1 < n_steps,
            scratch,
        )


@entry
def train_dense(
    worker,
    wires,
    work,
    rule,
    adam,
    parameters,
    batches,
    first_draw,
    steps_done,
    n_steps,
    group_tau,
    factor,
    losses,
):
    """Run steps of a network of soft gates; see :func:`train_packed`."""
    if not barrier(worker):
        return
    n_groups = wires.n_groups
    n_blocks = -(-batches.batch // BLOCK)
    first_gate, last_gate = shard(wires.depth * wires.width, worker)
    square = np.empty(BLOCK, dtype=np.int64)
    none = np.empty(0, dtype=np.float32)
    scratch = make_scratch()
    factor = np.float32(factor)
    _choose_gates(wires, work, rule, parameters, 0, first_draw, first_gate, last_gate, scratch)
    for step in range(n_steps):
        _gather_batch(wires, batches, step, worker, square, work.words, wires.n_features)
        barrier(worker)
        for block in range(n_blocks):
            write_inputs(wires, worker, work.words, none, block, work.values, 0)
            barrier(worker)
            forward_dense(worker, wires, work.coefficients, work.values, 0)
            start = block * (n_groups + 1) * BLOCK
            group_sums_dense(worker, wires, work.values, 0, group_tau, work.logits, start)
            barrier(worker)
            if block % worker.n_workers == worker.place:
                _losses_and_deltas(wires, work, batches, step, block, block + 1, group_tau, square)
            barrier(worker)
            backward_dense(
                worker,
                wires,
                work.coefficients,
                work.values,
                0,
                work.deltas,
                block * n_groups * BLOCK,
                n_blocks * n_groups * BLOCK,
                factor,
                block > 0,
                work.sums,
                none,
                0,
            )
        if not _note_loss(work, batches.batch, n_blocks, step, worker, losses):
            return
        _move_gates(
            wires,
            work,
            rule,
            adam,
            parameters,
            step,
            steps_done + step + 1,
            first_draw + step + 1,
            first_gate,
            last_gate,
            step + 1 < n_steps,
            scratch,
        )
