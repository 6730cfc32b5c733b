"""The specification of every kernel: plain PyTorch, slow and obviously right.

Differentiable any number of times and usable under ``torch.func``, except on packed bits.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.gates import COEFFICIENTS
from lgn_analysis.noise import gumbel

__all__ = ["NAME", "gate_layer", "gate_layer_packed", "gumbel", "pack_bits", "unpack_bits"]

NAME: Final = "reference"
WORD_BITS: Final = 64


def gate_layer(x: Tensor, wiring: Tensor, coefficients: Tensor) -> Tensor:
    """Return ``c0 + c1·a + c2·b + c3·ab`` for every gate.

    Args:
        x: [n_in, ...], the inputs, any trailing batch shape.
        wiring: int64 [2, n_out].
        coefficients: [n_out, 4].

    Returns:
        [n_out, ...].
    """
    # index_select: its backward is an index_add, several times faster than that of x[index].
    a, b = x.index_select(0, wiring[0]), x.index_select(0, wiring[1])
    c0, c1, c2, c3 = coefficients.reshape(-1, *([1] * (x.ndim - 1)), 4).unbind(-1)
    return (c0 + c1 * a) + (c2 + c3 * a) * b


def gate_layer_packed(words: Tensor, wiring: Tensor, gates: Tensor) -> Tensor:
    """Return the outputs of discrete gates on packed bits.

    Modulo 2 the four coefficients are the gate's algebraic normal form, so a gate is
    ``m0 ^ (m1 & a) ^ (m2 & b) ^ (m3 & a & b)`` with masks of all zeros or all ones.

    Args:
        words: int64 [n_in, n_words].
        wiring: int64 [2, n_out].
        gates: int64 [n_out], gate numbers 0..15.

    Returns:
        int64 [n_out, n_words]; bits beyond the batch are arbitrary.
    """
    masks = -(COEFFICIENTS.to(words.device) & 1)[gates]
    m0, m1, m2, m3 = masks.unsqueeze(-1).unbind(1)
    a, b = words.index_select(0, wiring[0]), words.index_select(0, wiring[1])
    return m0 ^ (m1 & a) ^ ((m2 ^ (m3 & a)) & b)


def pack_bits(bits: Tensor) -> Tensor:
    """Return bool [n, batch] packed into int64 [n, ceil(batch / 64)], sample 0 in the lowest bit.

    >>> pack_bits(torch.tensor([[True, False, True]]))
    tensor([[5]])
    """
    n, batch = bits.shape
    n_words = -(-batch // WORD_BITS)
    padded = functional.pad(bits.to(torch.uint8), (0, n_words * WORD_BITS - batch))
    places = torch.arange(8, device=bits.device, dtype=torch.uint8)
    octets = (padded.reshape(n, n_words * 8, 8) << places).sum(-1, dtype=torch.uint8)
    shifts = 8 * torch.arange(8, device=bits.device)
    return (octets.reshape(n, n_words, 8).to(torch.int64) << shifts).sum(-1)


def unpack_bits(words: Tensor, batch: int) -> Tensor:
    """Return int64 [n, n_words] as bool [n, batch]; the inverse of :func:`pack_bits`."""
    places = torch.arange(WORD_BITS, device=words.device)
    bits = (words.unsqueeze(-1) >> places) & 1
    return bits.flatten(1)[:, :batch].to(torch.bool)
