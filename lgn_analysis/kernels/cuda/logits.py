"""From logits to gates and coefficients, and from the four sums back to logits.

Noise, argmax, tempered softmax and the 16 → 4 map are one pass over the logits, and so is their
gradient. Noise is recomputed, never stored.

A program holds a block of gates as four tensors [gates, 4]: option ``4·quad + j`` is element quad of
tensor j. One thread then owns four neighbouring options, which are one Philox block and one 16-byte
access. The bits of an option are its truth table, so the corners (0,0), (0,1), (1,0) and (1,1) are
sums over the options with bit 3, 2, 1 and 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lgn_analysis.kernels.cuda.noise import gate_words, gumbel_from_words


@triton.jit
def value_of(number: tl.tensor, STORED: tl.constexpr) -> tl.tensor:
    """Return a number that is an argument, or is stored where the argument points."""
    if STORED:
        return tl.load(number)
    else:  # Triton parts the two types of the result by the branches
        return number


@triton.jit
def load_options(
    pointer: tl.tensor, gates: tl.tensor, n: tl.tensor, BLOCK: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """Return [n, 16] at a block of gates as four tensors [BLOCK, 4]."""
    offsets = gates.to(tl.int64)[:, None] * 16 + tl.arange(0, 16)[None, :]
    values = tl.load(pointer + offsets, mask=(gates < n)[:, None], other=0.0)
    even, odd = tl.split(tl.reshape(values, (BLOCK, 4, 2, 2)))
    v0, v2 = tl.split(even)
    v1, v3 = tl.split(odd)
    return v0, v1, v2, v3


@triton.jit
def store_options(
    pointer: tl.tensor,
    gates: tl.tensor,
    n: tl.tensor,
    v0: tl.tensor,
    v1: tl.tensor,
    v2: tl.tensor,
    v3: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Write four tensors [BLOCK, 4] to [n, 16] at a block of gates."""
    values = tl.reshape(tl.join(tl.join(v0, v2), tl.join(v1, v3)), (BLOCK, 16))
    offsets = gates.to(tl.int64)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(pointer + offsets, values, mask=(gates < n)[:, None])


@triton.jit
def _noise(
    state: tl.tensor, stream: tl.tensor, gates: tl.tensor, quads: tl.tensor, dtype: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """Return Gumbel noise as four tensors [gates, quads]."""
    w0, w1, w2, w3 = gate_words(state, stream, gates, quads)
    g0 = gumbel_from_words(w0, dtype)
    g1 = gumbel_from_words(w1, dtype)
    g2 = gumbel_from_words(w2, dtype)
    g3 = gumbel_from_words(w3, dtype)
    return g0, g1, g2, g3


@triton.jit
def _perturbed(
    logits: tl.tensor,
    state: tl.tensor,
    stream: tl.tensor,
    gates: tl.tensor,
    n: tl.tensor,
    NOISY: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tuple[tl.tensor, ...]:
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
def _first_maximum(
    v0: tl.tensor, v1: tl.tensor, v2: tl.tensor, v3: tl.tensor, top: tl.tensor
) -> tl.tensor:
    """Return the first option that attains ``top``, int32 [gates]; 15 where none does (NaN)."""
    top = top[:, None]
    place = tl.where(v3 == top, 3, 16)
    place = tl.where(v2 == top, 2, place)
    place = tl.where(v1 == top, 1, place)
    place = tl.where(v0 == top, 0, place)
    return tl.minimum(tl.min(place + 4 * tl.arange(0, 4)[None, :], axis=1), 15)


@triton.jit
def _softmax(
    v0: tl.tensor,
    v1: tl.tensor,
    v2: tl.tensor,
    v3: tl.tensor,
    top: tl.tensor,
    inverse_tau: tl.tensor,
) -> tuple[tl.tensor, ...]:
    """Return ``softmax(v / tau)`` as four tensors [gates, 4]."""
    top = top[:, None]
    e0 = tl.exp((v0 - top) * inverse_tau)
    e1 = tl.exp((v1 - top) * inverse_tau)
    e2 = tl.exp((v2 - top) * inverse_tau)
    e3 = tl.exp((v3 - top) * inverse_tau)
    scale = 1.0 / tl.sum((e0 + e1) + (e2 + e3), axis=1)[:, None]
    return e0 * scale, e1 * scale, e2 * scale, e3 * scale


@triton.jit
def corners_of(w0: tl.tensor, w1: tl.tensor, w2: tl.tensor, w3: tl.tensor) -> tuple[tl.tensor, ...]:
    """Return what gates weighted by four tensors [gates, 4] are at the corners, each [gates]."""
    quads = tl.arange(0, 4)[None, :]
    total = (w0 + w1) + (w2 + w3)
    at_00 = tl.sum(tl.where(quads >= 2, total, 0.0), axis=1)
    at_01 = tl.sum(tl.where(quads % 2 == 1, total, 0.0), axis=1)
    return at_00, at_01, tl.sum(w2 + w3, axis=1), tl.sum(w1 + w3, axis=1)


@triton.jit
def store_coefficients(
    rows: tl.tensor,
    inside: tl.tensor,
    at_00: tl.tensor,
    at_01: tl.tensor,
    at_10: tl.tensor,
    at_11: tl.tensor,
) -> None:
    """Write the four coefficients of gates given at the corners."""
    tl.store(rows, at_00, mask=inside)
    tl.store(rows + 1, at_10 - at_00, mask=inside)
    tl.store(rows + 2, at_01 - at_00, mask=inside)
    tl.store(rows + 3, (at_00 - at_01) + (at_11 - at_10), mask=inside)


@triton.jit
def options_of(
    of_1: tl.tensor, of_a: tl.tensor, of_b: tl.tensor, of_ab: tl.tensor
) -> tuple[tl.tensor, ...]:
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
def gumbel_noise(
    out: tl.tensor, state: tl.tensor, stream: tl.tensor, n: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Write the Gumbel noise of one layer, [n, 16]."""
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g0, g1, g2, g3 = _noise(state, stream, gates, tl.arange(0, 4), out.dtype.element_ty)
    store_options(out, gates, n, g0, g1, g2, g3, BLOCK)


@triton.jit(do_not_specialize=["stream"])
def select_gates(
    out: tl.tensor,
    logits: tl.tensor,
    state: tl.tensor,
    stream: tl.tensor,
    n: tl.tensor,
    NOISY: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Write ``argmax(z + g)``, or ``argmax z``, as uint8 [n]."""
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v0, v1, v2, v3, top = _perturbed(logits, state, stream, gates, n, NOISY, BLOCK)
    chosen = _first_maximum(v0, v1, v2, v3, top)
    tl.store(out + gates, chosen.to(tl.uint8), mask=gates < n)


@triton.jit(do_not_specialize=["stream"])
def mix_gates(
    out: tl.tensor,
    logits: tl.tensor,
    state: tl.tensor,
    stream: tl.tensor,
    n: tl.tensor,
    inverse_tau: tl.tensor,
    NOISY: tl.constexpr,
    HARD: tl.constexpr,
    STORED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
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
def gradient_options(
    logits: tl.tensor,
    sums: tl.tensor,
    state: tl.tensor,
    stream: tl.tensor,
    gates: tl.tensor,
    n: tl.tensor,
    n_parts: tl.tensor,
    inverse_tau: tl.tensor,
    NOISY: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """Return ``s_i (dw_i - Σ_j s_j dw_j) / tau`` as four tensors [BLOCK, 4]; sums [n_parts, n, 4]."""
    v0, v1, v2, v3, top = _perturbed(logits, state, stream, gates, n, NOISY, BLOCK)
    s0, s1, s2, s3 = _softmax(v0, v1, v2, v3, top, inverse_tau)
    inside = gates < n
    rows = sums + gates.to(tl.int64) * 4
    of_1 = tl.zeros((BLOCK,), sums.dtype.element_ty)
    of_a = tl.zeros((BLOCK,), sums.dtype.element_ty)
    of_b = tl.zeros((BLOCK,), sums.dtype.element_ty)
    of_ab = tl.zeros((BLOCK,), sums.dtype.element_ty)
    for part in range(n_parts):
        at = rows + part * tl.cast(n, tl.int64) * 4
        of_1 += tl.load(at, mask=inside, other=0.0)
        of_a += tl.load(at + 1, mask=inside, other=0.0)
        of_b += tl.load(at + 2, mask=inside, other=0.0)
        of_ab += tl.load(at + 3, mask=inside, other=0.0)
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
    out: tl.tensor,
    logits: tl.tensor,
    sums: tl.tensor,
    state: tl.tensor,
    stream: tl.tensor,
    n: tl.tensor,
    n_parts: tl.tensor,
    inverse_tau: tl.tensor,
    NOISY: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Write the gradient of the logits [n, 16] from the four sums [n_parts, n, 4]."""
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d0, d1, d2, d3 = gradient_options(
        logits, sums, state, stream, gates, n, n_parts, inverse_tau, NOISY, BLOCK
    )
    store_options(out, gates, n, d0, d1, d2, d3, BLOCK)
