"""Activations, class logits, and the gradient of every gate at every sample: once, for all products."""

from __future__ import annotations

from typing import Final

from lgn_analysis.kernels.cpu.curvature.order import Sums, delta_start, first_block, value_start
from lgn_analysis.kernels.cpu.runtime.compiling import device, entry
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, BLOCK
from lgn_analysis.kernels.cpu.runtime.workers import finish_part, take_part, wait_for_parts
from lgn_analysis.kernels.cpu.simd import (
    at,
    fma,
    four_totals,
    load,
    load_like,
    mask_of,
    n_lanes,
    prefetch,
    select,
    store,
    widen,
    zero_line,
)

RUN: Final = 32
"""Rows that are added up before their sum is: it keeps rounding small where groups are wide."""
LINE: Final = 16
"""Values that one request brings near; of float64 two."""


@device
def write_inputs(layout, words, block, values, like):
    """Write level 0 of a block from bits: int64 [ceil(batch / 64), n_features]."""
    n_features = layout.wires.n_features
    first_sample = block * layout.block
    word_row = first_sample // BLOCK * n_features
    shift = first_sample % BLOCK
    target = value_start(layout, block, 0)
    for feature in range(n_features):
        word = at(words, word_row + feature) >> shift
        for lane in range(0, layout.block, n_lanes(like)):
            mask = mask_of(word >> lane, like)
            store(values, target + feature * layout.block + lane, select(mask, like + 1.0, like))


@device
def gates_forward(layout, layer, coefficients, values, source, outputs, target, like):
    """Evaluate a layer on a block, from offset ``source`` of ``values`` to ``target`` of ``outputs``."""
    rows, size = layout.order.rows, layout.block
    base = layer * layout.wires.width
    for step in range(base, base + layout.wires.width):
        a_row, b_row = source + at(rows, 4 * step) * size, source + at(rows, 4 * step + 1) * size
        out = target + at(rows, 4 * step + 2) * size
        c0, c1 = at(coefficients, 4 * step), at(coefficients, 4 * step + 1)
        c2, c3 = at(coefficients, 4 * step + 2), at(coefficients, 4 * step + 3)
        ahead = target + at(rows, 4 * (step + AHEAD) + 2) * size
        for lane in range(0, size, LINE):
            prefetch(outputs, ahead + lane, LINE)
        for lane in range(0, size, n_lanes(like)):
            a, b = load_like(values, a_row + lane, like), load_like(values, b_row + lane, like)
            rest = fma(c1, a, like + c0)
            store(outputs, out + lane, fma(fma(c3, a, like + c2), b, rest))


@device
def group_sums(layout, values, start, row_size, sums, target, factor, like):
    """Write ``factor`` times the sums of the last layer's rows, group by group; rows of any size."""
    size = layout.wires.width // layout.wires.n_groups
    for group in range(layout.wires.n_groups):
        for lane in range(0, row_size, n_lanes(like)):
            summed = like
            row, end = group * size, (group + 1) * size
            while row < end:
                run = like
                run_end = min(end, row + RUN)
                while row < run_end:
                    run = run + load_like(values, start + row * row_size + lane, like)
                    row += 1
                summed = summed + run
            store(sums, target + group * row_size + lane, summed * factor)


@entry
def primal_forward(worker, layout, words, coefficients, values, workspace, factor, outputs):
    """Evaluate the network on all blocks.

    Args:
        words: int64 [ceil(batch / 64), n_features], the inputs as bits, or empty where ``values``
            holds them.
        coefficients: [depth, width, 4], by step.
        values: [n_blocks, n_rows, block]; out: levels 0..depth-1.
        workspace: two levels [2, width, block] for each worker.
        factor: 1 / group_tau.
        outputs: [n_blocks, n_groups, block]; out: class logits.
    """
    wires = layout.wires
    like = zero_line(values, (0,))
    size = 2 * wires.width * layout.block
    start = worker.place * size
    if start + size > len(workspace):
        return
    part = take_part(worker)
    while part < layout.n_blocks:
        if len(words) > 0:
            write_inputs(layout, words, part, values, like)
        for layer in range(wires.depth - 1):
            source = value_start(layout, part, layer)
            target = value_start(layout, part, layer + 1)
            gates_forward(layout, layer, coefficients, values, source, values, target, like)
        last = wires.depth - 1
        source = value_start(layout, part, last)
        gates_forward(layout, last, coefficients, values, source, workspace, start, like)
        target = part * wires.n_groups * layout.block
        group_sums(layout, workspace, start, layout.block, outputs, target, factor, like)
        finish_part(worker)
        part = take_part(worker)
    wait_for_parts(worker, layout.n_blocks)


@device
def _gates_backward(layout, layer, block, primal, workspace, start, sums):
    """Write a layer's gradients and their sums, and pass them on to its inputs.

    Args:
        primal: coefficients, values and deltas, see :func:`primal_backward`.
        workspace: from ``start`` on, gradients of this layer's outputs and of its inputs.
        sums: see :class:`.order.Sums`.
    """
    coefficients, values, deltas = primal
    level = layout.wires.width * layout.block
    incoming, outgoing = start + (layer & 1) * level, start + (1 - (layer & 1)) * level
    like = zero_line(values, (0,))
    rows, size = layout.order.rows, layout.block
    is_last, passes_on = layer == layout.wires.depth - 1, layer > layout.first
    base = layer * layout.wires.width
    source, target = value_start(layout, block, layer), delta_start(layout, block, layer)
    for step in range(base, base + layout.wires.width):
        a_row, b_row = at(rows, 4 * step) * size, at(rows, 4 * step + 1) * size
        delta_row = at(rows, 4 * step + 3) * size
        c1, c2 = at(coefficients, 4 * step + 1), at(coefficients, 4 * step + 2)
        c3 = at(coefficients, 4 * step + 3)
        ahead = incoming + at(rows, 4 * (step + AHEAD) + 3) * size
        for lane in range(0, size, LINE):
            prefetch(workspace, ahead + lane, LINE)
        s0, s1, s2, s3 = like, like, like, like
        for lane in range(0, size, n_lanes(like)):
            a = load_like(values, source + a_row + lane, like)
            b = load_like(values, source + b_row + lane, like)
            if is_last:
                delta = load_like(deltas, target + delta_row + lane, like)
            else:
                delta = load_like(workspace, incoming + delta_row + lane, like)
                store(workspace, incoming + delta_row + lane, like)
                store(deltas, target + (step - base) * size + lane, delta)
            delta_a = delta * a
            s0, s1 = s0 + delta, s1 + delta_a
            s2, s3 = fma(delta, b, s2), fma(delta_a, b, s3)
            if passes_on:
                # One after the other: A and B may be one row.
                place = outgoing + a_row + lane
                passed = load_like(workspace, place, like)
                store(workspace, place, fma(fma(c3, b, like + c1), delta, passed))
                place = outgoing + b_row + lane
                passed = load_like(workspace, place, like)
                store(workspace, place, fma(fma(c3, a, like + c2), delta, passed))
        four = widen(four_totals(s0, s1, s2, s3))
        offset = sums.start + 4 * (step - layout.first * layout.wires.width)
        store(sums.values, offset, load(sums.values, offset, 4) + four if sums.adds else four)


@entry
def primal_backward(worker, layout, coefficients, values, deltas, workspace, sums):
    """Write the gradient of every gate of the layers from the first probed one on.

    Args:
        coefficients, values: see :func:`primal_forward`.
        deltas: [n_blocks, n_rows, block]; the groups' rows are given, zero beyond the batch; out:
            the others, by step.
        workspace: two levels [2, width, block] for each worker.
        sums: float64 [n_parts, n_layers, width, 4], by step; out: Σδ, Σδa, Σδb, Σδab.
    """
    wires = layout.wires
    like = zero_line(values, (0,))
    level = wires.width * layout.block
    start = worker.place * 2 * level
    if start + 2 * level > len(workspace):
        return
    n_sums = 4 * (wires.depth - layout.first) * wires.width
    is_clean = False
    part = take_part(worker)
    while part < layout.n_parts:
        if not is_clean:
            clear(workspace, start, 2 * level, like)
            is_clean = True
        begin, end = first_block(layout, part), first_block(layout, part + 1)
        for block in range(begin, end):
            for layer in range(wires.depth - 1, layout.first - 1, -1):
                of_part = Sums(sums, part * n_sums, block > begin)
                _gates_backward(
                    layout, layer, block, (coefficients, values, deltas), workspace, start, of_part
                )
        finish_part(worker)
        part = take_part(worker)
    wait_for_parts(worker, layout.n_parts)


@device
def clear(array, start, n, like):
    """Set n values to zero, a multiple of a cache line's."""
    for place in range(start, start + n, n_lanes(like)):
        store(array, place, like)
