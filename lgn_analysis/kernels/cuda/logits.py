"""From logits to gates and coefficients, and from the four sums back to logits.

Noise, argmax, tempered softmax and the 16 → 4 map are one pass over the logits, and so is their
gradient. Noise is recomputed, never stored.

A program holds a block of gates as four tensors [gates, 4]: option ``4·quad + j`` is element quad of
tensor j. One thread then owns four neighbouring options, which are one Philox block and one 16-byte
access. The bits of an option are its truth table, so the corners (0,0), (0,1), (1,0) and (1,1) are
sums over the options with bit 3, 2, 1 and 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.kernels.cuda.noise import gate_words, gumbel_from_words
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch
from lgn_analysis.kernels.interface import as_int64

GATES: Final = 64
"""Gates that one program holds."""


@triton.jit
def value_of(number, STORED: tl.constexpr):
    """Return a number that is an argument, or is stored where the argument points."""
    if STORED:
        return tl.load(number)
    else:  # Triton parts the two types of the result by the branches
        return number


@triton.jit
def load_options(pointer, gates, n, BLOCK: tl.constexpr):
    """Return [n, 16] at a block of gates as four tensors [BLOCK, 4]."""
    offsets = gates.to(tl.int64)[:, None] * 16 + tl.arange(0, 16)[None, :]
    values = tl.load(pointer + offsets, mask=(gates < n)[:, None], other=0.0)
    even, odd = tl.split(tl.reshape(values, (BLOCK, 4, 2, 2)))
    v0, v2 = tl.split(even)
    v1, v3 = tl.split(odd)
    return v0, v1, v2, v3


@triton.jit
def store_options(pointer, gates, n, v0, v1, v2, v3, BLOCK: tl.constexpr):
    """Write four tensors [BLOCK, 4] to [n, 16] at a block of gates."""
    values = tl.reshape(tl.join(tl.join(v0, v2), tl.join(v1, v3)), (BLOCK, 16))
    offsets = gates.to(tl.int64)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(pointer + offsets, values, mask=(gates < n)[:, None])


@triton.jit
def _noise(state, stream, gates, quads, dtype: tl.constexpr):
    """Return Gumbel noise as four tensors [gates, quads]."""
    w0, w1, w2, w3 = gate_words(state, stream, gates, quads)
    g0 = gumbel_from_words(w0, dtype)
    g1 = gumbel_from_words(w1, dtype)
    g2 = gumbel_from_words(w2, dtype)
    g3 = gumbel_from_words(w3, dtype)
    return g0, g1, g2, g3


@triton.jit
def _perturbed(logits, state, stream, gates, n, NOISY: tl.constexpr, BLOCK: tl.constexpr):
    """Return z + g, or z, as four tensors [BLOCK, 4], and the largest of each gate [BLOCK]."""
    v0, v1, v2, v3 = load_options(logits, gates, n, BLOCK)
    if NOISY:
        g0, g1, g2, g3 = _noise(state, stream, gates, tl.arange(0, 4), v0.dtype)
        v0 = v0 + g0
        v1 = v1 + g1
        v2 = v2 + g2
        v3 = v3 + g3
    top = tl.max(tl.maximum(tl.maximum(v0, v1), tl.maximum(v2, v3)), axis=1)
    return v0, v1, v2, v3, top


@triton.jit
def _first_maximum(v0, v1, v2, v3, top):
    """Return the first option that attains ``top``, int32 [gates]; 15 where none does (NaN)."""
    top = top[:, None]
    place = tl.where(v3 == top, 3, 16)
    place = tl.where(v2 == top, 2, place)
    place = tl.where(v1 == top, 1, place)
    place = tl.where(v0 == top, 0, place)
    return tl.minimum(tl.min(place + 4 * tl.arange(0, 4)[None, :], axis=1), 15)


@triton.jit
def _softmax(v0, v1, v2, v3, top, inverse_tau):
    """Return ``softmax(v / tau)`` as four tensors [gates, 4]."""
    top = top[:, None]
    e0 = tl.exp((v0 - top) * inverse_tau)
    e1 = tl.exp((v1 - top) * inverse_tau)
    e2 = tl.exp((v2 - top) * inverse_tau)
    e3 = tl.exp((v3 - top) * inverse_tau)
    scale = 1.0 / tl.sum((e0 + e1) + (e2 + e3), axis=1)[:, None]
    return e0 * scale, e1 * scale, e2 * scale, e3 * scale


@triton.jit
def corners_of(w0, w1, w2, w3):
    """Return what gates weighted by four tensors [gates, 4] are at the corners, each [gates]."""
    quads = tl.arange(0, 4)[None, :]
    total = (w0 + w1) + (w2 + w3)
    at_00 = tl.sum(tl.where(quads >= 2, total, 0.0), axis=1)
    at_01 = tl.sum(tl.where(quads % 2 == 1, total, 0.0), axis=1)
    return at_00, at_01, tl.sum(w2 + w3, axis=1), tl.sum(w1 + w3, axis=1)


@triton.jit
def store_coefficients(rows, inside, at_00, at_01, at_10, at_11):
    """Write the four coefficients of gates given at the corners."""
    tl.store(rows, at_00, mask=inside)
    tl.store(rows + 1, at_10 - at_00, mask=inside)
    tl.store(rows + 2, at_01 - at_00, mask=inside)
    tl.store(rows + 3, (at_00 - at_01) + (at_11 - at_10), mask=inside)


@triton.jit
def options_of(of_1, of_a, of_b, of_ab):
    """Return the derivatives by the sixteen weights, four tensors [gates, 4], from the four sums."""
    at_00 = ((of_1 - of_a) - (of_b - of_ab))[:, None]
    at_01 = (of_b - of_ab)[:, None]
    at_10 = (of_a - of_ab)[:, None]
    at_11 = of_ab[:, None]
    quads = tl.arange(0, 4)[None, :]
    w0 = tl.where(quads >= 2, at_00, 0.0) + tl.where(quads % 2 == 1, at_01, 0.0)
    w2 = w0 + at_10
    return w0, w0 + at_11, w2, w2 + at_11


@triton.jit(do_not_specialize=["stream"])
def gumbel_noise(out, state, stream, n, BLOCK: tl.constexpr):
    """Write the Gumbel noise of one layer, [n, 16]."""
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g0, g1, g2, g3 = _noise(state, stream, gates, tl.arange(0, 4), out.dtype.element_ty)
    store_options(out, gates, n, g0, g1, g2, g3, BLOCK)


@triton.jit(do_not_specialize=["stream"])
def select_gates(out, logits, state, stream, n, NOISY: tl.constexpr, BLOCK: tl.constexpr):
    """Write ``argmax(z + g)``, or ``argmax z``, as uint8 [n]."""
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v0, v1, v2, v3, top = _perturbed(logits, state, stream, gates, n, NOISY, BLOCK)
    chosen = _first_maximum(v0, v1, v2, v3, top)
    tl.store(out + gates, chosen.to(tl.uint8), mask=gates < n)


@triton.jit(do_not_specialize=["stream"])
def mix_gates(
    out,  # [n, 4]
    logits,  # [n, 16]
    state,  # [2]
    stream,
    n,
    inverse_tau,  # a number, or [1] if STORED
    NOISY: tl.constexpr,
    HARD: tl.constexpr,
    STORED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the coefficients [n, 4] of the training forward's gate weights."""
    inverse_tau = value_of(inverse_tau, STORED)
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v0, v1, v2, v3, top = _perturbed(logits, state, stream, gates, n, NOISY, BLOCK)
    if HARD:
        chosen = _first_maximum(v0, v1, v2, v3, top)
        p00 = ((chosen >> 3) & 1).to(v0.dtype)
        p01 = ((chosen >> 2) & 1).to(v0.dtype)
        p10 = ((chosen >> 1) & 1).to(v0.dtype)
        p11 = (chosen & 1).to(v0.dtype)
    else:
        s0, s1, s2, s3 = _softmax(v0, v1, v2, v3, top, inverse_tau)
        p00, p01, p10, p11 = corners_of(s0, s1, s2, s3)
    store_coefficients(out + gates.to(tl.int64) * 4, gates < n, p00, p01, p10, p11)


@triton.jit
def add_parts(rows, inside, n_parts, stride, dtype: tl.constexpr, BLOCK: tl.constexpr):
    """Return four sums of gates [BLOCK] at ``rows``, added over parts ``stride`` apart in their order."""
    of_1 = tl.zeros((BLOCK,), dtype)
    of_a = tl.zeros((BLOCK,), dtype)
    of_b = tl.zeros((BLOCK,), dtype)
    of_ab = tl.zeros((BLOCK,), dtype)
    for part in range(n_parts):
        at = rows + part * stride
        of_1 += tl.load(at, mask=inside, other=0.0).to(dtype)
        of_a += tl.load(at + 1, mask=inside, other=0.0).to(dtype)
        of_b += tl.load(at + 2, mask=inside, other=0.0).to(dtype)
        of_ab += tl.load(at + 3, mask=inside, other=0.0).to(dtype)
    return of_1, of_a, of_b, of_ab


@triton.jit
def gradient_options(
    logits, parts, noise, gates, n, inverse_tau, NOISY: tl.constexpr, BLOCK: tl.constexpr
):
    """Return ``s_i (dw_i - Σ_j s_j dw_j) / tau`` as four tensors [BLOCK, 4].

    ``parts`` are sums [n_parts, n, 4] and their number, ``noise`` is state and stream.
    """
    sums, n_parts = parts
    state, stream = noise
    v0, v1, v2, v3, top = _perturbed(logits, state, stream, gates, n, NOISY, BLOCK)
    s0, s1, s2, s3 = _softmax(v0, v1, v2, v3, top, inverse_tau)
    inside = gates < n
    rows, stride = sums + gates.to(tl.int64) * 4, tl.cast(n, tl.int64) * 4
    dtype: tl.constexpr = sums.dtype.element_ty
    of_1, of_a, of_b, of_ab = add_parts(rows, inside, n_parts, stride, dtype, BLOCK)
    w0, w1, w2, w3 = options_of(of_1, of_a, of_b, of_ab)
    mean = tl.sum((s0 * w0 + s1 * w1) + (s2 * w2 + s3 * w3), axis=1)[:, None]
    return (
        s0 * (w0 - mean) * inverse_tau,
        s1 * (w1 - mean) * inverse_tau,
        s2 * (w2 - mean) * inverse_tau,
        s3 * (w3 - mean) * inverse_tau,
    )


@triton.jit(do_not_specialize=["stream"])
def logit_gradient(
    out,  # [n, 16]
    logits,  # [n, 16]
    sums,  # [n_parts, n, 4]
    state,  # [2]
    stream,
    n,
    n_parts,
    inverse_tau,  # a number, or [1] if STORED
    NOISY: tl.constexpr,
    STORED: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradient of the logits [n, 16] from the four sums [n_parts, n, 4], or add it if it ADDS."""
    inverse_tau = value_of(inverse_tau, STORED)
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d0, d1, d2, d3 = gradient_options(
        logits, (sums, n_parts), (state, stream), gates, n, inverse_tau, NOISY, BLOCK
    )
    if ADDS:
        a0, a1, a2, a3 = load_options(out, gates, n, BLOCK)
        d0 += a0
        d1 += a1
        d2 += a2
        d3 += a3
    store_options(out, gates, n, d0, d1, d2, d3, BLOCK)


@dataclass(frozen=True)
class Draw:
    """Which noise a pass draws.

    Attributes:
        state: int64 on the device, beginning with seed and draw (modulo 2**64). Kernels read it
            when they run, so that a captured step draws anew whenever it is replayed.
        purpose: of the noise.
    """

    state: Tensor
    purpose: Purpose

    @classmethod
    def of(cls, key: NoiseKey, device: torch.device) -> Draw:
        """Put a key on the device, without waiting for it."""
        state = torch.empty(2, dtype=torch.int64, device=device)
        state[0].fill_(as_int64(key.seed))
        state[1].fill_(as_int64(key.draw))
        return cls(state, key.purpose)

    def stream(self, layer: int) -> int:
        """Return the counter word that names purpose and layer."""
        return int(self.purpose) << 24 | layer


Tau = float | Tensor
"""A gate temperature: a number, or float32 [1] on the device that holds 1 / tau when kernels run."""


def inverse_of(tau: Tau) -> tuple[Tau, bool]:
    """Return 1 / tau as a kernel's argument, and whether it is stored there."""
    return (tau, True) if isinstance(tau, Tensor) else (1 / tau, False)


def noise(draw: Draw, layer: int, n_gates: int, dtype: torch.dtype) -> Tensor:
    """Return Gumbel noise [n_gates, 16]."""
    out = torch.empty(n_gates, N_GATES, dtype=dtype, device=draw.state.device)
    grid = (cdiv(n_gates, GATES),)
    launch(gumbel_noise, grid, out, draw.state, draw.stream(layer), n_gates, BLOCK=GATES)
    return out


def gates_of(logits: Tensor, draw: Draw | None = None, layer: int = 0) -> Tensor:
    """Return ``argmax(z + g)``, or ``argmax z`` without a draw: uint8 [n] for logits [n, 16]."""
    n = logits.shape[0]
    out = torch.empty(n, dtype=torch.uint8, device=logits.device)
    arrays = (out, logits, *noise_arguments(logits, draw, layer))
    sizes = (n,)
    launch(select_gates, (cdiv(n, GATES),), *arrays, *sizes, NOISY=draw is not None, BLOCK=GATES)
    return out


def coefficients_of(
    logits: Tensor, draw: Draw | None, layer: int, *, tau: Tau, hard: bool
) -> Tensor:
    """Return the coefficients [n, 4] of the training forward's gate weights."""
    n = logits.shape[0]
    inverse, stored = inverse_of(tau)
    out = torch.empty(n, 4, dtype=logits.dtype, device=logits.device)
    arrays = (out, logits, *noise_arguments(logits, draw, layer))
    sizes = (n, inverse)
    grid = (cdiv(n, GATES),)
    launch(
        mix_gates,
        grid,
        *arrays,
        *sizes,
        NOISY=draw is not None,
        HARD=hard,
        STORED=stored,
        BLOCK=GATES,
    )
    return out


def gradient_of(
    logits: Tensor,
    sums: Tensor,
    draw: Draw | None,
    layer: int,
    *,
    tau: Tau,
    added: Tensor | None = None,
) -> Tensor:
    """Return the gradient of logits [n, 16] for the four sums [n_parts, n, 4] of their gates.

    ``added`` [n, 16] is added to it, in place.
    """
    n = logits.shape[0]
    inverse, stored = inverse_of(tau)
    out = torch.empty_like(logits) if added is None else added
    arrays = (out, logits, sums, *noise_arguments(logits, draw, layer))
    kinds = {"NOISY": draw is not None, "STORED": stored, "ADDS": added is not None}
    sizes = (n, sums.shape[0], inverse)
    launch(logit_gradient, (cdiv(n, GATES),), *arrays, *sizes, **kinds, BLOCK=GATES)
    return out


def noise_arguments(logits: Tensor, draw: Draw | None, layer: int) -> tuple[Tensor, int]:
    """Return state and stream; without a draw the kernel reads neither."""
    return (logits, 0) if draw is None else (draw.state, draw.stream(layer))
