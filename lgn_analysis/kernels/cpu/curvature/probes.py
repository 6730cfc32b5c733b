"""Probes of the curvature in activations: ``uᵀ (∂²L/∂y²) u`` for u of random signs and given lengths.

u is added to the outputs of the probed layers' gates. Two neighbouring draws go together, since one call
of Philox serves both; their lengths are computed once a block for all draws.
"""

from __future__ import annotations

from typing import Final

from lgn_analysis.kernels.cpu.curvature.lengths import write_lengths
from lgn_analysis.kernels.cpu.curvature.order import BlockLayout, delta_start, value_start
from lgn_analysis.kernels.cpu.curvature.primal import LINE, clear, group_sums
from lgn_analysis.kernels.cpu.curvature.signs import PAIR, signed, write_signs
from lgn_analysis.kernels.cpu.curvature.tangents import loss_tangents
from lgn_analysis.kernels.cpu.runtime.compiling import device, entry, merged
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, BLOCK
from lgn_analysis.kernels.cpu.runtime.threads import finish_part, take_part, wait_for_parts
from lgn_analysis.kernels.cpu.simd import (
    at,
    fma,
    load_like,
    n_lanes,
    prefetch,
    repeat,
    store,
    widen,
    zero_line,
)

_RUN: Final = 64
"""Gates whose products are added up in the values' type before float64 takes over."""


def probe_workspace_size(layout: BlockLayout) -> int:
    """Return how many values a worker needs; see :func:`_probe_block`."""
    wires = layout.wires
    n_layers = wires.depth - layout.first
    n_rows = (n_layers + 2) * wires.width + 2 * wires.n_groups + 2
    return n_rows * layout.block * PAIR + n_layers * wires.width * layout.block


@device
def _probes_forward(
    layout, layer, block, primal, workspace, source, target, lengths, signs, words, line, wide
):
    """Write ẏ of one layer: u, and what the inputs' ẏ makes of it; see :mod:`.tangents`."""
    rows, size = layout.order.rows, layout.block
    base = layer * layout.wires.width
    offset = value_start(layout, block, layer)
    inputs_vary, is_probed = layer > layout.first, primal.probed[layer] >= 0
    width = layout.wires.width
    row = -(-width // 8) * 8
    shift = block * size % BLOCK
    for step in range(base, base + width):
        a_row, b_row = at(rows, 4 * step) * size, at(rows, 4 * step + 1) * size
        out = target + at(rows, 4 * step + 2) * size * PAIR
        ahead = target + at(rows, 4 * (step + AHEAD) + 2) * size * PAIR
        for lane in range(0, size * PAIR, LINE):
            prefetch(workspace, ahead + lane, LINE)
        c1, c2 = at(primal.coefficients, 4 * step + 1), at(primal.coefficients, 4 * step + 2)
        c3 = at(primal.coefficients, 4 * step + 3)
        even = at(signs, words + step - base) >> shift
        odd = at(signs, words + row + step - base) >> shift
        for lane in range(0, size, n_lanes(line)):
            tangent = wide
            if is_probed:
                length = load_like(workspace, lengths + (step - base) * size + lane, line)
                tangent = signed(length, even, odd, lane)
            if inputs_vary:
                a = load_like(primal.values, offset + a_row + lane, line)
                b = load_like(primal.values, offset + b_row + lane, line)
                by_a, by_b = fma(c3, b, line + c1), fma(c3, a, line + c2)
                tangent_a = load_like(workspace, source + (a_row + lane) * PAIR, wide)
                tangent_b = load_like(workspace, source + (b_row + lane) * PAIR, wide)
                tangent = fma(repeat(by_a, wide), tangent_a, tangent)
                tangent = fma(repeat(by_b, wide), tangent_b, tangent)
            store(workspace, out + lane * PAIR, tangent)


@device
def _probes_backward(
    layout,
    layer,
    block,
    primal,
    workspace,
    source,
    incoming,
    outgoing,
    lengths,
    signs,
    words,
    sums,
    totals,
    totals_start,
    line,
    wide,
):
    """Write Σ d, d = u δ̇, of one layer, sample by sample, and pass δ̇ on to its inputs.

    Args:
        sums: where two rows of ``workspace`` are free for sums of some gates.
        totals: float64, from ``totals_start`` on a row for Σ d, written, and one to which Σ d² is added.
    """
    rows, size = layout.order.rows, layout.block
    width = layout.wires.width
    base = layer * width
    offset, delta_offset = value_start(layout, block, layer), delta_start(layout, block, layer)
    is_last, inputs_vary = layer == layout.wires.depth - 1, layer > layout.first
    is_probed = primal.probed[layer] >= 0
    row = -(-width // 8) * 8
    shift = block * size % BLOCK
    n = size * PAIR
    for lane in range(0, n, n_lanes(wide)):
        store(totals, totals_start + lane, widen(wide))
        store(workspace, sums + lane, wide)
        store(workspace, sums + n + lane, wide)
    for step in range(base, base + width):
        a_row, b_row = at(rows, 4 * step) * size, at(rows, 4 * step + 1) * size
        taken = at(rows, 4 * step + 3)
        delta_row = delta_offset + (taken if is_last else step - base) * size
        taken = incoming + taken * n
        if not is_last:
            ahead = incoming + at(rows, 4 * (step + AHEAD) + 3) * n
            for lane in range(0, n, LINE):
                prefetch(workspace, ahead + lane, LINE)
        c1, c2 = at(primal.coefficients, 4 * step + 1), at(primal.coefficients, 4 * step + 2)
        c3 = at(primal.coefficients, 4 * step + 3)
        even = at(signs, words + step - base) >> shift
        odd = at(signs, words + row + step - base) >> shift
        for lane in range(0, size, n_lanes(line)):
            tangent = load_like(workspace, taken + lane * PAIR, wide)
            if not is_last:
                store(workspace, taken + lane * PAIR, wide)
            if is_probed:
                length = load_like(workspace, lengths + (step - base) * size + lane, line)
                product = signed(length, even, odd, lane) * tangent
                place = sums + lane * PAIR
                store(workspace, place, load_like(workspace, place, wide) + product)
                place = sums + n + lane * PAIR
                store(workspace, place, fma(product, product, load_like(workspace, place, wide)))
            if inputs_vary:
                a = load_like(primal.values, offset + a_row + lane, line)
                b = load_like(primal.values, offset + b_row + lane, line)
                bend = repeat(load_like(primal.deltas, delta_row + lane, line) * c3, wide)
                by_a, by_b = fma(c3, b, line + c1), fma(c3, a, line + c2)
                tangent_a = load_like(workspace, source + (a_row + lane) * PAIR, wide)
                tangent_b = load_like(workspace, source + (b_row + lane) * PAIR, wide)
                # One after the other: A and B may be one row.
                place = outgoing + (a_row + lane) * PAIR
                passed = fma(bend, tangent_b, load_like(workspace, place, wide))
                store(workspace, place, fma(repeat(by_a, wide), tangent, passed))
                place = outgoing + (b_row + lane) * PAIR
                passed = fma(bend, tangent_a, load_like(workspace, place, wide))
                store(workspace, place, fma(repeat(by_b, wide), tangent, passed))
        if (step - base) % _RUN == _RUN - 1 or step == base + width - 1:
            for lane in range(0, 2 * n, n_lanes(wide)):
                summed = widen(load_like(workspace, sums + lane, wide))
                place = totals_start + lane
                store(totals, place, load_like(totals, place, summed) + summed)
                store(workspace, sums + lane, wide)


@device
def _write_rows(layout, block, pair, draws, batch, totals, start, line, out, row, n_rows):
    """Take the two draws' totals apart and write those that are wanted to out [count, n_rows, batch]."""
    size = layout.block
    for half in range(PAIR):
        draw = 2 * pair + half - draws.first
        if 0 <= draw < draws.n_draws:
            target = (draw * n_rows + row) * batch + block * size
            for sample in range(min(size, batch - block * size)):
                lane = sample % n_lanes(line)
                place = (sample - lane) * PAIR + half * n_lanes(line) + lane
                out[target + sample] = totals[start + place]


@merged
def _probe_block(
    layout,
    block,
    primal,
    lengths_of,
    draws,
    batch,
    workspace,
    start,
    signs,
    words,
    totals,
    row,
    forms,
    squares,
):
    """Take one block of samples through all draws; arrays are this worker's from their starts on."""
    wires = layout.wires
    line, wide = zero_line(workspace, (0,)), zero_line(workspace, (0, 0))
    level, narrow = wires.width * layout.block * PAIR, wires.width * layout.block
    tangents = start + 2 * level
    outputs = tangents + (wires.depth - layout.first) * level
    groups = outputs + wires.n_groups * layout.block * PAIR
    sums = groups + wires.n_groups * layout.block * PAIR
    lengths = sums + 2 * layout.block * PAIR
    layer_words = PAIR * (-(-wires.width // 8) * 8)
    for layer in range(layout.first, wires.depth):
        if primal.probed[layer] >= 0:
            place = lengths + (layer - layout.first) * narrow
            write_lengths(layout, layer, block, lengths_of, primal.values, workspace, place, line)
    row_squares = row + layout.block * PAIR
    for pair in range(draws.first // 2, (draws.first + draws.n_draws + 1) // 2):
        for lane in range(0, layout.block * PAIR, n_lanes(wide)):
            store(totals, row_squares + lane, widen(wide))
        for layer in range(layout.first, wires.depth):
            place = layer - layout.first
            own = words + place * layer_words
            if primal.probed[layer] >= 0:
                write_signs(layout, layer, block, draws, pair, signs, own)
            target = tangents + place * level
            _probes_forward(
                layout,
                layer,
                block,
                primal,
                workspace,
                target - level,
                target,
                lengths + place * narrow,
                signs,
                own,
                line,
                wide,
            )
        last = outputs - level
        group_sums(layout, workspace, last, layout.block * PAIR, workspace, outputs, 1.0, wide)
        loss_tangents(layout, block, primal, workspace, outputs, groups, line, wide)
        for layer in range(wires.depth - 1, layout.first - 1, -1):
            place = layer - layout.first
            _probes_backward(
                layout,
                layer,
                block,
                primal,
                workspace,
                tangents + (place - 1) * level,
                groups if layer == wires.depth - 1 else start + (layer & 1) * level,
                start + (1 - (layer & 1)) * level,
                lengths + place * narrow,
                signs,
                words + place * layer_words,
                sums,
                totals,
                row,
                line,
                wide,
            )
            if primal.probed[layer] >= 0:
                probed, n_probed = primal.probed[layer], primal.n_probed
                _write_rows(
                    layout, block, pair, draws, batch, totals, row, line, forms, probed, n_probed
                )
        _write_rows(layout, block, pair, draws, batch, totals, row_squares, line, squares, 0, 1)


@entry
def probe(
    worker,
    layout,
    primal,
    lengths_of,
    draws,
    batch,
    workspace,
    workspace_size,
    signs,
    n_words,
    totals,
    forms,
    squares,
):
    """Write ``Σ d`` by layer and sample and ``Σ d²`` by sample, d = u ∘ (∂²L/∂y²) u, of some draws.

    Args:
        lengths_of: [depth, width, 9], by step; see :func:`.lengths.length_forms`, here over tau².
        draws: see :class:`Draws`.
        batch: samples.
        workspace: [workers, room_size]; scratch.
        signs: int64 [workers, n_words]; scratch.
        totals: float64 [workers, 2, 2 · block]; scratch.
        forms: float64 [count, n_probed, batch]; out.
        squares: float64 [count, batch]; out.
    """
    start = worker.place * workspace_size
    if start + workspace_size > len(workspace) or (worker.place + 1) * n_words > len(signs):
        return
    is_clean = False
    part = take_part(worker)
    while part < layout.n_blocks:
        if not is_clean:
            n = 2 * layout.wires.width * layout.block * PAIR
            clear(workspace, start, n, zero_line(workspace, (0,)))
            is_clean = True
        _probe_block(
            layout,
            part,
            primal,
            lengths_of,
            draws,
            batch,
            workspace,
            start,
            signs,
            worker.place * n_words,
            totals,
            worker.place * 2 * layout.block * PAIR,
            forms,
            squares,
        )
        finish_part(worker)
        part = take_part(worker)
    wait_for_parts(worker, layout.n_blocks)
