"""Gates forward, on packed bits and on floats, and the group sum.

A packed gate is its algebraic normal form, ``m0 ^ (m1 & a) ^ (m2 & b) ^ (m3 & a & b)``, 64 samples
at a time; a float gate is ``c0 + c1·a + c2·b + c3·ab``. Rows are features, so a gather of inputs
reads whole rows.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.kernels.cuda.bits import HALF_BITS, as_halves, halves_per_program
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch, power_of_two

ELEMENTS: Final = 2048
"""Values that one program holds, 16 a thread."""
GATES_SUMMED: Final = 256
"""Gates that one program of the group sum adds up."""


@triton.jit
def load_values(
    inputs, rows, inside, halves, batch, n_halves, dtype: tl.constexpr, PACKED: tl.constexpr
):
    """Return rows of inputs [n_in, batch] as [halves, rows, 32]; 0 outside.

    Halves come first so that a thread holds the same samples of a row in every half: a warp then
    reads four rows of 128 bytes, and a sum over the batch is over registers first.

    ``inputs`` are int32 halves [n_in, n_halves] if PACKED, else floats.
    """
    lanes = tl.arange(0, 32)
    if PACKED:
        wanted = inside[None, :] & (halves < n_halves)[:, None]
        at = rows.to(tl.int64)[None, :] * n_halves + halves[:, None]
        packed = tl.load(inputs + at, mask=wanted, other=0)
        values = ((packed[:, :, None] >> lanes[None, None, :]) & 1).to(dtype)
    else:
        samples = (halves[:, None] * 32 + lanes[None, :])[:, None, :]
        wanted = inside[None, :, None] & (samples < batch)
        at = rows.to(tl.int64)[None, :, None] * batch + samples
        values = tl.load(inputs + at, mask=wanted, other=0.0).to(dtype)
    return values


@triton.jit
def load_pair(inputs, wiring, n, tile, n_halves, dtype: tl.constexpr, PACKED: tl.constexpr):
    """Return the two inputs of some gates as :func:`load_values` does, and which rows they are.

    ``wiring`` is [2, n]; ``tile`` is which gates, which of them there are, halves and the batch.
    """
    gates, inside, halves, batch = tile
    row_a = tl.load(wiring + gates, mask=inside, other=0)
    row_b = tl.load(wiring + tl.cast(n, tl.int64) + gates, mask=inside, other=0)
    a = load_values(inputs, row_a, inside, halves, batch, n_halves, dtype, PACKED)
    b = load_values(inputs, row_b, inside, halves, batch, n_halves, dtype, PACKED)
    return a, b, (row_a, row_b)


@triton.jit
def store_values(out, rows, inside, halves, batch, values):
    """Write [halves, rows, 32] to rows of out [n, batch]."""
    samples = (halves[:, None] * 32 + tl.arange(0, 32)[None, :])[:, None, :]
    wanted = inside[None, :, None] & (samples < batch)
    tl.store(out + rows.to(tl.int64)[None, :, None] * batch + samples, values, mask=wanted)


@triton.jit
def gate_forward_packed(
    out, words, wiring, gates, n, n_words, BLOCK: tl.constexpr, WORDS: tl.constexpr
):
    """Write the outputs of discrete gates [n] on int64 words: [n_in, n_words] -> [n, n_words]."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    inside = rows < n
    gate = tl.load(gates + rows, mask=inside, other=0).to(tl.int64)
    row_a = tl.load(wiring + rows, mask=inside, other=0).to(tl.int64)
    row_b = tl.load(wiring + tl.cast(n, tl.int64) + rows, mask=inside, other=0).to(tl.int64)
    wanted = inside[:, None] & (columns < n_words)[None, :]
    a = tl.load(words + row_a[:, None] * n_words + columns[None, :], mask=wanted, other=0)
    b = tl.load(words + row_b[:, None] * n_words + columns[None, :], mask=wanted, other=0)
    g00 = gate >> 3
    g01 = gate >> 2
    g10 = gate >> 1
    m0 = -(g00 & 1)[:, None]
    m1 = -((g00 ^ g10) & 1)[:, None]
    m2 = -((g00 ^ g01) & 1)[:, None]
    m3 = -((g00 ^ g01 ^ g10 ^ gate) & 1)[:, None]
    y = m0 ^ (m1 & a) ^ ((m2 ^ (m3 & a)) & b)
    tl.store(out + rows.to(tl.int64)[:, None] * n_words + columns[None, :], y, mask=wanted)


@triton.jit
def gate_forward_float(
    out,  # [n, batch]
    inputs,  # [n_in, batch], or halves [n_in, n_halves] if PACKED
    wiring,  # [2, n]
    coefficients,  # [n, 4]
    n,
    batch,
    n_halves,
    PACKED: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Write ``c0 + c1·a + c2·b + c3·ab`` [n, batch] for coefficients [n, 4]."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    halves = tl.program_id(1) * HALVES + tl.arange(0, HALVES)
    inside = rows < n
    dtype = out.dtype.element_ty
    tile = (rows, inside, halves, batch)
    a, b, _ = load_pair(inputs, wiring, n, tile, n_halves, dtype, PACKED)
    at = coefficients + rows.to(tl.int64) * 4
    c0 = tl.load(at, mask=inside, other=0.0)[None, :, None]
    c1 = tl.load(at + 1, mask=inside, other=0.0)[None, :, None]
    c2 = tl.load(at + 2, mask=inside, other=0.0)[None, :, None]
    c3 = tl.load(at + 3, mask=inside, other=0.0)[None, :, None]
    store_values(out, rows, inside, halves, batch, (c0 + c1 * a) + (c2 + c3 * a) * b)


@triton.jit
def group_sum_parts(
    out,  # [n_parts, n_groups, batch]
    values,  # [n, batch], or halves [n, n_halves] if PACKED
    group_size,
    batch,
    n_halves,
    PACKED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Write the sums over ROWS neighbouring gates of a group: [n_parts, n_groups, batch].

    Bits are counted in int32, floats added in their own dtype.
    """
    part = tl.program_id(0)
    group = tl.program_id(1)
    halves = tl.program_id(2) * HALVES + tl.arange(0, HALVES)
    dtype = out.dtype.element_ty
    total = tl.zeros((HALVES, BLOCK, 32), dtype)
    first = tl.cast(group, tl.int64) * group_size
    for start in range(0, ROWS, BLOCK):
        place = part * ROWS + start + tl.arange(0, BLOCK)
        total += load_values(
            values, first + place, place < group_size, halves, batch, n_halves, dtype, PACKED
        )
    samples = halves[:, None] * 32 + tl.arange(0, 32)[None, :]
    at = (part * tl.cast(tl.num_programs(1), tl.int64) + group) * batch + samples
    tl.store(out + at, tl.sum(total, axis=1), mask=samples < batch)


@triton.jit
def group_sum_total(out, parts, n_parts, n_groups, batch, group_tau, BLOCK: tl.constexpr):
    """Write the sum of the parts over group_tau, batch-major: [batch, n_groups]."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    size = n_groups * batch
    total = tl.zeros((BLOCK,), parts.dtype.element_ty)
    for part in range(n_parts):
        at = part * tl.cast(size, tl.int64) + place
        total += tl.load(parts + at, mask=place < size, other=0)
    group = place // batch
    sample = place % batch
    result = tl.div_rn(total.to(tl.float32), tl.cast(group_tau, tl.float32))
    tl.store(out + sample.to(tl.int64) * n_groups + group, result, mask=place < size)


def gates_forward_packed(words: Tensor, wiring: Tensor, gates: Tensor) -> Tensor:
    """Return discrete outputs int64 [n_out, n_words] for words [n_in, n_words].

    Args:
        words: int64.
        wiring: int64 or int32 [2, n_out].
        gates: any integer dtype [n_out].
    """
    n, n_words = wiring.shape[1], words.shape[1]
    out = torch.empty(n, n_words, dtype=torch.int64, device=words.device)
    columns = min(16, power_of_two(max(1, n_words)))
    block = 512 // columns
    grid = (cdiv(n, block), cdiv(n_words, columns))
    launch(
        gate_forward_packed,
        grid,
        out,
        words.contiguous(),
        wiring.contiguous(),
        gates,
        n,
        n_words,
        BLOCK=block,
        WORDS=columns,
    )
    return out


def gates_forward_float(inputs: Tensor, wiring: Tensor, coefficients: Tensor, batch: int) -> Tensor:
    """Return [n_out, batch] in the dtype of the coefficients [n_out, 4].

    Args:
        inputs: floats [n_in, batch], or packed int64 words [n_in, n_words].
        wiring: int64 or int32 [2, n_out].
        coefficients: [n_out, 4].
        batch: number of samples.
    """
    n = wiring.shape[1]
    packed = inputs.dtype == torch.int64
    rows = as_halves(inputs) if packed else inputs.contiguous()
    out = torch.empty(n, batch, dtype=coefficients.dtype, device=inputs.device)
    halves = halves_per_program(batch, 8)
    block = ELEMENTS // (halves * HALF_BITS)
    arrays = (out, rows, wiring.contiguous(), coefficients.contiguous())
    sizes = (n, batch, rows.shape[1])
    grid = (cdiv(n, block), cdiv(batch, halves * HALF_BITS))
    launch(gate_forward_float, grid, *arrays, *sizes, PACKED=packed, BLOCK=block, HALVES=halves)
    return out


def group_sums(values: Tensor, n_groups: int, group_tau: float, batch: int) -> Tensor:
    """Return the sums over contiguous blocks of features over group_tau, float32 [batch, n_groups].

    Args:
        values: float32 [n, batch], or packed int64 words [n, n_words], whose bits are counted.
        n_groups: divides n.
        group_tau: above zero.
        batch: number of samples.
    """
    parts = group_parts(values, n_groups, batch)
    out = torch.empty(batch, n_groups, dtype=torch.float32, device=values.device)
    block = 256
    grid = (cdiv(n_groups * batch, block),)
    arguments = (parts.shape[0], n_groups, batch, group_tau)
    launch(group_sum_total, grid, out, parts, *arguments, BLOCK=block)
    return out


def group_counts(words: Tensor, n_groups: int, batch: int) -> Tensor:
    """Return how many bits of each group are set, int32 [batch, n_groups]; see :func:`group_sums`."""
    return group_parts(words, n_groups, batch).sum(0, dtype=torch.int32).T


def group_parts(values: Tensor, n_groups: int, batch: int) -> Tensor:
    """Return the sums over stretches of each group, [n_parts, n_groups, batch]; see :func:`group_sums`.

    Floats of any dtype are added in it.
    """
    group_size = values.shape[0] // n_groups
    packed = values.dtype == torch.int64
    rows = as_halves(values) if packed else values
    n_parts = cdiv(group_size, GATES_SUMMED)
    dtype = torch.int32 if packed else values.dtype
    parts = torch.empty(n_parts, n_groups, batch, dtype=dtype, device=values.device)
    halves = halves_per_program(batch, 8)
    arrays = (parts, rows)
    sizes = (group_size, batch, rows.shape[1])
    grid = (n_parts, n_groups, cdiv(batch, halves * HALF_BITS))
    launch(
        group_sum_parts,
        grid,
        *arrays,
        *sizes,
        PACKED=packed,
        ROWS=GATES_SUMMED,
        BLOCK=ELEMENTS // (halves * HALF_BITS),
        HALVES=halves,
    )
    return parts
