"""How a layer's outputs, and its gradients, change along directions: the work of a product.

A direction moves a gate's coefficients c by ċ, and with them the outputs by ẏ and the gradients by δ̇:

    ẏ = ċ0 + ċ1·a + ċ2·b + ċ3·ab + (c1 + c3·b)·ȧ + (c2 + c3·a)·ḃ

and the gradient of input A, ``(c1 + c3·b)·δ``, by ``(c1 + c3·b)·δ̇ + (ċ1 + ċ3·b + c3·ḃ)·δ``.

Rows of tangents interleave the directions a cache line at a time, so that vectors of ``wide`` lanes hold
as many samples as a line of activations, once a direction. What does not depend on the direction is
loaded and computed once for all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.kernels.cpu.curvature.order import delta_start, value_start
from lgn_analysis.kernels.cpu.curvature.primal import LINE, group_sums
from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD
from lgn_analysis.kernels.cpu.simd import (
    at,
    fma,
    load_like,
    n_lanes,
    prefetch,
    repeat,
    slice_totals,
    spread,
    store,
    widen,
)


class Tangents(NamedTuple):
    """One worker's tangents of a block, and where they begin.

    Attributes:
        c_tangents: [n_layers, width, n_directions, 4], by step: ċ.
        workspace: rows of tangents, as many values a row as a block has samples, for each direction.
        deltas: two levels of δ̇.
        outputs: ẏ of every layer from the first probed one on.
        logits: the tangents of the class logits.
        groups: δ̇ of the groups.
        level: values of a level.
    """

    c_tangents: NDArray[np.floating]
    workspace: NDArray[np.floating]
    deltas: int
    outputs: int
    logits: int
    groups: int
    level: int


@device
def tangents_at(layout, c_tangents, workspace, start, n):
    """Return the tangents of n directions from ``start`` on."""
    wires, row = layout.wires, layout.block * n
    level = wires.width * row
    outputs = start + 2 * level
    logits = outputs + (wires.depth - layout.first) * level
    groups = logits + wires.n_groups * row
    return Tangents(c_tangents, workspace, start, outputs, logits, groups, level)


@device
def places_of(layout, tangents, layer):
    """Return where ẏ of a layer's inputs, δ̇ of its outputs and δ̇ of its inputs begin."""
    source = tangents.outputs + (layer - 1 - layout.first) * tangents.level
    incoming = tangents.deltas + (layer & 1) * tangents.level
    outgoing = tangents.deltas + (1 - (layer & 1)) * tangents.level
    return source, tangents.groups if layer == layout.wires.depth - 1 else incoming, outgoing


@device
def tangents_forward(layout, primal, tangents, layer, block, line, wide):
    """Write ẏ of one layer on one block; ``line`` and ``wide`` are zeros, a cache line, one a direction."""
    c_tangents, workspace = tangents.c_tangents, tangents.workspace
    source = tangents.outputs + (layer - 1 - layout.first) * tangents.level
    target = source + tangents.level
    rows, size = layout.order.rows, layout.block
    n = n_lanes(wide) // n_lanes(line)
    base = layer * layout.wires.width
    offset = value_start(layout, block, layer)
    inputs_vary = layer > layout.first
    for step in range(base, base + layout.wires.width):
        a_row, b_row = at(rows, 4 * step) * size, at(rows, 4 * step + 1) * size
        out = target + at(rows, 4 * step + 2) * size * n
        ahead = target + at(rows, 4 * (step + AHEAD) + 2) * size * n
        for lane in range(0, size * n, LINE):
            prefetch(workspace, ahead + lane, LINE)
        c1, c2 = at(primal.coefficients, 4 * step + 1), at(primal.coefficients, 4 * step + 2)
        c3 = at(primal.coefficients, 4 * step + 3)
        c_tangent = 4 * n * (step - layout.first * layout.wires.width)
        m0 = spread(c_tangents, c_tangent, 4, line, wide)
        m1 = spread(c_tangents, c_tangent + 1, 4, line, wide)
        m2 = spread(c_tangents, c_tangent + 2, 4, line, wide)
        m3 = spread(c_tangents, c_tangent + 3, 4, line, wide)
        for lane in range(0, size, n_lanes(line)):
            a = load_like(primal.values, offset + a_row + lane, line)
            b = load_like(primal.values, offset + b_row + lane, line)
            all_a, all_b = repeat(a, wide), repeat(b, wide)
            tangent = fma(fma(m3, all_b, m1), all_a, fma(m2, all_b, m0))
            if inputs_vary:
                by_a, by_b = fma(c3, b, line + c1), fma(c3, a, line + c2)
                tangent_a = load_like(workspace, source + (a_row + lane) * n, wide)
                tangent_b = load_like(workspace, source + (b_row + lane) * n, wide)
                tangent = fma(repeat(by_a, wide), tangent_a, tangent)
                tangent = fma(repeat(by_b, wide), tangent_b, tangent)
            store(workspace, out + lane * n, tangent)


@device
def tangents_backward(layout, primal, tangents, layer, block, sums, line, wide):
    """Write or add the change of the sums of one layer on one block, and pass δ̇ on to its inputs.

    Rows of δ̇ that have been taken are set to zero again, so that the next layer's can be added to.
    """
    c_tangents, workspace = tangents.c_tangents, tangents.workspace
    source, incoming, outgoing = places_of(layout, tangents, layer)
    rows, size = layout.order.rows, layout.block
    n = n_lanes(wide) // n_lanes(line)
    base = layer * layout.wires.width
    offset, delta_offset = value_start(layout, block, layer), delta_start(layout, block, layer)
    is_last, inputs_vary = layer == layout.wires.depth - 1, layer > layout.first
    for step in range(base, base + layout.wires.width):
        a_row, b_row = at(rows, 4 * step) * size, at(rows, 4 * step + 1) * size
        taken = at(rows, 4 * step + 3)
        delta_row = delta_offset + (taken if is_last else step - base) * size
        taken = incoming + taken * size * n
        if not is_last:
            ahead = incoming + at(rows, 4 * (step + AHEAD) + 3) * size * n
            for lane in range(0, size * n, LINE):
                prefetch(workspace, ahead + lane, LINE)
        c1, c2 = at(primal.coefficients, 4 * step + 1), at(primal.coefficients, 4 * step + 2)
        c3 = at(primal.coefficients, 4 * step + 3)
        c_tangent = 4 * n * (step - layout.first * layout.wires.width)
        m1 = spread(c_tangents, c_tangent + 1, 4, line, wide)
        m2 = spread(c_tangents, c_tangent + 2, 4, line, wide)
        m3 = spread(c_tangents, c_tangent + 3, 4, line, wide)
        s0, s1, s2, s3 = wide, wide, wide, wide
        for lane in range(0, size, n_lanes(line)):
            a = load_like(primal.values, offset + a_row + lane, line)
            b = load_like(primal.values, offset + b_row + lane, line)
            tangent = load_like(workspace, taken + lane * n, wide)
            if not is_last:
                store(workspace, taken + lane * n, wide)
            all_a, all_b = repeat(a, wide), repeat(b, wide)
            s0 = s0 + tangent
            s1, s2 = fma(tangent, all_a, s1), fma(tangent, all_b, s2)
            s3 = fma(tangent, repeat(a * b, wide), s3)
            if inputs_vary:
                delta = load_like(primal.deltas, delta_row + lane, line)
                by_a, by_b = fma(c3, b, line + c1), fma(c3, a, line + c2)
                all_delta = repeat(delta, wide)
                tangent_a = load_like(workspace, source + (a_row + lane) * n, wide)
                tangent_b = load_like(workspace, source + (b_row + lane) * n, wide)
                s1, s2 = fma(all_delta, tangent_a, s1), fma(all_delta, tangent_b, s2)
                s3 = fma(repeat(delta * b, wide), tangent_a, s3)
                s3 = fma(repeat(delta * a, wide), tangent_b, s3)
                turned_a = fma(c3, tangent_b, fma(m3, all_b, m1))
                turned_b = fma(c3, tangent_a, fma(m3, all_a, m2))
                # One after the other: A and B may be one row.
                place = outgoing + (a_row + lane) * n
                passed = fma(all_delta, turned_a, load_like(workspace, place, wide))
                store(workspace, place, fma(repeat(by_a, wide), tangent, passed))
                place = outgoing + (b_row + lane) * n
                passed = fma(all_delta, turned_b, load_like(workspace, place, wide))
                store(workspace, place, fma(repeat(by_b, wide), tangent, passed))
        totals = widen(slice_totals(s0, s1, s2, s3, line))
        target = sums.start + c_tangent
        if sums.adds:
            totals = load_like(sums.values, target, totals) + totals
        store(sums.values, target, totals)


@device
def loss_tangents(layout, primal, tangents, block, line, wide):
    """Write the change of the class logits, and δ̇ of every group from it: the loss's Hessian times it."""
    workspace, outputs, target = tangents.workspace, tangents.logits, tangents.groups
    n = n_lanes(wide) // n_lanes(line)
    n_groups, size = layout.wires.n_groups, layout.block
    last = outputs - tangents.level
    group_sums(layout, workspace, last, size * n, workspace, outputs, 1.0, wide)
    start = block * n_groups * n_groups * size
    for group in range(n_groups):
        for lane in range(0, size, n_lanes(line)):
            tangent = wide
            for other in range(n_groups):
                place = start + (group * n_groups + other) * size + lane
                slope = repeat(load_like(primal.hessians, place, line), wide)
                change = load_like(workspace, outputs + (other * size + lane) * n, wide)
                tangent = fma(slope, change, tangent)
            store(workspace, target + (group * size + lane) * n, tangent)
