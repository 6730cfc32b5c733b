"""Gates backward: the four sums of every gate, and the gradient of every input.

For a gate with output gradient δ the 16 weights need only Σδ, Σδa, Σδb and Σδab over the batch. The
gradient of an input adds ``δ·(c1 + c3·b)`` over the gates that read it as A and ``δ·(c2 + c3·a)``
over those that read it as B. One kernel does both: it visits every gate as a reader of its A input,
where it has δ, a and b at hand.

δ is float32, bfloat16 or float64; sums are in float32 (float64 for float64). Everything is added in a
fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.kernels.cuda.bits import HALF_BITS, as_halves, halves_per_program
from lgn_analysis.kernels.cuda.forward import load_pair, load_values, store_values
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch
from lgn_analysis.kernels.cuda.runtime.layout import Consumers

ELEMENTS: Final = 2048
"""Values that one program holds, 16 a thread."""


@triton.jit
def _over_batch(values):
    """Return [halves, rows, 32] summed over the batch, [rows]."""
    return tl.sum(tl.sum(values, axis=0), axis=1)


@triton.jit
def _store_sums(sums, gates, wanted, delta, a, b):
    """Write Σδ, Σδa, Σδb and Σδab of the batch at hand to sums [n, 4]."""
    delta_a = delta * a
    even = tl.join(_over_batch(delta), _over_batch(delta * b))
    odd = tl.join(_over_batch(delta_a), _over_batch(delta_a * b))
    four = tl.reshape(tl.join(even, odd), (gates.shape[0], 4))
    at = gates.to(tl.int64)[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(sums + at, four, mask=wanted[:, None])


@triton.jit
def gate_backward_sums(
    sums,  # [n_parts, n, 4]
    delta,  # [n_rows, batch]
    inputs,  # [n_in, batch], or halves [n_in, n_halves] if PACKED
    wiring,  # [2, n]
    n,
    gates_per_delta,
    batch,
    n_halves,
    PACKED: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Write the four sums [n_parts, n, 4] of every gate; part p is the p-th slice of the batch.

    Gate g has the gradient of row ``g // gates_per_delta`` of delta [n_rows, batch].
    """
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = tl.program_id(1)
    halves = part * HALVES + tl.arange(0, HALVES)
    inside = gates < n
    dtype = sums.dtype.element_ty
    tile = (gates, inside, halves, batch)
    a, b, _ = load_pair(inputs, wiring, n, tile, n_halves, dtype, PACKED)
    d = load_values(
        delta, gates // gates_per_delta, inside, halves, batch, n_halves, dtype, PACKED=False
    )
    _store_sums(sums + part * tl.cast(n, tl.int64) * 4, gates, inside, d, a, b)


@triton.jit
def _slopes(gates, slots, wanted, table, HARD: tl.constexpr):
    """Return how a gate's output moves with one input, where the other is 0 and where it is 1.

    ``table`` holds gate numbers [n] if HARD, else coefficients [n, 4].
    """
    if HARD:
        gate = tl.load(table + gates, mask=wanted, other=0).to(tl.int32)
        g00 = (gate >> 3) & 1
        g01 = (gate >> 2) & 1
        g10 = (gate >> 1) & 1
        g11 = gate & 1
        at_0 = tl.where(slots == 0, g10, g01) - g00
        at_1 = g11 - tl.where(slots == 0, g01, g10)
        return at_0.to(tl.float32), at_1.to(tl.float32)
    else:
        row = table + gates.to(tl.int64) * 4
        own = tl.load(row + 1 + slots, mask=wanted, other=0.0)
        return own, own + tl.load(row + 3, mask=wanted, other=0.0)


@triton.jit
def gate_backward_inputs(
    out,  # [n_in, batch]
    sums,  # [n_parts, n, 4]
    delta,  # [n_rows, batch]
    inputs,  # [n_in, batch], or halves [n_in, n_halves] if PACKED
    table,  # gates [n] if HARD, else coefficients [n, 4]
    offsets,  # [n_in + 1]
    readers,  # [2 · n]
    partners,  # [2 · n]
    n_in,
    n,
    gates_per_delta,
    batch,
    n_halves,
    factor,
    PACKED: tl.constexpr,
    HARD: tl.constexpr,
    SUMS: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Write ``factor`` times the gradient of the inputs [n_in, batch], and the four sums if SUMS.

    The readers of a feature are added in the order of their list. A gate that does not depend on
    the feature is skipped unless its sums are due.
    """
    features = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = tl.program_id(1)
    halves = part * HALVES + tl.arange(0, HALVES)
    inside = features < n_in
    start = tl.load(offsets + features, mask=inside, other=0)
    count = tl.load(offsets + features + 1, mask=inside, other=0) - start
    own = tl.zeros((HALVES, BLOCK, 32), DTYPE)
    if SUMS:
        own = load_values(inputs, features, inside, halves, batch, n_halves, DTYPE, PACKED)
    total = tl.zeros((HALVES, BLOCK, 32), DTYPE)
    for step in range(tl.max(count, axis=0)):
        wanted = step < count
        reader = tl.load(readers + start + step, mask=wanted, other=0)
        partner = tl.load(partners + start + step, mask=wanted, other=0)
        gates = reader >> 1
        slots = reader & 1
        at_0, at_1 = _slopes(gates, slots, wanted, table, HARD)
        varies = wanted & ((at_0 != 0) | (at_1 != 0))
        if SUMS:
            due = wanted & (slots == 0)
            varies = varies | due
        d = load_values(
            delta, gates // gates_per_delta, varies, halves, batch, n_halves, DTYPE, PACKED=False
        )
        other = load_values(inputs, partner, varies, halves, batch, n_halves, DTYPE, PACKED)
        if PACKED:
            slope = tl.where(other != 0, at_1[None, :, None], at_0[None, :, None])
        else:
            slope = at_0[None, :, None] + (at_1 - at_0)[None, :, None] * other
        total += d * slope
        if SUMS:
            _store_sums(sums + part * tl.cast(n, tl.int64) * 4, gates, due, d, own, other)
    store_values(out, features, inside, halves, batch, total * factor)


@dataclass(frozen=True)
class Delta:
    """The gradient of a layer's outputs: gate g has row ``g // gates_per_row``.

    Attributes:
        rows: [n_rows, batch].
        gates_per_row: 1, or the size of a group, whose gates share the gradient of their sum.
    """

    rows: Tensor
    gates_per_row: int = 1


def tile_of(itemsize: int, batch: int) -> tuple[int, int]:
    """Return rows and halves of a program, for the narrowest of its gradients.

    With 16-byte accesses a warp spans ``16 / itemsize`` rows of 32 samples, so that four warps have
    a row each of their own and sums over the batch need not leave a warp.
    """
    rows = 64 // itemsize
    return rows, halves_per_program(batch, ELEMENTS // (rows * HALF_BITS))


def backward_sums(delta: Delta, inputs: Tensor, wiring: Tensor, batch: int) -> Tensor:
    """Return Σδ, Σδa, Σδb and Σδab in parts, [n_parts, n_out, 4].

    Args:
        delta: gradient of the outputs.
        inputs: floats [n_in, batch], or packed int64 words [n_in, n_words].
        wiring: int64 or int32 [2, n_out].
        batch: number of samples.
    """
    n = wiring.shape[1]
    packed = inputs.dtype == torch.int64
    rows = as_halves(inputs) if packed else inputs.contiguous()
    block, halves = tile_of(delta.rows.dtype.itemsize, batch)
    n_parts = cdiv(batch, halves * HALF_BITS)
    sums = torch.empty(n_parts, n, 4, dtype=_sum_dtype(delta), device=inputs.device)
    arrays = (sums, delta.rows, rows, wiring.contiguous())
    sizes = (n, delta.gates_per_row, batch, rows.shape[1])
    grid = (cdiv(n, block), n_parts)
    launch(gate_backward_sums, grid, *arrays, *sizes, PACKED=packed, BLOCK=block, HALVES=halves)
    return sums


def backward_inputs(
    delta: Delta,
    inputs: Tensor,
    table: Tensor,
    consumers: Consumers,
    batch: int,
    *,
    out_dtype: torch.dtype,
    factor: float = 1.0,
    sums: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the inputs [n_in, batch] and the four sums [n_parts, n_out, 4].

    Args:
        delta: gradient of the outputs.
        inputs: floats [n_in, batch], or packed int64 words [n_in, n_words].
        table: gate numbers uint8 [n_out], or coefficients [n_out, 4].
        consumers: the wiring, turned round.
        batch: number of samples.
        out_dtype: dtype of the input gradient.
        factor: multiplies the input gradient.
        sums: False leaves the sums out and returns an empty tensor for them.
    """
    n = consumers.wiring.shape[1]
    packed = inputs.dtype == torch.int64
    rows = as_halves(inputs) if packed else inputs.contiguous()
    dtype = _sum_dtype(delta)
    block, halves = tile_of(min(delta.rows.dtype.itemsize, out_dtype.itemsize), batch)
    n_parts = cdiv(batch, halves * HALF_BITS)
    device = inputs.device
    out = torch.empty(consumers.n_in, batch, dtype=out_dtype, device=device)
    four = torch.empty(n_parts, n if sums else 0, 4, dtype=dtype, device=device)
    arrays = (
        out,
        four,
        delta.rows,
        rows,
        table,
        consumers.offsets,
        consumers.readers,
        consumers.partners,
    )
    sizes = (consumers.n_in, n, delta.gates_per_row, batch, rows.shape[1], factor)
    grid = (cdiv(consumers.n_in, block), n_parts)
    launch(
        gate_backward_inputs,
        grid,
        *arrays,
        *sizes,
        PACKED=packed,
        HARD=table.dtype == torch.uint8,
        SUMS=sums,
        DTYPE=_TRITON_DTYPES[dtype],
        BLOCK=block,
        HALVES=halves,
    )
    return out, four


_TRITON_DTYPES: Final[dict[torch.dtype, Any]] = {
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}


def _sum_dtype(delta: Delta) -> torch.dtype:
    return torch.float64 if delta.rows.dtype == torch.float64 else torch.float32
