"""Tangents of gates, forward: several directions share the loads of activations and coefficients.

``ẏ = ċ0 + ċ1·a + ċ2·b + ċ3·ab + (c1 + c3·b)·ȧ + (c2 + c3·a)·ḃ``. The tangents of k directions are one
tensor [n, k, batch], so that a gate reads those of an input as one stretch of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.kernels.cuda.bits import HALF_BITS, as_halves, halves_per_program
from lgn_analysis.kernels.cuda.forward import load_pair
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch
from lgn_analysis.kernels.cuda.runtime.layout import Consumers

TILE_BYTES: Final = 8192
"""Tangents that one program holds, 64 bytes a thread, however many directions share them."""


@triton.jit
def load_tangents(tangents, rows, inside, halves, batch, VECTORS: tl.constexpr):
    """Return rows of tangents [n, VECTORS, batch] as [VECTORS, halves, rows, 32]; 0 outside."""
    samples = (halves[:, None] * 32 + tl.arange(0, 32)[None, :])[None, :, None, :]
    wanted = inside[None, None, :, None] & (samples < batch)
    at = rows.to(tl.int64)[None, :] * VECTORS + tl.arange(0, VECTORS)[:, None]
    return tl.load(tangents + at[:, None, :, None] * batch + samples, mask=wanted, other=0.0)


@triton.jit
def store_tangents(out, rows, inside, halves, batch, values, VECTORS: tl.constexpr):
    """Write [VECTORS, halves, rows, 32] to rows of out [n, VECTORS, batch]."""
    samples = (halves[:, None] * 32 + tl.arange(0, 32)[None, :])[None, :, None, :]
    wanted = inside[None, None, :, None] & (samples < batch)
    at = rows.to(tl.int64)[None, :] * VECTORS + tl.arange(0, VECTORS)[:, None]
    tl.store(out + at[:, None, :, None] * batch + samples, values, mask=wanted)


@triton.jit
def linked_tangents(input_tangents, coefficients, tile, sources, a, b, VECTORS: tl.constexpr):
    """Return ``(c1 + c3·b)·ȧ + (c2 + c3·a)·ḃ``, [VECTORS, halves, rows, 32]; see :func:`load_pair`."""
    rows, inside, halves, batch = tile
    row_a, row_b = sources
    at = coefficients + rows.to(tl.int64) * 4
    c1 = tl.load(at + 1, mask=inside, other=0.0)[None, :, None]
    c2 = tl.load(at + 2, mask=inside, other=0.0)[None, :, None]
    c3 = tl.load(at + 3, mask=inside, other=0.0)[None, :, None]
    of_a = load_tangents(input_tangents, row_a, inside, halves, batch, VECTORS)
    of_b = load_tangents(input_tangents, row_b, inside, halves, batch, VECTORS)
    return (c1 + c3 * b)[None, :, :, :] * of_a + (c2 + c3 * a)[None, :, :, :] * of_b


@triton.jit
def tangent_forward(
    out,  # [n, VECTORS, batch]
    inputs,  # [n_in, batch], or halves [n_in, n_halves] if PACKED
    input_tangents,  # [n_in, VECTORS, batch]
    wiring,  # [2, n]
    coefficients,  # [n, 4]
    c_tangents,  # [n, VECTORS, 4]
    n,
    batch,
    n_halves,
    C_TANGENTS: tl.constexpr,
    LINKED: tl.constexpr,
    PACKED: tl.constexpr,
    VECTORS: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Write ẏ [n, VECTORS, batch].

    C_TANGENTS: the coefficients have tangents, ``c_tangents`` [n, VECTORS, 4]. LINKED: the inputs have.
    """
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    halves = tl.program_id(1) * HALVES + tl.arange(0, HALVES)
    inside = rows < n
    dtype: tl.constexpr = out.dtype.element_ty
    tile = (rows, inside, halves, batch)
    a, b, sources = load_pair(inputs, wiring, n, tile, n_halves, dtype, PACKED)
    total = tl.zeros((VECTORS, HALVES, BLOCK, 32), dtype)
    if C_TANGENTS:
        vectors = rows.to(tl.int64)[None, :] * VECTORS + tl.arange(0, VECTORS)[:, None]
        at = c_tangents + vectors * 4
        wanted = inside[None, :]
        m0 = tl.load(at, mask=wanted, other=0.0)[:, None, :, None]
        m1 = tl.load(at + 1, mask=wanted, other=0.0)[:, None, :, None]
        m2 = tl.load(at + 2, mask=wanted, other=0.0)[:, None, :, None]
        m3 = tl.load(at + 3, mask=wanted, other=0.0)[:, None, :, None]
        total += (m0 + m1 * a[None, :, :, :]) + (m2 + m3 * a[None, :, :, :]) * b[None, :, :, :]
    if LINKED:
        total += linked_tangents(input_tangents, coefficients, tile, sources, a, b, VECTORS)
    store_tangents(out, rows, inside, halves, batch, total, VECTORS)


@dataclass(frozen=True)
class Inputs:
    """What a layer reads.

    Attributes:
        values: floats [n_in, batch], or packed int64 words [n_in, n_words].
        consumers: the wiring, both ways.
        batch: number of samples.
    """

    values: Tensor
    consumers: Consumers
    batch: int

    @property
    def packed(self) -> bool:
        """Whether the values are bits."""
        return self.values.dtype == torch.int64

    @property
    def rows(self) -> Tensor:
        """The values as kernels read them: floats, or int32 halves."""
        return as_halves(self.values) if self.packed else self.values

    @property
    def wiring(self) -> Tensor:
        """int32 [2, n_out]."""
        return self.consumers.wiring

    @property
    def n(self) -> int:
        """Gates of the layer."""
        return self.wiring.shape[1]


def tile_of(itemsize: int, batch: int, vectors: int, *, size: int = TILE_BYTES) -> tuple[int, int]:
    """Return rows and halves of a program with ``size`` bytes of tangents.

    See :func:`lgn_analysis.kernels.cuda.backward.tile_of` for the rows.
    """
    of_one = size // (itemsize * HALF_BITS * vectors)
    rows = min(64 // itemsize, of_one)
    return rows, halves_per_program(batch, of_one // rows)


def forward_tangents(
    inputs: Inputs,
    tangents: Tensor | None,
    coefficients: Tensor,
    c_tangents: Tensor | None,
    vectors: int,
) -> Tensor:
    """Return ẏ [n, vectors, batch] in the dtype of the coefficients.

    Args:
        inputs: of the layer.
        tangents: of its inputs, [n_in, vectors, batch]; None is zero.
        coefficients: [n, 4].
        c_tangents: ċ [n, vectors, 4]; None is zero.
        vectors: 1, 2 or 4 directions.
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
        coefficients if c_tangents is None else c_tangents,
    )
    sizes = (inputs.n, batch, rows.shape[1])
    grid = (cdiv(inputs.n, block), cdiv(batch, halves * HALF_BITS))
    launch(
        tangent_forward,
        grid,
        *arrays,
        *sizes,
        C_TANGENTS=c_tangents is not None,
        LINKED=tangents is not None,
        PACKED=inputs.packed,
        VECTORS=vectors,
        BLOCK=block,
        HALVES=halves,
    )
    return out
