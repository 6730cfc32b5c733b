"""Probes u = ± √q: random signs, and lengths √q = ‖s ∘ (h − y)‖, h a gate's sixteen outputs, y their mixture.

Signs are a word for 64 samples of a gate, for two neighbouring draws at once.

``s ∘ (h − y)`` is bilinear in the inputs, so its square is a polynomial of degree two in each. It is kept
in the basis of Bernstein, (1 − a)², a(1 − a), a², whose terms are positive between 0 and 1: where a gate
has nearly chosen, q at one corner is many orders of magnitude below q at another, and a difference of
powers of a and b would be nothing but rounding there.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from lgn_analysis.gates.table import TRUTH_TABLE
from lgn_analysis.kernels.cpu.curvature.order import BlockLayout, value_start
from lgn_analysis.kernels.cpu.noise import philox_signs
from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK
from lgn_analysis.kernels.cpu.simd import (
    at,
    concatenate,
    fma,
    load,
    load_like,
    mask_of,
    maximum,
    n_lanes,
    select,
    sqrt,
    store,
    to_longs,
)

PAIR: Final = 2
"""Draws that go together."""
N_TERMS: Final = 9
"""Coefficients of q of a gate."""


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


def length_forms(p: Tensor, scales: Tensor) -> Tensor:
    """Return ``‖s ∘ (h − y)‖²`` of gates as polynomials in a and b.

    Args:
        p: [..., 16], gate weights.
        scales: [..., 16], s; see :func:`lgn_analysis.kernels.interface.length_scales`.

    Returns:
        [..., 9], the coefficients of (1 − a)², a(1 − a), a², each times (1 − b)², b(1 − b), b².
    """
    table = TRUTH_TABLE.to(p)
    # 1 − y as a sum, and not as a difference, which is rounding where y is nearly 1.
    spread = scales.unsqueeze(-1) * torch.where(
        table > 0, (p @ (1.0 - table)).unsqueeze(-2), -(p @ table).unsqueeze(-2)
    )
    corners = spread.transpose(-1, -2) @ spread
    # Corners are numbered (a, b) = (0,0), (0,1), (1,0), (1,1).
    q = [[corners[..., i, j] for j in range(4)] for i in range(4)]
    terms = (
        (q[0][0], 2 * q[0][1], q[1][1]),
        (2 * q[0][2], 2 * (q[0][3] + q[1][2]), 2 * q[1][3]),
        (q[2][2], 2 * q[2][3], q[3][3]),
    )
    return torch.stack([term for row in terms for term in row], dim=-1)


@device
def _in_b(forms, f, b0, b1, b2):
    return fma(at(forms, f + 2), b2, fma(at(forms, f + 1), b1, b0 * at(forms, f)))


@device
def write_lengths(layout, layer, block, forms, values, workspace, start, line):
    """Write √q of one layer on one block, by step."""
    rows, size = layout.order.rows, layout.block
    base = layer * layout.wires.width
    offset = value_start(layout, block, layer)
    for step in range(base, base + layout.wires.width):
        a_row, b_row = offset + at(rows, 4 * step) * size, offset + at(rows, 4 * step + 1) * size
        f = N_TERMS * step
        for lane in range(0, size, n_lanes(line)):
            a, b = load_like(values, a_row + lane, line), load_like(values, b_row + lane, line)
            not_a, not_b = 1.0 - a, 1.0 - b
            b0, b1, b2 = not_b * not_b, b * not_b, b * b
            q = not_a * not_a * _in_b(forms, f, b0, b1, b2)
            q = fma(a * not_a, _in_b(forms, f + 3, b0, b1, b2), q)
            q = fma(a * a, _in_b(forms, f + 6, b0, b1, b2), q)
            store(workspace, start + (step - base) * size + lane, sqrt(maximum(q, line)))
