"""Gates as four coefficients on floats: forward, and the gradient for inputs and weights.

A row is 64 float32, one block of samples. These are the twins of :mod:`.packed`, with its arguments;
``coefficients`` is float32 [depth, width, 4], ``values`` the blocks of activations.
"""

from __future__ import annotations

from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, BLOCK, level_row, level_start
from lgn_analysis.kernels.cpu.simd import at, floats, fma, four_totals, load, prefetch, store


@device
def gate_forward_dense(wires, layer, first, last, coefficients, values, block_row):
    """Evaluate ``c0 + c1·a + (c2 + c3·a)·b`` for positions ``first``..``last - 1`` on one block."""
    source = block_row + level_row(wires, layer)
    target = block_row + level_row(wires, layer + 1)
    base = layer * wires.width
    for place in range(first, last):
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
def gate_backward_dense(
    wires,
    layer,
    first,
    last,
    coefficients,
    values,
    block_row,
    deltas,
    source,
    inputs,
    target,
    factor,
    adds,
    sums,
):
    """Propagate a layer's gradient to positions ``first``..``last - 1`` of its inputs, over a block.

    Gradients are rows of 64, those of the outputs from offset ``source``, of the inputs ``target``.
    """
    level = block_row + level_row(wires, layer)
    entries = 2 * layer * wires.width
    base = layer * wires.width
    start = level_start(wires, layer)
    for row in range(first, last):
        begin = entries + at(wires.starts, start + row)
        end = entries + at(wires.starts, start + row + 1)
        for entry in range(begin, end):
            ahead = 3 * (entry + 2 * AHEAD)
            prefetch(deltas, source + at(wires.consumers, ahead) * BLOCK, BLOCK)
            prefetch(values, (level + at(wires.consumers, ahead + 2)) * BLOCK, BLOCK)
            gate = at(wires.consumers, ahead + 1) >> 1
            prefetch(coefficients, 4 * (base + gate), 4)
        gathered = floats(0.0, BLOCK)
        for entry in range(begin, end):
            gate_and_side = at(wires.consumers, 3 * entry + 1)
            c = 4 * (base + (gate_and_side >> 1))
            other = load(values, (level + at(wires.consumers, 3 * entry + 2)) * BLOCK, BLOCK)
            delta = load(deltas, source + at(wires.consumers, 3 * entry) * BLOCK, BLOCK)
            slope = floats(at(coefficients, c + 1 + (gate_and_side & 1)), BLOCK)
            gathered = fma(fma(at(coefficients, c + 3), other, slope), delta, gathered)
        gathered = gathered * factor
        store(inputs, target + row * BLOCK, gathered)
        if layer > 0:
            gate_sums_dense(wires, layer - 1, row, gathered, values, block_row, adds, sums)
