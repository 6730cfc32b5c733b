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

from lgn_analysis.kernels.cpu.bits import N_PLANES, transpose_bits
from lgn_analysis.kernels.cpu.dense import (
    backward_dense,
    forward_dense,
    group_sums_dense,
    write_inputs,
)
from lgn_analysis.kernels.cpu.logits import (
    N_OPTIONS,
    adam_factors,
    adam_step,
    floats_at,
    logit_gradient,
    make_scratch,
    rule_at,
    select_gates,
)
from lgn_analysis.kernels.cpu.noise import exp, log
from lgn_analysis.kernels.cpu.packed import backward_packed, forward_packed, group_sums_packed
from lgn_analysis.kernels.cpu.runtime.compiling import device, entry
from lgn_analysis.kernels.cpu.runtime.layout import (
    AHEAD,
    BLOCK,
    Activations,
    Gradients,
    Outputs,
    level_row,
)
from lgn_analysis.kernels.cpu.runtime.workers import barrier, shard
from lgn_analysis.kernels.cpu.simd import (
    at,
    floats,
    lane_numbers,
    load,
    load_like,
    low_half,
    maximum,
    prefetch,
    put,
    select,
    store,
)
from lgn_analysis.kernels.cpu.tables import N_ENTRIES, SIXTEEN, TILE, table_gradient
from lgn_analysis.kernels.cpu.training.confidence import (
    Adaptation,
    follow_confidence,
    rate_gates,
    soften_gates,
)


class Workspace(NamedTuple):
    """What a run of steps writes to and reads again; all of it uninitialised at first.

    Attributes:
        activations: of one block where gates are soft.
        outputs: float32 [n_blocks, n_groups + 1, 64], class logits and their logsumexp.
        gradients: of the blocks' groups and of the two layers at hand.
        losses: float64 [n_blocks].
        adaptation: how temperatures follow confidence, if they do.
        logit_gradients: float32 [gates, 16], or of another law [gates, 4], their sum over the noise draws of a step; empty where
            there is one.
    """

    activations: Activations
    outputs: Outputs
    gradients: Gradients
    losses: NDArray[np.float64]
    adaptation: Adaptation
    logit_gradients: NDArray[np.float32]


class Batches(NamedTuple):
    """Training data and the batches that are taken from them.

    Attributes:
        data: int64 [n_samples, ceil(n_features / 64)]: the bits of each sample.
        labels: int64 [n_samples].
        order: int64 [n_steps, batch]: which samples.
        batch: samples a step.
        draws: passes over each batch, each with noise of its own. Pass ``turn`` is draw
            ``turn % draws`` of step ``turn // draws``.
        scale: multiplies the gradient of the group sums.
    """

    data: NDArray[np.int64]
    labels: NDArray[np.int64]
    order: NDArray[np.int64]
    batch: int
    draws: int
    scale: float


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
def cross_entropy_block(n_groups, logits, start, labels, n_samples, scale, deltas, target):
    """Return the sum of the cross-entropies of one block, and write its gradient, scaled.

    Args:
        n_groups: how many logits a sample.
        logits: float32; group g is the row at ``start + 64 · g``, and one more row is scratch.
        labels: int64, of the block.
        n_samples: samples of the block, at most 64.
        scale: multiplies the gradient.
        deltas: float32; out: group g is the row at ``target + 64 · g``, zero beyond the batch.
    """
    top = load(logits, start, BLOCK)
    for group in range(1, n_groups):
        top = maximum(top, load(logits, start + group * BLOCK, BLOCK))
    raised_sum = floats(0.0, BLOCK)
    for group in range(n_groups):
        raised = exp(load(logits, start + group * BLOCK, BLOCK) - top)
        raised_sum = raised_sum + raised
        store(deltas, target + group * BLOCK, raised)
    inside = low_half(lane_numbers(BLOCK)) < n_samples
    shard = select(inside, np.float32(scale) / raised_sum, floats(0.0, BLOCK))
    for group in range(n_groups):
        store(deltas, target + group * BLOCK, load(deltas, target + group * BLOCK, BLOCK) * shard)
    store(logits, start + n_groups * BLOCK, log(raised_sum) + top)
    loss = 0.0
    for sample in range(n_samples):
        place = labels[sample] * BLOCK + sample
        deltas[target + place] -= np.float32(scale)
        loss += np.float64(logits[start + n_groups * BLOCK + sample] - logits[start + place])
    return loss


@device
def _losses_and_deltas(wires, work, batches, step, span, labels):
    """Write the losses of blocks ``span[0]``..``span[1] - 1`` and the gradient of their group sums."""
    n_groups, outputs = wires.n_groups, work.outputs
    for block in range(span[0], span[1]):
        n_samples = _batch_labels(batches, step, block, labels)
        work.losses[block] = cross_entropy_block(
            n_groups,
            outputs.logits,
            block * (n_groups + 1) * BLOCK,
            labels,
            n_samples,
            batches.scale,
            work.gradients.deltas,
            block * n_groups * BLOCK,
        )


@device
def _note_loss(work, batches, turn, worker, losses):
    """Add the mean loss of a pass to its step's; return whether it is finite, the same to every worker."""
    mean = 0.0
    for block in range(work.activations.n_blocks):
        mean += work.losses[block] / batches.batch
    if worker.place == 0:
        step = turn // batches.draws
        before = losses[step] if turn % batches.draws > 0 else 0.0
        losses[step] = before + mean / batches.draws
    return math.isfinite(mean)


@device
def _move_gates(wires, work, rule, adam, draws, turn, span, chooses, scratch):
    """Use the gradient of gates ``span[0]``..``span[1] - 1``, and choose them anew for the next pass.

    The last draw of a step takes it, by Adam; those before it add up their gradients. The temperatures
    of this pass give its gradients; those of the next one choose.
    """
    step, draw = turn // draws, turn % draws
    factors = adam_factors(adam, step)
    n_parameters = N_OPTIONS if rule.law == SIXTEEN else N_ENTRIES
    size = wires.width * n_parameters
    taus = rule_at(rule, turn, wires.depth).taus
    weights, sums, added = work.activations.weights, work.gradients.sums, work.logit_gradients
    tile, last = span
    while tile < last:
        layer = tile // wires.width
        start = layer * wires.width
        tile_end = min(last, min(tile + TILE, start + wires.width))
        tau = taus[layer]
        logits = floats_at(adam.logits[layer], size)
        first_moment = floats_at(adam.first_moments[layer], size)
        second_moment = floats_at(adam.second_moments[layer], size)
        if work.adaptation.active:
            soften_gates(adam.logits, wires.width, tile, tile_end, tau, weights)
        moved = (logits, first_moment, second_moment)
        for gate in range(tile, tile_end):
            prefetch(sums, 4 * (start + at(wires.position_of, gate + AHEAD)), 4)
            row = start + at(wires.position_of, gate)
            offset, place = (gate - start) * n_parameters, gate * n_parameters
            if rule.law == SIXTEEN:
                of_logits = logit_gradient(sums, row, weights, gate, tau)
                _use_gradient(of_logits, moved, offset, added, place, draw, draws, adam, factors)
            else:
                of_table = table_gradient(sums, row, weights, gate, rule.law)
                _use_gradient(of_table, moved, offset, added, place, draw, draws, adam, factors)
        if chooses:
            _choose_gates(wires, work, rule, adam.logits, turn + 1, (tile, tile_end), scratch)
        tile = tile_end


@device
def _use_gradient(gradient, moved, offset, added, place, draw, draws, adam, factors):
    """Add a gate's gradient to those of the draws before, and after the last take the step.

    Args:
        gradient: a vector.
        moved: parameters and Adam's moments of the layer, in which the gate begins at ``offset``.
        added: the sum over draws, in which it begins at ``place``.
    """
    if draw > 0:
        gradient = gradient + load_like(added, place, gradient)
    if draw + 1 < draws:
        store(added, place, gradient)
    else:
        parameters, first_moment, second_moment = moved
        adam_step(parameters, first_moment, second_moment, offset, gradient, adam, factors)


@device
def _choose_gates(wires, work, rule, logits, turn, span, scratch):
    if work.adaptation.active:
        rate_gates(logits, wires.width, span, work.adaptation, work.activations.gates, scratch)
        return
    of_pass = rule_at(rule, turn, wires.depth)
    select_gates(logits, wires.width, span, of_pass, work.activations, scratch)


@entry
def train_packed(worker, wires, work, rule, adam, batches, losses):
    """Run steps of a network of hard gates.

    Args:
        worker: see :class:`lgn_analysis.kernels.cpu.runtime.workers.Worker`.
        wires, work, rule, adam, batches: the network, its memory, how gates are chosen and moved, and
            the data.
        losses: float64 [n_steps], the mean loss of each step. One that is not finite ends the run:
            it and those behind it move nothing.
    """
    if not barrier(worker):
        return
    n_passes, activations = len(losses) * batches.draws, work.activations
    n_rows = level_row(wires, wires.depth + 1)
    gates = shard(wires.depth * wires.width, worker)
    blocks = shard(activations.n_blocks, worker)
    square = np.empty(BLOCK, dtype=np.int64)
    planes = np.empty(N_PLANES, dtype=np.int64)
    scratch = make_scratch()
    _choose_gates(wires, work, rule, adam.logits, 0, gates, scratch)
    for turn in range(n_passes):
        step = turn // batches.draws
        if turn % batches.draws == 0:
            _gather_batch(wires, batches, step, worker, square, activations.words, n_rows)
        barrier(worker)
        if work.adaptation.active:
            taus = rule_at(rule, turn, wires.depth).taus
            follow_confidence(work.adaptation, wires.depth, wires.width, worker, taus)
        forward_packed(worker, wires, activations)
        group_sums_packed(worker, wires, activations, planes, work.outputs)
        barrier(worker)
        _losses_and_deltas(wires, work, batches, step, blocks, square)
        barrier(worker)
        if not _note_loss(work, batches, turn, worker, losses):
            return
        backward_packed(worker, wires, activations, work.gradients)
        chooses = turn + 1 < n_passes
        _move_gates(wires, work, rule, adam, batches.draws, turn, gates, chooses, scratch)


@entry
def train_dense(worker, wires, work, rule, adam, batches, losses):
    """Run steps of a network of soft gates; see :func:`train_packed`."""
    if not barrier(worker):
        return
    n_passes, activations = len(losses) * batches.draws, work.activations
    gates = shard(wires.depth * wires.width, worker)
    square = np.empty(BLOCK, dtype=np.int64)
    scratch = make_scratch()
    _choose_gates(wires, work, rule, adam.logits, 0, gates, scratch)
    for turn in range(n_passes):
        step = turn // batches.draws
        if turn % batches.draws == 0:
            _gather_batch(wires, batches, step, worker, square, activations.words, wires.n_features)
        barrier(worker)
        for block in range(activations.n_blocks):
            write_inputs(wires, worker, activations, block, 0)
            barrier(worker)
            forward_dense(worker, wires, activations, 0)
            group_sums_dense(worker, wires, activations, block, 0, work.outputs)
            barrier(worker)
            if block % worker.n_workers == worker.place:
                _losses_and_deltas(wires, work, batches, step, (block, block + 1), square)
            barrier(worker)
            backward_dense(worker, wires, activations, work.gradients, block, 0)
        if not _note_loss(work, batches, turn, worker, losses):
            return
        chooses = turn + 1 < n_passes
        _move_gates(wires, work, rule, adam, batches.draws, turn, gates, chooses, scratch)
