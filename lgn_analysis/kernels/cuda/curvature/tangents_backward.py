"""Tangents of the backward pass: of input gradients, and of the four sums.

An input that a gate reads as A receives ``δ̇·(c1 + c3·b) + δ·(ċ1 + ċ3·b + c3·ḃ)`` from it, one read as
B likewise; the four sums move by ``Σδ̇``, ``Σ(δ̇a + δȧ)``, ``Σ(δ̇b + δḃ)`` and ``Σ(δ̇ab + δȧb + δaḃ)``.
As in ``backward``, one kernel does both, visits every gate as a reader of its inputs, and adds in a
fixed order. Sums are of the activations' dtype within a tile of samples.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.kernels.cuda.backward import Delta
from lgn_analysis.kernels.cuda.bits import HALF_BITS
from lgn_analysis.kernels.cuda.curvature.tangents import (
    TILE_BYTES,
    Inputs,
    load_tangents,
    store_tangents,
    tile_of,
)
from lgn_analysis.kernels.cuda.forward import load_pair, load_values
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch

SUMMED_BYTES: Final = TILE_BYTES // 2
"""Tangents that a program holds which also makes sums: it holds four of every kind."""


@triton.jit
def _over_samples(values):
    """Return [vectors, halves, rows, 32] summed over samples, [vectors, rows]."""
    return tl.sum(tl.sum(values, axis=1), axis=2)


@triton.jit
def _store_sums(sums, gates, wanted, of_1, of_a, of_b, of_ab, VECTORS: tl.constexpr):
    """Write the sums of four tensors over the samples at hand to sums [n, VECTORS, 4]."""
    even = tl.join(_over_samples(of_1), _over_samples(of_b))
    odd = tl.join(_over_samples(of_a), _over_samples(of_ab))
    four = tl.reshape(tl.join(even, odd), (VECTORS, gates.shape[0], 4))
    rows = gates.to(tl.int64)[None, :] * VECTORS + tl.arange(0, VECTORS)[:, None]
    at = rows[:, :, None] * 4 + tl.arange(0, 4)[None, None, :]
    tl.store(sums + at, four, mask=wanted[None, :, None])


@triton.jit
def tangent_backward_sums(
    sums,  # [n_parts, n, VECTORS, 4]
    delta_tangents,  # [n_rows, VECTORS, batch]
    inputs,  # [n_in, batch], or halves [n_in, n_halves] if PACKED
    wiring,  # [2, n]
    n,
    gates_per_delta,
    batch,
    n_halves,
    PACKED: tl.constexpr,
    VECTORS: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Write the tangents of the sums [n_parts, n, VECTORS, 4] where inputs have no tangents."""
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = tl.program_id(1)
    halves = part * HALVES + tl.arange(0, HALVES)
    inside = gates < n
    dtype: tl.constexpr = sums.dtype.element_ty
    tile = (gates, inside, halves, batch)
    a, b, _ = load_pair(inputs, wiring, n, tile, n_halves, dtype, PACKED)
    a, b = a[None, :, :, :], b[None, :, :, :]
    d = load_tangents(delta_tangents, gates // gates_per_delta, inside, halves, batch, VECTORS)
    own = sums + part * tl.cast(n, tl.int64) * (VECTORS * 4)
    _store_sums(own, gates, inside, d, d * a, d * b, d * a * b, VECTORS)


@triton.jit
def tangent_backward_inputs(
    out,  # [n_in, VECTORS, batch]
    sums,  # [n_parts, n, VECTORS, 4]
    delta,  # [n_rows, batch]
    delta_tangents,  # [n_rows, VECTORS, batch]
    inputs,  # [n_in, batch]
    input_tangents,  # [n_in, VECTORS, batch]
    coefficients,  # [n, 4]
    c_tangents,  # [n, VECTORS, 4]
    offsets,  # [n_in + 1]
    readers,  # [2 · n]
    partners,  # [2 · n]
    n_in,
    n,
    gates_per_delta,
    batch,
    C_TANGENTS: tl.constexpr,
    VECTORS: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Write the tangents of the input gradients [n_in, VECTORS, batch].

    C_TANGENTS: the coefficients have tangents, ``c_tangents`` [n, VECTORS, 4], and the tangents of the four
    sums [n_parts, n, VECTORS, 4] are written too.
    """
    features = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = tl.program_id(1)
    halves = part * HALVES + tl.arange(0, HALVES)
    vectors = tl.arange(0, VECTORS)[:, None]
    inside = features < n_in
    dtype: tl.constexpr = out.dtype.element_ty
    start = tl.load(offsets + features, mask=inside, other=0)
    count = tl.load(offsets + features + 1, mask=inside, other=0) - start
    if C_TANGENTS:
        a = load_values(inputs, features, inside, halves, batch, 0, dtype, PACKED=False)
        a = a[None, :, :, :]
        tangent_a = load_tangents(input_tangents, features, inside, halves, batch, VECTORS)
    total = tl.zeros((VECTORS, HALVES, BLOCK, 32), dtype)
    for step in range(tl.max(count, axis=0)):
        wanted = step < count
        reader = tl.load(readers + start + step, mask=wanted, other=0)
        partner = tl.load(partners + start + step, mask=wanted, other=0)
        gates = reader >> 1
        slots = reader & 1
        row = gates // gates_per_delta
        d = load_values(delta, row, wanted, halves, batch, 0, dtype, PACKED=False)
        d = d[None, :, :, :]
        tangent_d = load_tangents(delta_tangents, row, wanted, halves, batch, VECTORS)
        b = load_values(inputs, partner, wanted, halves, batch, 0, dtype, PACKED=False)
        tangent_b = load_tangents(input_tangents, partner, wanted, halves, batch, VECTORS)
        at = coefficients + gates.to(tl.int64) * 4
        own = tl.load(at + 1 + slots, mask=wanted, other=0.0)[None, :, None]
        both = tl.load(at + 3, mask=wanted, other=0.0)[None, :, None]
        slope = (own + both * b)[None, :, :, :]
        b = b[None, :, :, :]
        slope_tangent = both[None, :, :, :] * tangent_b
        if C_TANGENTS:
            at = c_tangents + (gates.to(tl.int64)[None, :] * VECTORS + vectors) * 4
            tangent_own = tl.load(at + 1 + slots[None, :], mask=wanted[None, :], other=0.0)
            tangent_both = tl.load(at + 3, mask=wanted[None, :], other=0.0)
            slope_tangent += tangent_own[:, None, :, None] + tangent_both[:, None, :, None] * b
        total += tangent_d * slope + d * slope_tangent
        if C_TANGENTS:
            by_a = tangent_d * a + d * tangent_a
            _store_sums(
                sums + part * tl.cast(n, tl.int64) * (VECTORS * 4),
                gates,
                wanted & (slots == 0),
                tangent_d,
                by_a,
                tangent_d * b + d * tangent_b,
                by_a * b + d * a * tangent_b,
                VECTORS,
            )
    store_tangents(out, features, inside, halves, batch, total, VECTORS)


def backward_tangent_sums(inputs: Inputs, delta_tangents: Delta) -> Tensor:
    """Return the tangents of the four sums in parts, [n_parts, n, k, 4]; the inputs have none.

    Args:
        inputs: of the layer.
        delta_tangents: rows [n_rows, k, batch].
    """
    rows, batch = inputs.rows, inputs.batch
    delta_rows = delta_tangents.rows
    vectors = delta_rows.shape[1]
    block, halves = tile_of(delta_rows.itemsize, batch, vectors)
    n_parts = cdiv(batch, halves * HALF_BITS)
    sums = torch.empty(
        n_parts, inputs.n, vectors, 4, dtype=delta_rows.dtype, device=delta_rows.device
    )
    arrays = (sums, delta_rows, rows, inputs.wiring)
    sizes = (inputs.n, delta_tangents.gates_per_row, batch, rows.shape[1])
    grid = (cdiv(inputs.n, block), n_parts)
    launch(
        tangent_backward_sums,
        grid,
        *arrays,
        *sizes,
        PACKED=inputs.packed,
        VECTORS=vectors,
        BLOCK=block,
        HALVES=halves,
    )
    return sums


def backward_tangents(
    inputs: Inputs,
    tangents: Tensor,
    delta: Delta,
    delta_tangents: Delta,
    coefficients: Tensor,
    c_tangents: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the tangents of the input gradients [n_in, k, batch] and of the sums [n_parts, n, k, 4].

    Args:
        inputs: of the layer, floats.
        tangents: of its inputs, [n_in, k, batch].
        delta: gradient of its outputs.
        delta_tangents: of that, rows [n_rows, k, batch], as many gates a row.
        coefficients: [n, 4].
        c_tangents: ċ [n, k, 4]; None is zero, and leaves the sums out: an empty tensor stands for them.
    """
    consumers, batch = inputs.consumers, inputs.batch
    assert not inputs.packed
    assert delta.gates_per_row == delta_tangents.gates_per_row
    vectors = tangents.shape[1]
    size = TILE_BYTES if c_tangents is None else SUMMED_BYTES
    block, halves = tile_of(tangents.itemsize, batch, vectors, size=size)
    n_parts = cdiv(batch, halves * HALF_BITS)
    out = torch.empty_like(tangents)
    n_sums = inputs.n if c_tangents is not None else 0
    sums = torch.empty(n_parts, n_sums, vectors, 4, dtype=out.dtype, device=out.device)
    arrays = (
        out,
        sums,
        delta.rows,
        delta_tangents.rows,
        inputs.values,
        tangents,
        coefficients,
        coefficients if c_tangents is None else c_tangents,
        consumers.offsets,
        consumers.readers,
        consumers.partners,
    )
    sizes = (consumers.n_in, inputs.n, delta.gates_per_row, batch)
    grid = (cdiv(consumers.n_in, block), n_parts)
    launch(
        tangent_backward_inputs,
        grid,
        *arrays,
        *sizes,
        C_TANGENTS=c_tangents is not None,
        VECTORS=vectors,
        BLOCK=block,
        HALVES=halves,
    )
    return out, sums
