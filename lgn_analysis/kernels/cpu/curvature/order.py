"""In which order a layer's gates are worked on, so that what they read lies one row after the other.

Positions (see :mod:`lgn_analysis.kernels.cpu.runtime.layout`) go around cycles in which neighbouring inputs
share a gate. Gates taken by the first of their inputs go around the same cycles: a gate's second input
is the next gate's first, and every row of the inputs is brought near once, in the order of memory.
What a gate writes, or the gradient it takes, is then the one row that nobody could guess; it is asked
for ahead. All samples of a block pass through one thread, so a gradient may be added to the inputs'
rows gate by gate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD, Wires, level_row


class Order(NamedTuple):
    """The steps through the gates of every layer; built once per wiring.

    Attributes:
        rows: uint32 [depth, width, 4]: the positions of A, B and the output, and the row of the
            output's gradient: the position again, or the group in the last layer.
        gates: uint32 [depth, width]: the public number of each step's gate.

    What belongs to ``AHEAD`` steps more may be read, and means nothing.
    """

    rows: NDArray[np.uint32]
    gates: NDArray[np.uint32]


def build_order(wires: Wires) -> Order:
    """Return the steps through a network."""
    n = wires.depth * wires.width
    sources = wires.sources[: 2 * n].reshape(wires.depth, wires.width, 2)
    gate_at = wires.gate_at[:n].reshape(wires.depth, wires.width)
    rows = np.zeros((n + AHEAD, 4), dtype=np.uint32)
    gates = np.zeros(n + AHEAD, dtype=np.uint32)
    for layer in range(wires.depth):
        order = np.argsort(sources[layer].min(axis=1), kind="stable")
        steps = slice(layer * wires.width, (layer + 1) * wires.width)
        is_last = layer == wires.depth - 1
        rows[steps, :2] = sources[layer, order]
        rows[steps, 2] = order
        rows[steps, 3] = order // (wires.width // wires.n_groups) if is_last else order
        gates[steps] = gate_at[layer, order]
    return Order(rows.reshape(-1), gates)


class BlockLayout(NamedTuple):
    """The shape of a pass over all samples, block by block.

    Attributes:
        wires, order: of the network.
        first: the first probed layer; what lies below it is constant.
        block: samples of a block, a multiple of a cache line's.
        n_blocks: blocks of samples.
        n_parts: runs of blocks that are shared out and summed by themselves, so that sums do not
            depend on who took what.
    """

    wires: Wires
    order: Order
    first: int
    block: int
    n_blocks: int
    n_parts: int


class Primal(NamedTuple):
    """What does not depend on a direction; float32 or float64, as the logits, unless said.

    Attributes:
        tau: gate temperature.
        weights: [depth, width, 16], by gate: softmax(z / tau).
        coefficients: [depth, width, 4], by step.
        values: [n_blocks, n_rows, block]: activations.
        deltas: [n_blocks, n_rows, block]: gradients, by step, then the groups'.
        hessians: [n_blocks, n_groups, n_groups, block]: ∂²L of class logits over group_tau².
        slopes: float64 [n_layers, width, 4], by step: Σδ, Σδa, Σδb, Σδab.
        probed: int64 [depth]: which of the probed layers a layer is, or -1.
        n_probed: how many layers are probed.
    """

    tau: float
    weights: NDArray[np.floating]
    coefficients: NDArray[np.floating]
    values: NDArray[np.floating]
    deltas: NDArray[np.floating]
    hessians: NDArray[np.floating]
    slopes: NDArray[np.float64]
    probed: NDArray[np.int64]
    n_probed: int


class Sums(NamedTuple):
    """Four sums of every gate, by step, from offset ``start`` on; ``adds``: to what stands there."""

    values: NDArray[np.float64]
    start: int
    adds: bool


def count_value_rows(layout: BlockLayout) -> int:
    """Return the rows of activations of a block: all but the last layer's."""
    return layout.wires.n_features + (layout.wires.depth - 1) * layout.wires.width


def count_delta_rows(layout: BlockLayout) -> int:
    """Return the rows of gradients of a block: those from the first probed layer on, then the groups'."""
    return (layout.wires.depth - 1 - layout.first) * layout.wires.width + layout.wires.n_groups


@device
def value_start(layout, block, level):
    """Return where a level of a block's activations [n_blocks, n_rows, block] begins."""
    wires = layout.wires
    return (block * level_row(wires, wires.depth) + level_row(wires, level)) * layout.block


@device
def delta_start(layout, block, layer):
    """Return where a layer's gradients [n_blocks, n_rows, block] begin; the last one's are groups'."""
    wires = layout.wires
    n_rows = (wires.depth - 1 - layout.first) * wires.width + wires.n_groups
    return (block * n_rows + (layer - layout.first) * wires.width) * layout.block


@device
def first_block(layout, part):
    """Return the first block of a part."""
    return layout.n_blocks * part // layout.n_parts
