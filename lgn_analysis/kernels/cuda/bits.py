"""Bits to packed words and back, and batches out of packed data, on the device.

Words are int64 outside, sample 0 in the lowest bit, as in :func:`lgn_analysis.kernels.reference.pack_bits`.
Inside, a word is two int32 halves, low half first, and a half is 32 samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch, power_of_two

HALF_BITS: Final = 32
FEATURES: Final = 64
"""Features that one program holds."""


@dataclass(frozen=True)
class Batch:
    """The samples of one step, named on the device.

    Attributes:
        order: int64 [n_steps, size], which samples each step takes.
        position: int64 [1], which row of it; a captured step moves it on by itself.
    """

    order: Tensor
    position: Tensor

    @property
    def size(self) -> int:
        """Samples a step."""
        return self.order.shape[1]


@triton.jit
def _tile(n_halves):
    """Return which rows and which half a program has; one axis, as the others end at 65535."""
    place = tl.program_id(0)
    return place // n_halves, place % n_halves


@triton.jit
def pack_rows(out, bits, n, batch, n_halves, feature_stride, sample_stride, BLOCK: tl.constexpr):
    """Write bytes [n, batch] (any strides) as packed halves [n, n_halves]."""
    block, half = _tile(n_halves)
    rows = block * BLOCK + tl.arange(0, BLOCK)
    lanes = tl.arange(0, 32)
    samples = half * 32 + lanes
    inside = (rows < n)[:, None] & (samples < batch)[None, :]
    at = rows.to(tl.int64)[:, None] * feature_stride + samples.to(tl.int64)[None, :] * sample_stride
    values = tl.load(bits + at, mask=inside, other=0)
    packed = tl.sum((values != 0).to(tl.int32) << lanes[None, :], axis=1)
    tl.store(out + rows.to(tl.int64) * n_halves + half, packed, mask=rows < n)


@triton.jit
def unpack_rows(out, halves, n, batch, n_halves, BLOCK: tl.constexpr):
    """Write packed halves [n, n_halves] as bytes [n, batch]."""
    block, half = _tile(n_halves)
    rows = block * BLOCK + tl.arange(0, BLOCK)
    lanes = tl.arange(0, 32)
    samples = half * 32 + lanes
    packed = tl.load(halves + rows.to(tl.int64) * n_halves + half, mask=rows < n, other=0)
    values = ((packed[:, None] >> lanes[None, :]) & 1).to(tl.uint8)
    inside = (rows < n)[:, None] & (samples < batch)[None, :]
    tl.store(out + rows.to(tl.int64)[:, None] * batch + samples[None, :], values, mask=inside)


@triton.jit
def batch_rows(order, position, samples, batch):
    """Return which rows of the data a batch takes: row ``position[0]`` of order [n_steps, batch]."""
    first = tl.load(position) * batch
    return tl.load(order + first + samples, mask=samples < batch, other=0)


@triton.jit
def gather_samples(
    out,  # [n_features, n_halves]
    data,  # [n_samples, data_halves]
    order,  # [n_steps, batch]
    position,  # [1]
    n_features,
    data_halves,
    batch,
    n_halves,
    BLOCK: tl.constexpr,
):
    """Write a batch as packed halves [n_features, n_halves] from samples packed by feature.

    ``data`` [n, data_halves] holds the bits of a sample, feature 0 lowest; see :func:`batch_rows`.
    """
    block, half = _tile(n_halves)
    columns = block * BLOCK + tl.arange(0, BLOCK)
    lanes = tl.arange(0, 32)
    samples = half * 32 + lanes
    rows = batch_rows(order, position, samples, batch)
    inside = (columns < data_halves)[:, None] & (samples < batch)[None, :]
    packed = tl.load(data + rows[None, :] * data_halves + columns[:, None], mask=inside, other=0)
    bits = (packed[:, None, :] >> lanes[None, :, None]) & 1
    turned = tl.sum(bits << lanes[None, None, :], axis=2)
    features = columns[:, None] * 32 + lanes[None, :]
    tl.store(out + features.to(tl.int64) * n_halves + half, turned, mask=features < n_features)


def pack_bits(bits: Tensor) -> Tensor:
    """Return bits [n, batch] packed into int64 words [n, ceil(batch / 64)], sample 0 lowest.

    Any strides, so a batch-major tensor is packed through its transpose without a copy. What is not
    bool counts as set where it is not zero.
    """
    n, batch = bits.shape
    source = bits if bits.dtype == torch.bool else bits != 0
    words = torch.empty(n, cdiv(batch, 64), dtype=torch.int64, device=bits.device)
    halves = as_halves(words)
    arrays = (halves, source.view(torch.uint8))
    sizes = (n, batch, halves.shape[1], source.stride(0), source.stride(1))
    launch(pack_rows, (cdiv(n, FEATURES) * halves.shape[1],), *arrays, *sizes, BLOCK=FEATURES)
    return words


def unpack_bits(words: Tensor, batch: int) -> Tensor:
    """Return int64 [n, n_words] as bool [n, batch]; the inverse of :func:`pack_bits`."""
    n = words.shape[0]
    halves = as_halves(words)
    out = torch.empty(n, batch, dtype=torch.uint8, device=words.device)
    grid = (cdiv(n, FEATURES) * halves.shape[1],)
    launch(unpack_rows, grid, out, halves, n, batch, halves.shape[1], BLOCK=FEATURES)
    return out.view(torch.bool)


def gather_packed(data: Tensor, n_features: int, batch: Batch) -> Tensor:
    """Return a batch of packed samples turned feature-major, int64 [n_features, ceil(batch / 64)].

    Args:
        data: int64 [n, ceil(n_features / 64)], what :func:`pack_bits` makes of bits [n, n_features].
        n_features: number of features.
        batch: which samples.
    """
    shape = (n_features, cdiv(batch.size, 64))
    words = torch.empty(shape, dtype=torch.int64, device=data.device)
    halves, rows = as_halves(words), as_halves(data)
    block = 4
    arrays = (halves, rows, batch.order, batch.position)
    sizes = (n_features, rows.shape[1], batch.size, halves.shape[1])
    grid = (cdiv(rows.shape[1], block) * halves.shape[1],)
    launch(gather_samples, grid, *arrays, *sizes, BLOCK=block)
    return words


def as_halves(words: Tensor) -> Tensor:
    """Return int64 words [n, n_words] as int32 halves [n, 2·n_words], the low half first."""
    return words.contiguous().view(torch.int32)


def halves_per_program(batch: int, at_most: int) -> int:
    """Return how many halves a program takes: a power of two that need not exceed the batch."""
    return min(at_most, power_of_two(max(1, cdiv(batch, HALF_BITS))))
