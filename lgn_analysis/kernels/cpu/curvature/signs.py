"""Random signs of probes: a word for 64 samples of a gate, for two neighbouring draws at once."""

from __future__ import annotations

from typing import Final, NamedTuple

from lgn_analysis.kernels.cpu.curvature.order import BlockLayout
from lgn_analysis.kernels.cpu.noise import philox_signs
from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK
from lgn_analysis.kernels.cpu.simd import concatenate, load, mask_of, select, store, to_longs

PAIR: Final = 2


class Draws(NamedTuple):
    """Which draws, and their seed.

    Attributes:
        first: the first draw.
        n_draws: how many.
        seed_low, seed_high: the two words of the seed.
        purpose: in the place where Philox wants it.
    """

    first: int
    n_draws: int
    seed_low: int
    seed_high: int
    purpose: int


def sign_words(layout: BlockLayout) -> int:
    """Return how many words of signs a worker needs: [n_layers, 2, width], rows of whole vectors."""
    return (layout.wires.depth - layout.first) * PAIR * _padded(layout.wires.width)


def _padded(width: int) -> int:
    return -(-width // 8) * 8


@device
def write_signs(layout, layer, block, draws, pair, signs, start):
    """Write the signs of one layer on the 64 samples that hold a block: [2, width] words, by step."""
    width = layout.wires.width
    row = -(-width // 8) * 8
    base = layer * width
    for step in range(0, width, 8):
        gates = to_longs(load(layout.order.gates, base + step, 8))
        even, odd = philox_signs(
            gates,
            pair,
            block * layout.block // BLOCK,
            draws.purpose | layer,
            draws.seed_low,
            draws.seed_high,
        )
        store(signs, start + step, even)
        store(signs, start + row + step, odd)


@device
def signed(length, even, odd, lane):
    """Return the two draws' u at the samples from ``lane`` on."""
    negative = length * -1.0
    return concatenate(
        select(mask_of(even >> lane, length), length, negative),
        select(mask_of(odd >> lane, length), length, negative),
    )
