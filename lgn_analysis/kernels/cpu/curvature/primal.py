"""Activations, class logits, and the gradient of every gate at every sample: once, for all products."""

from __future__ import annotations

from typing import Final

from lgn_analysis.kernels.cpu.curvature.order import (
    delta_start,
    first_block,
    value_start,
)
from lgn_analysis.kernels.cpu.runtime.compiling import device, entry
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, BLOCK
from lgn_analysis.kernels.cpu.runtime.threads import finish_part, take_part, wait_for_parts
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
def write_inputs(frame, words, block, values, like):
    """Write level 0 of a block from bits: int64 [ceil(batch / 64), n_features]."""
    n_features = frame.wires.n_features
    first_sample = block * frame.block
    word_row = first_sample // BLOCK * n_features
    shift = first_sample % BLOCK
    target = value_start(frame, block, 0)
    for feature in range(n_features):
        word = at(words, word_row + feature) >> shift
        for lane in range(0, frame.block, n_lanes(like)):
            mask = mask_of(word >> lane, like)
            store(values, target + feature * frame.block + lane, select(mask, like + 1.0, like))


@device
def gates_forward(frame, layer, coefficients, values, source, outputs, target, like):
    """Evaluate a layer on a block, from offset ``source`` of ``values`` to ``target`` of ``outputs``."""
    rows, size = frame.order.rows, frame.block
    base = layer * frame.wires.width
    for step in range(base, base + frame.wires.width):
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
def group_sums(frame, values, start, row_size, sums, target, factor, like):
    """Write ``factor`` times the sums of the last layer's rows, group by group; rows of any size."""
    size = frame.wires.width // frame.wires.n_groups
    for group in range(frame.wires.n_groups):
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
def primal_forward(member, frame, words, coefficients, values, room, factor, outputs):
    """Evaluate the network on all blocks.

    Args:
        words: int64 [ceil(batch / 64), n_features], the inputs as bits, or empty where ``values``
            holds them.
        coefficients: [depth, width, 4], by step.
        values: [n_blocks, n_rows, block]; out: levels 0..depth-1.
        room: two levels [2, width, block] for each member.
        factor: 1 / group_tau.
        outputs: [n_blocks, n_groups, block]; out: class logits.
    """
    wires = frame.wires
    like = zero_line(values, (0,))
    size = 2 * wires.width * frame.block
    start = member.place * size
    if start + size > len(room):
        return
    part = take_part(member)
    while part < frame.n_blocks:
        if len(words) > 0:
            write_inputs(frame, words, part, values, like)
        for layer in range(wires.depth - 1):
            source = value_start(frame, part, layer)
            target = value_start(frame, part, layer + 1)
            gates_forward(frame, layer, coefficients, values, source, values, target, like)
        last = wires.depth - 1
        source = value_start(frame, part, last)
        gates_forward(frame, last, coefficients, values, source, room, start, like)
        target = part * wires.n_groups * frame.block
        group_sums(frame, room, start, frame.block, outputs, target, factor, like)
        finish_part(member)
        part = take_part(member)
    wait_for_parts(member, frame.n_blocks)


@device
def _gates_backward(
    frame, layer, block, coefficients, values, deltas, room, incoming, outgoing, adds, sums, start
):
    """Write a layer's gradients and their sums, and pass them on to its inputs."""
    like = zero_line(values, (0,))
    rows, size = frame.order.rows, frame.block
    is_last, passes_on = layer == frame.wires.depth - 1, layer > frame.first
    base = layer * frame.wires.width
    source, target = value_start(frame, block, layer), delta_start(frame, block, layer)
    for step in range(base, base + frame.wires.width):
        a_row, b_row = at(rows, 4 * step) * size, at(rows, 4 * step + 1) * size
        delta_row = at(rows, 4 * step + 3) * size
        c1, c2 = at(coefficients, 4 * step + 1), at(coefficients, 4 * step + 2)
        c3 = at(coefficients, 4 * step + 3)
        ahead = incoming + at(rows, 4 * (step + AHEAD) + 3) * size
        for lane in range(0, size, LINE):
            prefetch(room, ahead + lane, LINE)
        s0, s1, s2, s3 = like, like, like, like
        for lane in range(0, size, n_lanes(like)):
            a = load_like(values, source + a_row + lane, like)
            b = load_like(values, source + b_row + lane, like)
            if is_last:
                delta = load_like(deltas, target + delta_row + lane, like)
            else:
                delta = load_like(room, incoming + delta_row + lane, like)
                store(room, incoming + delta_row + lane, like)
                store(deltas, target + (step - base) * size + lane, delta)
            delta_a = delta * a
            s0, s1 = s0 + delta, s1 + delta_a
            s2, s3 = fma(delta, b, s2), fma(delta_a, b, s3)
            if passes_on:
                # One after the other: A and B may be one row.
                place = outgoing + a_row + lane
                store(room, place, fma(fma(c3, b, like + c1), delta, load_like(room, place, like)))
                place = outgoing + b_row + lane
                store(room, place, fma(fma(c3, a, like + c2), delta, load_like(room, place, like)))
        four = widen(four_totals(s0, s1, s2, s3))
        offset = start + 4 * (step - frame.first * frame.wires.width)
        store(sums, offset, load(sums, offset, 4) + four if adds else four)


@entry
def primal_backward(member, frame, coefficients, values, deltas, room, sums):
    """Write the gradient of every gate of the layers from the first probed one on.

    Args:
        coefficients, values: see :func:`primal_forward`.
        deltas: [n_blocks, n_rows, block]; the groups' rows are given, zero beyond the batch; out:
            the others, by step.
        room: two levels [2, width, block] for each member.
        sums: float64 [n_parts, n_layers, width, 4], by step; out: Σδ, Σδa, Σδb, Σδab.
    """
    wires = frame.wires
    like = zero_line(values, (0,))
    level = wires.width * frame.block
    start = member.place * 2 * level
    if start + 2 * level > len(room):
        return
    n_sums = 4 * (wires.depth - frame.first) * wires.width
    is_clean = False
    part = take_part(member)
    while part < frame.n_parts:
        if not is_clean:
            clear(room, start, 2 * level, like)
            is_clean = True
        begin, end = first_block(frame, part), first_block(frame, part + 1)
        for block in range(begin, end):
            for layer in range(wires.depth - 1, frame.first - 1, -1):
                _gates_backward(
                    frame,
                    layer,
                    block,
                    coefficients,
                    values,
                    deltas,
                    room,
                    start + (layer & 1) * level,
                    start + (1 - (layer & 1)) * level,
                    block > begin,
                    sums,
                    part * n_sums,
                )
        finish_part(member)
        part = take_part(member)
    wait_for_parts(member, frame.n_parts)


@device
def clear(array, start, n, like):
    """Set n values to zero, a multiple of a cache line's."""
    for place in range(start, start + n, n_lanes(like)):
        store(array, place, like)
