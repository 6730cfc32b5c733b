"""Hessian-vector products: coefficients' changes, blocks of samples, and logits' gradients, in one call.

Three kinds of parts follow each other: tiles of gates whose ċ is worked out, runs of blocks, and tiles of
gates whose result is. Workers take them in order, and before the first of a kind wait for all of the
kind before: a helper that comes late keeps nobody waiting.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.kernels.cpu.curvature.order import BlockLayout, first_block
from lgn_analysis.kernels.cpu.curvature.primal import clear, group_sums
from lgn_analysis.kernels.cpu.curvature.softmax import coefficient_tangents, logit_products
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


def workspace_size(layout: BlockLayout, n_directions: int) -> int:
    """Return how many values a worker needs: tangents of all layers, two layers' δ̇, the groups."""
    wires = layout.wires
    n_rows = (wires.depth - layout.first + 2) * wires.width + 2 * wires.n_groups
    return n_rows * layout.block * n_directions


@merged
def block_product(
    layout, block, primal, c_tangents, workspace, start, adds, sums, sums_start, line, wide
):
    """Add one block's part to the sums; ``workspace`` is this worker's from ``start`` on."""
    wires = layout.wires
    row = layout.block * n_lanes(wide) // n_lanes(line)
    level = wires.width * row
    tangents = start + 2 * level
    outputs = tangents + (wires.depth - layout.first) * level
    groups = outputs + wires.n_groups * row
    for layer in range(layout.first, wires.depth):
        target = tangents + (layer - layout.first) * level
        tangents_forward(
            layout, layer, block, primal, c_tangents, workspace, target - level, target, line, wide
        )
    last = outputs - level
    group_sums(layout, workspace, last, row, workspace, outputs, 1.0, wide)
    loss_tangents(layout, block, primal, workspace, outputs, groups, line, wide)
    for layer in range(wires.depth - 1, layout.first - 1, -1):
        tangents_backward(
            layout,
            layer,
            block,
            primal,
            c_tangents,
            workspace,
            tangents + (layer - 1 - layout.first) * level,
            groups if layer == wires.depth - 1 else start + (layer & 1) * level,
            start + (1 - (layer & 1)) * level,
            adds,
            sums,
            sums_start,
            line,
            wide,
        )


@entry
def multiply(
    worker, layout, primal, tau, rows, directions, c_tangents, workspace, size, sums, products
):
    """Write H v of some directions.

    Args:
        tau: gate temperature.
        rows: [n_directions, n_probed, width, 16]: the directions, as the logits.
        directions: a tuple as long as there are directions.
        c_tangents: [n_layers, width, n_directions, 4]; scratch.
        workspace: [workers, size]; scratch.
        size: see :func:`workspace_size`.
        sums: float64 [n_parts, n_layers, width, n_directions, 4]; scratch.
        products: float64 [n_directions, n_probed, width, 16]; out.
    """
    wires = layout.wires
    line, wide = zero_line(workspace, (0,)), zero_line(workspace, directions)
    n = len(directions)
    n_layers = wires.depth - layout.first
    n_gates = n_layers * wires.width
    n_tiles = -(-n_gates // TILE)
    level = wires.width * layout.block * n
    start = worker.place * size
    if start + size > len(workspace):
        return
    is_clean = False
    part = take_part(worker)
    while part < 2 * n_tiles + layout.n_parts:
        if part < n_tiles:
            first, last = part * TILE, min(n_gates, (part + 1) * TILE)
            coefficient_tangents(layout, primal, tau, rows, n, first, last, c_tangents)
        elif part < n_tiles + layout.n_parts:
            wait_until_done(worker, n_tiles)
            if not is_clean:
                clear(workspace, start, 2 * level, line)
                is_clean = True
            run = part - n_tiles
            begin, end = first_block(layout, run), first_block(layout, run + 1)
            for block in range(begin, end):
                block_product(
                    layout,
                    block,
                    primal,
                    c_tangents,
                    workspace,
                    start,
                    block > begin,
                    sums,
                    run * n_gates * 4 * n,
                    line,
                    wide,
                )
        else:
            wait_until_done(worker, n_tiles + layout.n_parts)
            first = (part - n_tiles - layout.n_parts) * TILE
            last = min(n_gates, first + TILE)
            logit_products(layout, primal, tau, rows, n, first, last, sums, products)
        finish_part(worker)
        part = take_part(worker)
    wait_for_parts(worker, 2 * n_tiles + layout.n_parts)
