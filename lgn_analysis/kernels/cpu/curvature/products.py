"""Hessian-vector products: coefficients' changes, blocks of samples, and logits' gradients, in one call.

Three kinds of parts follow each other: tiles of gates whose ċ is worked out, runs of blocks, and tiles of
gates whose result is. Members take them in order, and before the first of a kind wait for all of the
kind before: a helper that comes late keeps nobody waiting.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.kernels.cpu.curvature.order import Frame, first_block
from lgn_analysis.kernels.cpu.curvature.primal import clear, group_sums
from lgn_analysis.kernels.cpu.curvature.softmax import coefficient_changes, logit_products
from lgn_analysis.kernels.cpu.curvature.tangents import (
    loss_tangents,
    tangents_backward,
    tangents_forward,
)
from lgn_analysis.kernels.cpu.runtime.compiling import entry, merged
from lgn_analysis.kernels.cpu.runtime.threads import (
    finish_part,
    take_part,
    wait_for_parts,
    wait_until_done,
)
from lgn_analysis.kernels.cpu.simd import n_lanes, zero_line

TILE: Final = 256
"""Gates of a part that works on logits."""


class Primal(NamedTuple):
    """What does not depend on a direction; float32 or float64, as the logits, unless said.

    Attributes:
        weights: [depth, width, 16], by gate: softmax(z / tau).
        coefficients: [depth, width, 4], by step.
        values: [n_blocks, n_rows, block]: activations.
        deltas: [n_blocks, n_rows, block]: gradients, by step, then the groups'.
        hessians: [n_blocks, n_groups, n_groups, block]: ∂²L of class logits over group_tau².
        slopes: float64 [n_layers, width, 4], by step: Σδ, Σδa, Σδb, Σδab.
        probed: int64 [depth]: which of the probed layers a layer is, or -1.
        n_probed: how many layers are probed.
    """

    weights: NDArray[np.floating]
    coefficients: NDArray[np.floating]
    values: NDArray[np.floating]
    deltas: NDArray[np.floating]
    hessians: NDArray[np.floating]
    slopes: NDArray[np.float64]
    probed: NDArray[np.int64]
    n_probed: int


def room_size(frame: Frame, n_directions: int) -> int:
    """Return how many values a member needs: tangents of all layers, two layers' δ̇, the groups."""
    wires = frame.wires
    n_rows = (wires.depth - frame.first + 2) * wires.width + 2 * wires.n_groups
    return n_rows * frame.block * n_directions


@merged
def block_product(frame, block, primal, moves, room, start, adds, sums, sums_start, line, wide):
    """Add one block's part to the sums; ``room`` is this member's from ``start`` on."""
    wires = frame.wires
    row = frame.block * n_lanes(wide) // n_lanes(line)
    level = wires.width * row
    tangents = start + 2 * level
    outputs = tangents + (wires.depth - frame.first) * level
    groups = outputs + wires.n_groups * row
    for layer in range(frame.first, wires.depth):
        target = tangents + (layer - frame.first) * level
        tangents_forward(
            frame, layer, block, primal, moves, room, target - level, target, line, wide
        )
    last = outputs - level
    group_sums(frame, room, last, row, room, outputs, 1.0, wide)
    loss_tangents(frame, block, primal, room, outputs, groups, line, wide)
    for layer in range(wires.depth - 1, frame.first - 1, -1):
        tangents_backward(
            frame,
            layer,
            block,
            primal,
            moves,
            room,
            tangents + (layer - 1 - frame.first) * level,
            groups if layer == wires.depth - 1 else start + (layer & 1) * level,
            start + (1 - (layer & 1)) * level,
            adds,
            sums,
            sums_start,
            line,
            wide,
        )


@entry
def multiply(member, frame, primal, tau, rows, directions, moves, room, size, sums, products):
    """Write H v of some directions.

    Args:
        tau: gate temperature.
        rows: [n_directions, n_probed, width, 16]: the directions, as the logits.
        directions: a tuple as long as there are directions.
        moves: [n_layers, width, n_directions, 4]; scratch.
        room: [members, size]; scratch.
        size: see :func:`room_size`.
        sums: float64 [n_parts, n_layers, width, n_directions, 4]; scratch.
        products: float64 [n_directions, n_probed, width, 16]; out.
    """
    wires = frame.wires
    line, wide = zero_line(room, (0,)), zero_line(room, directions)
    n = len(directions)
    n_layers = wires.depth - frame.first
    n_gates = n_layers * wires.width
    n_tiles = -(-n_gates // TILE)
    level = wires.width * frame.block * n
    start = member.place * size
    if start + size > len(room):
        return
    is_clean = False
    part = take_part(member)
    while part < 2 * n_tiles + frame.n_parts:
        if part < n_tiles:
            first, last = part * TILE, min(n_gates, (part + 1) * TILE)
            coefficient_changes(frame, primal, tau, rows, n, first, last, moves)
        elif part < n_tiles + frame.n_parts:
            wait_until_done(member, n_tiles)
            if not is_clean:
                clear(room, start, 2 * level, line)
                is_clean = True
            run = part - n_tiles
            begin, end = first_block(frame, run), first_block(frame, run + 1)
            for block in range(begin, end):
                block_product(
                    frame,
                    block,
                    primal,
                    moves,
                    room,
                    start,
                    block > begin,
                    sums,
                    run * n_gates * 4 * n,
                    line,
                    wide,
                )
        else:
            wait_until_done(member, n_tiles + frame.n_parts)
            first = (part - n_tiles - frame.n_parts) * TILE
            last = min(n_gates, first + TILE)
            logit_products(frame, primal, tau, rows, n, first, last, sums, products)
        finish_part(member)
        part = take_part(member)
    wait_for_parts(member, 2 * n_tiles + frame.n_parts)
