"""How a network lies in memory for the CPU kernels.

Samples come in *blocks* of 64: a block of bits is one int64 word a row, a block of floats is 64
float32 a row, lanes beyond the batch holding anything. Rows are the inputs, then layer after layer
the gates; *level* l is what layer l reads, so level 0 is the input and level ``depth`` the output.

Within a level, gates stand in an order of their own: neighbours are read by one gate of the next
layer wherever that can be, so that a gradient that is brought near for one serves the other too.
*Position* is a place in that order, *gate* the public number; logits, weights and choices are
indexed by gate, activations, gradients and sums by position. The inputs and the last layer keep the
public order.

Arrays are flat. A block of bits or activations holds ``n_rows`` rows; gates of the whole network are
numbered ``layer · width + gate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.kernels.cpu.runtime.compiling import device, entry
from lgn_analysis.kernels.cpu.simd import at

BLOCK: Final = 64
AHEAD: Final = 24
"""How many rows before it is needed memory is asked for: no processor could guess the order."""


class Wires(NamedTuple):
    """The shape of a network and who reads whom, both ways; built once per wiring.

    Attributes:
        n_features: inputs of the first layer.
        width: gates a layer.
        depth: layers.
        n_groups: output groups, each of ``width / n_groups`` gates.
        gate_at: uint32 [depth, width]: the gate at each position.
        position_of: uint32 [depth, width]: the position of each gate.
        sources: uint32 [depth, width, 2]: for each position, the positions of A and B.
        starts: uint32: for each level below the last, where each position's consumers begin; one
            more entry than the level has.
        consumers: uint32 [depth, 2 · width, 3]: grouped by the position they read: the row of their
            gradient (a position, or a group in the last layer), ``2 · gate + side``, and the
            position of their other input.

    What belongs to ``AHEAD`` rows more may be read, and means nothing.
    """

    n_features: int
    width: int
    depth: int
    n_groups: int
    gate_at: NDArray[np.uint32]
    position_of: NDArray[np.uint32]
    sources: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    consumers: NDArray[np.uint32]


class Activations(NamedTuple):
    """What a forward pass reads and writes; arrays that a pass does without are empty.

    Attributes:
        n_blocks: blocks of samples.
        keeps: whether every block has rows of its own in ``values``; otherwise every worker has.
        weights: float32 [depth, width, 16], ``softmax((z + g) / tau)`` by gate; of truth tables
            [depth, width, 4], the slopes of their entries.
        gates: uint8 [depth, width], ``argmax(z + g)`` by gate, the first of equals.
        coefficients: float32 [depth, width, 4] by gate, ``weights @ G``, where hard those of the gate;
            on floats.
        words: int64 [n_blocks, n_rows], bits; on floats int64 [n_blocks, n_features], the inputs.
        inputs: float32 [n_blocks, n_features, 64], the inputs on floats where they are no bits.
        values: float32 [n_blocks, n_rows, 64], floats.
    """

    n_blocks: int
    keeps: bool
    weights: NDArray[np.float32]
    gates: NDArray[np.uint8]
    coefficients: NDArray[np.float32]
    words: NDArray[np.int64]
    inputs: NDArray[np.float32]
    values: NDArray[np.float32]


class Outputs(NamedTuple):
    """Class logits.

    Attributes:
        logits: float32; group g of block b is the row at ``(b · stride + g) · 64``. Empty: not wanted.
        stride: rows a block.
        group_tau: group-sum temperature.
    """

    logits: NDArray[np.float32]
    stride: int
    group_tau: float


class Gradients(NamedTuple):
    """What a backward pass reads and writes.

    Attributes:
        deltas: float32 [n_blocks · n_groups + 2 · width, 64]: the gradient of every gate of a group,
            zero beyond the batch, and then memory for two layers' gradients.
        sums: float32 [depth, width, 4], by position: Σδ, Σδa, Σδb and Σδab of each gate; out.
        inputs: float32 [n_blocks, n_features, 64]; out. Empty: not wanted.
        factor: multiplies the gradient at each layer's input.
    """

    deltas: NDArray[np.float32]
    sums: NDArray[np.float32]
    inputs: NDArray[np.float32]
    factor: np.float32


class Rows(NamedTuple):
    """Rows of 64 values, the first at offset ``start``."""

    values: NDArray[np.float32]
    start: int


def count_rows(wires: Wires) -> int:
    """Return the number of rows of all levels."""
    return wires.n_features + wires.depth * wires.width


@device
def level_row(wires, level):
    """Return the first row of a level."""
    return 0 if level == 0 else wires.n_features + (level - 1) * wires.width


@device
def level_start(wires, level):
    """Return where the entries of a level begin in ``starts``."""
    return 0 if level == 0 else wires.n_features + 1 + (level - 1) * (wires.width + 1)


def build_wires(
    wirings: Sequence[NDArray[np.int64]], n_features: int, n_groups: int, first_layer: int = 0
) -> Wires:
    """Return the wires of a network.

    Args:
        wirings: int64 [2, width] a layer.
        n_features: inputs of the first layer.
        n_groups: output groups, a divisor of the width.
        first_layer: what the first of these layers is called in errors.

    Raises:
        InvalidInputError: a gate reads what is not there; the kernels would not notice.
    """
    width, depth = wirings[0].shape[1], len(wirings)
    for layer, wiring in enumerate(wirings):
        check_reads(wiring, n_features if layer == 0 else width, f"layer {first_layer + layer}")
    gate_at = np.empty((depth, width), dtype=np.uint32)
    position_of = np.empty((depth, width), dtype=np.uint32)
    sources = np.empty((depth, width, 2), dtype=np.uint32)
    consumers = np.empty((depth, 2 * width, 3), dtype=np.uint32)
    starts = []
    inputs = np.arange(n_features)  # the positions of what the layer reads
    for layer, wiring in enumerate(wirings):
        is_last = layer == depth - 1
        order = np.arange(width)
        if not is_last:
            _walk(wirings[layer + 1].reshape(-1), order)
        positions = np.empty(width, dtype=np.int64)
        positions[order] = np.arange(width)
        gate_at[layer], position_of[layer] = order, positions
        read = inputs[wiring]
        sources[layer] = read[:, order].T

        flat = read.reshape(-1)
        by_source = np.argsort(flat, kind="stable")
        side, gate = np.divmod(by_source, width)
        ends = np.arange(len(inputs) + 1)
        starts.append(np.searchsorted(flat[by_source], ends).astype(np.uint32))
        consumers[layer, :, 0] = gate // (width // n_groups) if is_last else positions[gate]
        consumers[layer, :, 1] = 2 * gate + side
        consumers[layer, :, 2] = read[1 - side, gate]
        inputs = positions
    return Wires(
        n_features=n_features,
        width=width,
        depth=depth,
        n_groups=n_groups,
        gate_at=_padded(gate_at, 1),
        position_of=_padded(position_of, 1),
        sources=_padded(sources, 2),
        starts=np.concatenate(starts),
        consumers=_padded(consumers, 2 * 3),
    )


def check_reads(wiring: NDArray[np.int64], n_in: int, reader: str) -> None:
    """Raise unless all numbers of a wiring are those of inputs, 0..n_in-1; ``reader`` is who reads."""
    low, high = int(wiring.min()), int(wiring.max())
    if low < 0 or high >= n_in:
        raise InvalidInputError(
            f"{reader} reads input {low if low < 0 else high}, and it has inputs 0..{n_in - 1}; "
            "write numbers of that range into its wiring"
        )


@entry
def are_equal(first, second):
    """Return whether two arrays of one length hold the same integers."""
    difference = 0
    for place in range(len(first)):
        difference |= at(first, place) ^ at(second, place)
    return difference == 0


def _padded(array: NDArray[np.uint32], per_row: int) -> NDArray[np.uint32]:
    return np.append(array.reshape(-1), np.zeros(AHEAD * per_row, dtype=np.uint32))


@entry
def _walk(wiring, order):
    """Write an order of inputs in which neighbours share a gate wherever a greedy walk finds one.

    With random wiring every input is read by two gates, inputs and gates make up cycles, and the
    walk goes around each.

    Args:
        wiring: int64 [2, n_gates].
        order: int64 [n_inputs]; out.
    """
    n_gates, n_inputs = len(wiring) // 2, len(order)
    starts = np.zeros(n_inputs + 1, dtype=np.int64)
    for source in wiring:
        starts[source + 1] += 1
    for source in range(n_inputs):
        starts[source + 1] += starts[source]
    filled, partner = starts[:-1].copy(), np.empty(2 * n_gates, dtype=np.int64)
    for place in range(2 * n_gates):
        source = wiring[place]
        partner[filled[source]] = wiring[(place + n_gates) % (2 * n_gates)]
        filled[source] += 1
    seen = np.zeros(n_inputs, dtype=np.bool_)
    n = 0
    for root in range(n_inputs):
        here = root
        while not seen[here]:
            seen[here] = True
            order[n] = here
            n += 1
            for place in range(starts[here], starts[here + 1]):
                if not seen[partner[place]]:
                    here = partner[place]
                    break
