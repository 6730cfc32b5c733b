"""Probes of the curvature in activations: ``uᵀ (∂²L/∂y²) u`` for u of random signs and given lengths.

u is added to the outputs of the probed layers' gates. Two neighbouring draws go together, since one call
of Philox serves both; their lengths are computed once a block for all draws.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.kernels.cpu.curvature.order import BlockLayout, delta_start, value_start
from lgn_analysis.kernels.cpu.curvature.primal import LINE, clear
from lgn_analysis.kernels.cpu.curvature.signs import PAIR, signed, write_lengths, write_signs
from lgn_analysis.kernels.cpu.curvature.tangents import (
    Tangents,
    loss_tangents,
    places_of,
    tangents_at,
)
from lgn_analysis.kernels.cpu.runtime.compiling import device, entry, merged
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, BLOCK
from lgn_analysis.kernels.cpu.runtime.workers import finish_part, take_part, wait_for_parts
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
    """Return how many values a worker needs; see :func:`_scratch_of`."""
    wires = layout.wires
    n_layers = wires.depth - layout.first
    n_rows = (n_layers + 2) * wires.width + 2 * wires.n_groups + 2
    return n_rows * layout.block * PAIR + n_layers * wires.width * layout.block


class Probing(NamedTuple):
    """What probes are made with, and their results.

    Attributes:
        length_forms: [depth, width, 9], by step; see :func:`.signs.length_forms`.
        batch: samples.
        workspace: [workers, size]; scratch.
        size: see :func:`probe_workspace_size`.
        signs: int64 [workers, n_words]; scratch.
        n_words: see :func:`.signs.sign_words`.
        totals: float64 [workers, 2, 2 · block]; scratch.
        forms: float64 [count, n_probed, batch]; out: Σ d by layer and sample, d = u ∘ (∂²L/∂y²) u.
        squares: float64 [count, batch]; out: Σ d² by sample.
    """

    length_forms: NDArray[np.floating]
    batch: int
    workspace: NDArray[np.floating]
    size: int
    signs: NDArray[np.int64]
    n_words: int
    totals: NDArray[np.float64]
    forms: NDArray[np.float64]
    squares: NDArray[np.float64]


class Scratch(NamedTuple):
    """One worker's memory, and where its parts begin in ``workspace``, ``signs`` and ``totals``.

    Attributes:
        tangents: see :class:`.tangents.Tangents`.
        sums: two rows for sums of some gates.
        lengths: √q, a level of one direction a layer.
        words: signs, two rows of words a layer.
        row: totals, a row for Σ d of a layer and one for Σ d² of all.
    """

    tangents: Tangents
    sums: int
    lengths: int
    words: int
    row: int


@device
def _scratch_of(layout, probing, worker):
    start = worker.place * probing.size
    tangents = tangents_at(layout, probing.workspace, probing.workspace, start, PAIR)
    sums = tangents.groups + layout.wires.n_groups * layout.block * PAIR
    lengths = sums + 2 * layout.block * PAIR
    words, row = worker.place * probing.n_words, worker.place * 2 * layout.block * PAIR
    return Scratch(tangents, sums, lengths, words, row)


@device
def _lengths_of(layout, scratch, layer):
    """Return where the lengths of a layer begin."""
    return scratch.lengths + (layer - layout.first) * layout.wires.width * layout.block


@device
def _words_of(layout, scratch, layer):
    """Return where the signs of a layer begin, and the words of one draw."""
    row = -(-layout.wires.width // 8) * 8
    return scratch.words + (layer - layout.first) * PAIR * row, row


@device
def _probes_forward(layout, primal, probing, scratch, layer, block, line, wide):
    """Write ẏ of one layer: u, and what the inputs' ẏ makes of it; see :mod:`.tangents`."""
    workspace, signs, tangents = probing.workspace, probing.signs, scratch.tangents
    source = tangents.outputs + (layer - 1 - layout.first) * tangents.level
    target = source + tangents.level
    lengths = _lengths_of(layout, scratch, layer)
    words, row = _words_of(layout, scratch, layer)
    rows, size = layout.order.rows, layout.block
    base = layer * layout.wires.width
    offset = value_start(layout, block, layer)
    inputs_vary, is_probed = layer > layout.first, primal.probed[layer] >= 0
    width = layout.wires.width
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
def _probes_backward(layout, primal, probing, scratch, layer, block, line, wide):
    """Write Σ d, d = u δ̇, of one layer, sample by sample, add Σ d², and pass δ̇ on to its inputs."""
    workspace, signs, totals = probing.workspace, probing.signs, probing.totals
    source, incoming, outgoing = places_of(layout, scratch.tangents, layer)
    lengths = _lengths_of(layout, scratch, layer)
    words, row = _words_of(layout, scratch, layer)
    sums, totals_start = scratch.sums, scratch.row
    rows, size = layout.order.rows, layout.block
    width = layout.wires.width
    base = layer * width
    offset, delta_offset = value_start(layout, block, layer), delta_start(layout, block, layer)
    is_last, inputs_vary = layer == layout.wires.depth - 1, layer > layout.first
    is_probed = primal.probed[layer] >= 0
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
def _write_rows(layout, draws, block, pair, totals, lanes, out):
    """Take the two draws' totals apart and write those that are wanted.

    Args:
        totals: the array, and where the row begins.
        lanes: values of a cache line.
        out: the array [count, n_rows, batch], which row of it, and those two sizes.
    """
    size, (values, start), (target, row, n_rows, batch) = layout.block, totals, out
    for half in range(PAIR):
        draw = 2 * pair + half - draws.first
        if 0 <= draw < draws.n_draws:
            place = (draw * n_rows + row) * batch + block * size
            for sample in range(min(size, batch - block * size)):
                lane = sample % lanes
                target[place + sample] = values[
                    start + (sample - lane) * PAIR + half * lanes + lane
                ]


@merged
def _probe_block(layout, primal, draws, probing, scratch, block):
    """Take one block of samples through all draws."""
    wires, workspace, totals = layout.wires, probing.workspace, probing.totals
    line, wide = zero_line(workspace, (0,)), zero_line(workspace, (0, 0))
    for layer in range(layout.first, wires.depth):
        if primal.probed[layer] >= 0:
            place = _lengths_of(layout, scratch, layer)
            write_lengths(
                layout, layer, block, probing.length_forms, primal.values, workspace, place, line
            )
    row_squares = scratch.row + layout.block * PAIR
    for pair in range(draws.first // 2, (draws.first + draws.n_draws + 1) // 2):
        for lane in range(0, layout.block * PAIR, n_lanes(wide)):
            store(totals, row_squares + lane, widen(wide))
        for layer in range(layout.first, wires.depth):
            if primal.probed[layer] >= 0:
                words, _ = _words_of(layout, scratch, layer)
                write_signs(layout, layer, block, draws, pair, probing.signs, words)
            _probes_forward(layout, primal, probing, scratch, layer, block, line, wide)
        loss_tangents(layout, primal, scratch.tangents, block, line, wide)
        for layer in range(wires.depth - 1, layout.first - 1, -1):
            _probes_backward(layout, primal, probing, scratch, layer, block, line, wide)
            if primal.probed[layer] >= 0:
                out = probing.forms, primal.probed[layer], primal.n_probed, probing.batch
                of_layer = totals, scratch.row
                _write_rows(layout, draws, block, pair, of_layer, n_lanes(line), out)
        out = probing.squares, 0, 1, probing.batch
        _write_rows(layout, draws, block, pair, (totals, row_squares), n_lanes(line), out)


@entry
def probe(worker, layout, primal, draws, probing):
    """Write ``Σ d`` by layer and sample and ``Σ d²`` by sample, d = u ∘ (∂²L/∂y²) u, of some draws."""
    scratch, workspace = _scratch_of(layout, probing, worker), probing.workspace
    start = scratch.tangents.deltas
    if start + probing.size > len(workspace) or (worker.place + 1) * probing.n_words > len(
        probing.signs
    ):
        return
    is_clean = False
    part = take_part(worker)
    while part < layout.n_blocks:
        if not is_clean:
            clear(workspace, start, 2 * scratch.tangents.level, zero_line(workspace, (0,)))
            is_clean = True
        _probe_block(layout, primal, draws, probing, scratch, part)
        finish_part(worker)
        part = take_part(worker)
    wait_for_parts(worker, layout.n_blocks)
