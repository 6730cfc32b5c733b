"""Probes in activation space: ``u = ± √q`` as tangents of outputs, and what comes back times u.

``q = ‖s∘(h − y)‖²`` is a quadratic form in (1, a, b, ab), the same for all samples of a gate.
Kernels hold its triangular factor R: ``√q = ‖R (1, a, b, ab)ᵀ‖`` is then the root of no difference,
and as exact where q is nearly zero as anywhere. Signs are drawn anew wherever they are needed.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.gates.table import COEFFICIENTS
from lgn_analysis.kernels.cuda.backward import Delta
from lgn_analysis.kernels.cuda.bits import HALF_BITS
from lgn_analysis.kernels.cuda.curvature.tangents import (
    Inputs,
    linked_tangents,
    load_tangents,
    store_tangents,
    tile_of,
)
from lgn_analysis.kernels.cuda.forward import load_pair
from lgn_analysis.kernels.cuda.logits import Draw
from lgn_analysis.kernels.cuda.noise import sign_bits
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch

GATES_SUMMED: Final = 256
"""Gates whose products one program adds up."""


@triton.jit
def _signed_lengths(factors, state, stream, tile, a, b, VECTORS: tl.constexpr):
    """Return ``± √q`` [VECTORS, halves, rows, 32] for R's rows of 4, 3, 2 and 1: factors [n, 10]."""
    rows, inside, halves, _ = tile
    at = factors + rows.to(tl.int64) * 10
    r0 = tl.load(at, mask=inside, other=0.0)[None, :, None]
    r1 = tl.load(at + 1, mask=inside, other=0.0)[None, :, None]
    r2 = tl.load(at + 2, mask=inside, other=0.0)[None, :, None]
    r3 = tl.load(at + 3, mask=inside, other=0.0)[None, :, None]
    r4 = tl.load(at + 4, mask=inside, other=0.0)[None, :, None]
    r5 = tl.load(at + 5, mask=inside, other=0.0)[None, :, None]
    r6 = tl.load(at + 6, mask=inside, other=0.0)[None, :, None]
    r7 = tl.load(at + 7, mask=inside, other=0.0)[None, :, None]
    r8 = tl.load(at + 8, mask=inside, other=0.0)[None, :, None]
    r9 = tl.load(at + 9, mask=inside, other=0.0)[None, :, None]
    ab = a * b
    e0 = (r0 + r1 * a) + (r2 * b + r3 * ab)
    e1 = r4 * a + (r5 * b + r6 * ab)
    e2 = r7 * b + r8 * ab
    e3 = r9 * ab
    length = tl.sqrt((e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3))[None, :, :, :]
    positive = sign_bits(state, stream, rows, halves, VECTORS)
    return tl.where(positive, length, -length)


@triton.jit(do_not_specialize=["stream"])
def sign_forward(
    out,  # [n, VECTORS, batch]
    inputs,  # [n_in, batch], or halves [n_in, n_halves] if PACKED
    input_tangents,  # [n_in, VECTORS, batch]
    wiring,  # [2, n]
    coefficients,  # [n, 4]
    factors,  # [n, 10]
    state,  # [2]
    stream,
    n,
    batch,
    n_halves,
    LINKED: tl.constexpr,
    PACKED: tl.constexpr,
    VECTORS: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Write ``ẏ = u + (c1 + c3·b)·ȧ + (c2 + c3·a)·ḃ`` [n, VECTORS, batch], without ȧ and ḃ unless LINKED."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    halves = tl.program_id(1) * HALVES + tl.arange(0, HALVES)
    inside = rows < n
    dtype: tl.constexpr = out.dtype.element_ty
    tile = (rows, inside, halves, batch)
    a, b, sources = load_pair(inputs, wiring, n, tile, n_halves, dtype, PACKED)
    total = _signed_lengths(factors, state, stream, tile, a, b, VECTORS)
    if LINKED:
        total += linked_tangents(input_tangents, coefficients, tile, sources, a, b, VECTORS)
    store_tangents(out, rows, inside, halves, batch, total, VECTORS)


@triton.jit(do_not_specialize=["stream"])
def sign_products(
    out,  # [n_parts, 2, VECTORS, batch]
    delta_tangents,  # [n_rows, VECTORS, batch]
    inputs,  # [n_in, batch], or halves [n_in, n_halves] if PACKED
    wiring,  # [2, n]
    factors,  # [n, 10]
    state,  # [2]
    stream,
    n,
    gates_per_delta,
    batch,
    n_halves,
    PACKED: tl.constexpr,
    ROWS: tl.constexpr,
    VECTORS: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Write ``Σ d`` and ``Σ d²``, d = u·δ̇, over ROWS gates: float64 [n_parts, 2, VECTORS, batch]."""
    part = tl.program_id(0)
    halves = tl.program_id(1) * HALVES + tl.arange(0, HALVES)
    dtype: tl.constexpr = delta_tangents.dtype.element_ty
    total = tl.zeros((VECTORS, HALVES, BLOCK, 32), dtype)
    square = tl.zeros((VECTORS, HALVES, BLOCK, 32), dtype)
    for start in range(0, tl.minimum(ROWS, n - part * ROWS), BLOCK):
        rows = part * ROWS + start + tl.arange(0, BLOCK)
        inside = rows < n
        tile = (rows, inside, halves, batch)
        a, b, _ = load_pair(inputs, wiring, n, tile, n_halves, dtype, PACKED)
        u = _signed_lengths(factors, state, stream, tile, a, b, VECTORS)
        row = rows // gates_per_delta
        d = u * load_tangents(delta_tangents, row, inside, halves, batch, VECTORS)
        total += d
        square += d * d
    samples = (halves[:, None] * 32 + tl.arange(0, 32)[None, :])[None, :, :]
    vectors = (2 * part * VECTORS + tl.arange(0, VECTORS)).to(tl.int64)[:, None, None]
    at = out + vectors * batch + samples
    tl.store(at, tl.sum(total.to(tl.float64), axis=2), mask=samples < batch)
    at += VECTORS * tl.cast(batch, tl.int64)
    tl.store(at, tl.sum(square.to(tl.float64), axis=2), mask=samples < batch)


def length_factors(weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Return R with ``√q = ‖R (1, a, b, ab)ᵀ‖`` as its rows of 4, 3, 2 and 1 numbers, [n, 10].

    By Gram and Schmidt on the four columns of ``s∘(G − c)``: they are few, and may depend on
    one another.

    Args:
        weights: p = softmax(z/tau) float64 [n, 16].
        scales: s float64 [n, 16]; see :func:`lgn_analysis.kernels.interface.length_scales`.
        dtype: of the result.
    """
    table = COEFFICIENTS.to(weights)
    spread = scales.unsqueeze(-1) * (table - (weights @ table).unsqueeze(1))
    columns = list(spread.unbind(-1))
    entries = []
    for place in range(4):
        length = columns[place].norm(dim=-1, keepdim=True)
        unit = columns[place] / torch.where(length > 0, length, 1.0)
        entries.append(length)
        for later in range(place + 1, 4):
            shared = (unit * columns[later]).sum(-1, keepdim=True)
            columns[later] = columns[later] - shared * unit
            entries.append(shared)
    return torch.cat(entries, dim=-1).to(dtype)


def forward_signs(
    inputs: Inputs,
    tangents: Tensor | None,
    coefficients: Tensor,
    factors: Tensor,
    draw: Draw,
    layer: int,
    vectors: int,
) -> Tensor:
    """Return the tangents of outputs [n, vectors, batch] that also move by ``± √q`` themselves.

    Args:
        inputs: of the layer.
        tangents: of its inputs, [n_in, vectors, batch]; None is zero.
        coefficients: [n, 4].
        factors: see :func:`length_factors`.
        draw: the first of as many neighbouring draws of signs.
        layer: its index.
        vectors: 1, 2 or 4.
    """
    rows, batch = inputs.rows, inputs.batch
    out = torch.empty(
        inputs.n, vectors, batch, dtype=coefficients.dtype, device=coefficients.device
    )
    block, halves = tile_of(out.itemsize, batch, vectors)
    arrays = (
        out,
        rows,
        coefficients if tangents is None else tangents,
        inputs.wiring,
        coefficients,
        factors,
        draw.state,
        draw.stream(layer),
    )
    sizes = (inputs.n, batch, rows.shape[1])
    grid = (cdiv(inputs.n, block), cdiv(batch, halves * HALF_BITS))
    launch(
        sign_forward,
        grid,
        *arrays,
        *sizes,
        LINKED=tangents is not None,
        PACKED=inputs.packed,
        VECTORS=vectors,
        BLOCK=block,
        HALVES=halves,
    )
    return out


def products_with_signs(
    inputs: Inputs, delta_tangents: Delta, factors: Tensor, draw: Draw, layer: int
) -> Tensor:
    """Return ``Σ_n d_n(i)`` and ``Σ_n d_n(i)²``, d = u ∘ δ̇, over a layer's gates: float64 [2, k, batch].

    Args:
        inputs: of the layer.
        delta_tangents: rows [n_rows, k, batch].
        factors: see :func:`length_factors`.
        draw: the first of k neighbouring draws of signs.
        layer: its index.
    """
    rows, batch = inputs.rows, inputs.batch
    delta_rows = delta_tangents.rows
    vectors = delta_rows.shape[1]
    block, halves = tile_of(delta_rows.itemsize, batch, 2 * vectors)  # two sums of its own
    n_parts = cdiv(inputs.n, GATES_SUMMED)
    parts = torch.empty(n_parts, 2, vectors, batch, dtype=torch.float64, device=delta_rows.device)
    arrays = (parts, delta_rows, rows, inputs.wiring, factors, draw.state, draw.stream(layer))
    sizes = (inputs.n, delta_tangents.gates_per_row, batch, rows.shape[1])
    grid = (n_parts, cdiv(batch, halves * HALF_BITS))
    launch(
        sign_products,
        grid,
        *arrays,
        *sizes,
        PACKED=inputs.packed,
        ROWS=GATES_SUMMED,
        VECTORS=vectors,
        BLOCK=block,
        HALVES=halves,
    )
    return parts.sum(0)
