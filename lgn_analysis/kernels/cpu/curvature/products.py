"""Hessian-vector products: coefficients' changes, blocks of samples, and logits' gradients, in one call.

Three kinds of parts follow each other: tiles of gates whose ċ is worked out, runs of blocks, and tiles of
gates whose result is. Workers take them in order, and before the first of a kind wait for all of the
kind before: a helper that comes late keeps nobody waiting.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.kernels.cpu.curvature.directions import coefficient_tangents, logit_products
from lgn_analysis.kernels.cpu.curvature.order import BlockLayout, Sums, first_block
from lgn_analysis.kernels.cpu.curvature.primal import clear
from lgn_analysis.kernels.cpu.curvature.tangents import (
    loss_tangents,
    tangents_at,
    tangents_backward,
    tangents_forward,
)
from lgn_analysis.kernels.cpu.runtime.compiling import entry, merged
from lgn_analysis.kernels.cpu.runtime.workers import (
    finish_part,
    take_part,
    wait_for_parts,
    wait_until_done,
)
from lgn_analysis.kernels.cpu.simd import zero_line

TILE: Final = 256
"""Gates of a part that works on logits."""


class Product(NamedTuple):
    """Directions, what their products are made with, and the products.

    Attributes:
        rows: [n_directions, n_probed, width, 16]: the directions, as the logits.
        c_tangents: [n_layers, width, n_directions, 4], by step: ċ; scratch.
        workspace: [workers, size]; scratch.
        size: see :func:`workspace_size`.
        sums: float64 [n_parts, n_layers, width, n_directions, 4], by step; scratch.
        products: float64 [n_directions, n_probed, width, 16]; out.
    """

    rows: NDArray[np.floating]
    c_tangents: NDArray[np.floating]
    workspace: NDArray[np.floating]
    size: int
    sums: NDArray[np.float64]
    products: NDArray[np.float64]


def workspace_size(layout: BlockLayout, n_directions: int) -> int:
    """Return how many values a worker needs: tangents of all layers, two layers' δ̇, the groups."""
    wires = layout.wires
    n_rows = (wires.depth - layout.first + 2) * wires.width + 2 * wires.n_groups
    return n_rows * layout.block * n_directions


@merged
def block_product(layout, primal, tangents, block, sums, line, wide):
    """Write or add one block's part of the sums."""
    depth = layout.wires.depth
    for layer in range(layout.first, depth):
        tangents_forward(layout, primal, tangents, layer, block, line, wide)
    loss_tangents(layout, primal, tangents, block, line, wide)
    for layer in range(depth - 1, layout.first - 1, -1):
        tangents_backward(layout, primal, tangents, layer, block, sums, line, wide)


@entry
def multiply(worker, layout, primal, product, directions):
    """Write H v of some directions; ``directions`` is a tuple as long as there are any."""
    wires, workspace = layout.wires, product.workspace
    line, wide = zero_line(workspace, (0,)), zero_line(workspace, directions)
    n = len(directions)
    n_gates = (wires.depth - layout.first) * wires.width
    n_tiles = -(-n_gates // TILE)
    start = worker.place * product.size
    if start + product.size > len(workspace):
        return
    tangents = tangents_at(layout, product.c_tangents, workspace, start, n)
    is_clean = False
    part = take_part(worker)
    while part < 2 * n_tiles + layout.n_parts:
        if part < n_tiles:
            first, last = part * TILE, min(n_gates, (part + 1) * TILE)
            coefficient_tangents(layout, primal, product, n, first, last)
        elif part < n_tiles + layout.n_parts:
            wait_until_done(worker, n_tiles)
            if not is_clean:
                clear(workspace, start, 2 * tangents.level, line)
                is_clean = True
            run = part - n_tiles
            begin, end = first_block(layout, run), first_block(layout, run + 1)
            for block in range(begin, end):
                sums = Sums(product.sums, run * n_gates * 4 * n, block > begin)
                block_product(layout, primal, tangents, block, sums, line, wide)
        else:
            wait_until_done(worker, n_tiles + layout.n_parts)
            first = (part - n_tiles - layout.n_parts) * TILE
            last = min(n_gates, first + TILE)
            logit_products(layout, primal, product, n, first, last)
        finish_part(worker)
        part = take_part(worker)
    wait_for_parts(worker, 2 * n_tiles + layout.n_parts)
