"""Gumbel noise as a function of its place in a network and of a draw, not a stream.

Every number comes from Philox4x32-10 of (seed, purpose, draw, layer, gate, option). Nothing stores
noise, anything can recompute it: the backward pass, a resumed run, a Hessian at frozen noise.

Layout: the 64-bit seed is the Philox key; the counter words are ``4·gate + option // 4``, the low
and the high half of ``draw``, and ``purpose << 24 | layer``. The four output words serve the four
options ``4·(option // 4) + 0..3``.

Source: Salmon, Moraes, Dror, Shaw, *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011; checked
against the known-answer vectors published with Random123.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import torch
from torch import Tensor

from lgn_analysis.base.distributed import from_rank_zero
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import seed_number
from lgn_analysis.gates.table import N_GATES

MAX_GATES: Final = 2**30
MAX_LAYERS: Final = 2**24

_MASK: Final = 0xFFFFFFFF
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_ROUNDS: Final = 10

_Word = TypeVar("_Word", int, Tensor)


class Purpose(enum.IntEnum):
    """What randomness is for; two purposes never share a number."""

    TRAINING = 1
    EVALUATION = 2
    PROBE = 3
    WIRING = 4
    LOGITS = 5
    DATA_ORDER = 6
    SIGNS = 7


@dataclass(frozen=True)
class NoiseKey:
    """Names one draw of the noise of a whole network.

    Attributes:
        seed: 0 <= seed < 2**64.
        purpose: keeps training, evaluation and probing apart.
        draw: which draw, 0 <= draw < 2**64; a training step, say.
    """

    seed: int
    purpose: Purpose
    draw: int = 0

    def __post_init__(self) -> None:
        for name in ("seed", "draw"):
            object.__setattr__(self, name, seed_number(getattr(self, name), name))


def philox4x32(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Return Philox4x32-10 of the counters under ``key``.

    Args:
        counter: int64 [..., 4], each word in 0..2**32-1.
        key: two words in 0..2**32-1.

    Returns:
        int64 [..., 4], each word in 0..2**32-1.

    >>> zeros = torch.zeros(4, dtype=torch.int64)
    >>> [hex(word) for word in philox4x32(zeros, (0, 0)).tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    return torch.stack(_rounds(counter.unbind(-1), key), dim=-1)


def _rounds(counter: Sequence[_Word], key: tuple[int, int]) -> tuple[_Word, ...]:
    """Return the four output words for four counter words, Python integers or int64 tensors."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2**64, so both 32-bit halves come out right.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0, high1 = (product0 >> 32) & _MASK, (product1 >> 32) & _MASK
        c0, c1 = high1 ^ c1 ^ k0, product1 & _MASK
        c2, c3 = high0 ^ c3 ^ k1, product0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def philox_words(
    key: NoiseKey,
    layers: Tensor | int,
    n_gates: int,
    *,
    n_options: int = N_GATES,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the Philox words behind one draw: int64 [..., n_gates, n_options], ``layers`` leading.

    Args:
        key: the draw.
        layers: a layer index, or int64 [n_layers] of them.
        n_gates: gates in each of these layers.
        n_options: words a gate, a multiple of 4.
        device: where to compute.
    """
    layer = torch.as_tensor(layers, dtype=torch.int64, device=device)
    if n_gates > MAX_GATES:
        raise InvalidInputError(f"noise addresses at most {MAX_GATES} gates a layer, not {n_gates}")
    block = torch.arange(n_gates * (n_options // 4), device=device)
    shape = (*layer.shape, block.numel())
    words = [
        block.expand(shape),
        torch.full((), key.draw & _MASK, dtype=torch.int64, device=device).expand(shape),
        torch.full((), key.draw >> 32, dtype=torch.int64, device=device).expand(shape),
        (layer | int(key.purpose) << 24).unsqueeze(-1).expand(shape),
    ]
    output = philox4x32(torch.stack(words, dim=-1), (key.seed & _MASK, key.seed >> 32))
    return output.reshape(*layer.shape, n_gates, n_options)


def gumbel_from_words(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``-log(-log u)``, u = (word + ½) / 2**32, strictly finite: -3.14 < g < 22.88.

    Both tails keep the full 32 bits in any dtype, because the distance of u to the nearer of 0 and
    1 is formed from the integer: a float32 u would round to 1.0 once in 2**25 draws. A float32
    value lies within 4 · 2**-23 · max(1, |g|) of the float64 value of the same word.

    Args:
        words: int64 [...], in 0..2**32-1.
        dtype: float32 or float64; a narrower float would lose the tails, silently.
    """
    if dtype not in (torch.float32, torch.float64):
        raise InvalidInputError(
            f"Gumbel noise is float32 or float64, not {dtype}; convert the model: model.float()"
        )
    upper = words >= 2**31
    to_edge = (torch.minimum(words, _MASK - words).to(dtype) + 0.5) * 2.0**-32
    exponential = torch.where(upper, -torch.log1p(-to_edge), -torch.log(to_edge))
    return -torch.log(exponential)


def gumbel(
    key: NoiseKey,
    layers: Tensor | int,
    n_gates: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return standard Gumbel noise [..., n_gates, 16] for one draw; see :func:`philox_words`."""
    return gumbel_from_words(philox_words(key, layers, n_gates, device=device), dtype)


def logistic(
    key: NoiseKey,
    layers: Tensor | int,
    n_gates: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return standard logistic noise [..., n_gates, 4] for one draw, one variable a truth table's entry.

    It is ``log(u / (1 - u))``, u = (word + ½) / 2**32, strictly finite: |l| < 22.88. Both tails keep
    the full 32 bits, as those of :func:`gumbel_from_words`.
    """
    if dtype not in (torch.float32, torch.float64):
        raise InvalidInputError(
            f"logistic noise is float32 or float64, not {dtype}; convert the model: model.float()"
        )
    words = philox_words(key, layers, n_gates, n_options=4, device=device)
    to_edge = (torch.minimum(words, _MASK - words).to(dtype) + 0.5) * 2.0**-32
    size = torch.log1p(-to_edge) - torch.log(to_edge)
    return torch.where(words >= 2**31, size, -size)


def random_signs(
    key: NoiseKey,
    layer: int,
    n_gates: int,
    batch: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return independent signs -1 and 1 [n_gates, batch], a bit of Philox each.

    One call serves 64 samples of two neighbouring draws: the counter is the gate, ``draw // 2``,
    ``sample // 64`` and ``purpose << 24 | layer``; sample s of draw d is bit ``s % 32`` of word
    ``2·(d % 2) + s % 64 // 32``, set for 1.

    Args:
        key: the draw, below 2**33.
        layer: index of the layer.
        n_gates: its gates.
        batch: samples.
        dtype: of the result.
        device: where to compute.
    """
    if key.draw >= 2**33:
        raise InvalidInputError(f"signs have draws 0..2**33-1, got {key.draw}")
    n_blocks = -(-batch // 64)
    gate = torch.arange(n_gates, device=device).unsqueeze(1).expand(n_gates, n_blocks)
    block = torch.arange(n_blocks, device=device).expand(n_gates, n_blocks)
    counter = [
        gate,
        torch.full_like(gate, key.draw // 2),
        block,
        torch.full_like(gate, int(key.purpose) << 24 | layer),
    ]
    words = philox4x32(torch.stack(counter, dim=-1), (key.seed & _MASK, key.seed >> 32))
    first = 2 * (key.draw % 2)
    places = torch.arange(32, device=device)
    bits = (words[..., first : first + 2].unsqueeze(-1) >> places) & 1
    return (2 * bits - 1).reshape(n_gates, n_blocks * 64)[:, :batch].to(dtype)


def derive_seed(seed: int, purpose: Purpose, index: int = 0) -> int:
    """Return a seed in 0..2**63-1 for one purpose and index, independent of all others."""
    key = NoiseKey(seed, purpose, index)
    counter = (0, key.draw & _MASK, key.draw >> 32, int(purpose) << 24)
    high, low, *_ = _rounds(counter, (key.seed & _MASK, key.seed >> 32))
    return (high << 32 | low) & (2**63 - 1)


def generator_for(seed: int, purpose: Purpose, index: int = 0) -> torch.Generator:
    """Return a CPU generator for one purpose and index; see :func:`derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, index))


def fresh_key(purpose: Purpose) -> NoiseKey:
    """Return a key drawn from torch's own generator, as dropout does; ``torch.manual_seed`` fixes it.

    Ranks of a process group take rank 0's key: a batch has one draw of the noise.
    """
    return NoiseKey(from_rank_zero(int(torch.randint(2**63 - 1, ()))), purpose)
