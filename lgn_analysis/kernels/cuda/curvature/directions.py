"""Directions in the logits: what they do to the coefficients, and the product back in the logits.

With p = softmax(z/tau) of a gate, a direction v moves the weights by ``ṗ = p∘(v − Σ_k p_k v_k)/tau``
and the coefficients by ``ċ = ṗ G``. With the four sums S of the gradient, their tangents Ṡ,
``s = S Gᵀ`` and ``ṡ = Ṡ Gᵀ``, the product is

    ``[ṗ∘(s − Σ_k p_k s_k) + p∘(ṡ − Σ_k (ṗ_k s_k + p_k ṡ_k))] / tau``.

All of it in float64, which costs little: a gate has 16 numbers here, and a batch of them elsewhere.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.kernels.cuda.logits import (
    GATES,
    add_parts,
    corners_of,
    load_options,
    options_of,
    store_coefficients,
    store_options,
)
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch


@triton.jit
def _weight_tangents(weights, direction, rate, gates, n, BLOCK: tl.constexpr):
    """Return p and ṗ of a block of gates, four tensors [BLOCK, 4] each."""
    p0, p1, p2, p3 = load_options(weights, gates, n, BLOCK)
    v0, v1, v2, v3 = load_options(direction, gates, n, BLOCK)
    mean = tl.sum((p0 * v0 + p1 * v1) + (p2 * v2 + p3 * v3), axis=1)[:, None]
    m0 = p0 * (v0 - mean) * rate
    m1 = p1 * (v1 - mean) * rate
    m2 = p2 * (v2 - mean) * rate
    m3 = p3 * (v3 - mean) * rate
    return p0, p1, p2, p3, m0, m1, m2, m3


@triton.jit
def direction_coefficients(
    out, weights, directions, rates, n, row_length, VECTORS: tl.constexpr, BLOCK: tl.constexpr
):
    """Write ċ [n, VECTORS, 4] for weights float64 [n, 16]; rates holds 1/tau.

    ``directions`` begins at the layer's logits in the first of rows ``row_length`` apart.
    """
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    vector = tl.program_id(1).to(tl.int64)
    rate = tl.load(rates)
    direction = directions + vector * row_length
    _, _, _, _, m0, m1, m2, m3 = _weight_tangents(weights, direction, rate, gates, n, BLOCK)
    at_00, at_01, at_10, at_11 = corners_of(m0, m1, m2, m3)
    rows = out + (gates.to(tl.int64) * VECTORS + vector) * 4
    store_coefficients(rows, gates < n, at_00, at_01, at_10, at_11)


@triton.jit
def direction_products(
    out,  # [VECTORS, n, 16], rows row_length apart
    weights,  # [n, 16]
    directions,  # [VECTORS, n, 16], rows row_length apart
    rates,  # [1]
    slopes,  # [n, 4]
    sums,  # [n_parts, n, VECTORS, 4]
    n,
    n_parts,
    row_length,
    VECTORS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the products float64, placed as the directions, from S [n, 4] and the parts of Ṡ.

    ``sums`` [n_parts, n, VECTORS, 4] are added in float64, in the order of the parts.
    """
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    vector = tl.program_id(1).to(tl.int64)
    inside = gates < n
    rate = tl.load(rates)
    row = slopes + gates.to(tl.int64) * 4
    s0, s1, s2, s3 = options_of(
        tl.load(row, mask=inside, other=0.0),
        tl.load(row + 1, mask=inside, other=0.0),
        tl.load(row + 2, mask=inside, other=0.0),
        tl.load(row + 3, mask=inside, other=0.0),
    )
    rows = sums + (gates.to(tl.int64) * VECTORS + vector) * 4
    stride = tl.cast(n, tl.int64) * (VECTORS * 4)
    of_1, of_a, of_b, of_ab = add_parts(rows, inside, n_parts, stride, tl.float64, BLOCK)
    t0, t1, t2, t3 = options_of(of_1, of_a, of_b, of_ab)
    direction = directions + vector * row_length
    p0, p1, p2, p3, m0, m1, m2, m3 = _weight_tangents(weights, direction, rate, gates, n, BLOCK)
    mean = tl.sum((p0 * s0 + p1 * s1) + (p2 * s2 + p3 * s3), axis=1)[:, None]
    weighted = (m0 * s0 + p0 * t0) + (m1 * s1 + p1 * t1)
    weighted += (m2 * s2 + p2 * t2) + (m3 * s3 + p3 * t3)
    weighted_mean = tl.sum(weighted, axis=1)[:, None]
    store_options(
        out + vector * row_length,
        gates,
        n,
        (m0 * (s0 - mean) + p0 * (t0 - weighted_mean)) * rate,
        (m1 * (s1 - mean) + p1 * (t1 - weighted_mean)) * rate,
        (m2 * (s2 - mean) + p2 * (t2 - weighted_mean)) * rate,
        (m3 * (s3 - mean) + p3 * (t3 - weighted_mean)) * rate,
        BLOCK,
    )


def coefficient_tangents(
    weights: Tensor, rows: Tensor, rates: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return ċ [n, k, 4] for k directions.

    Args:
        weights: softmax(z/tau) float64 [n, 16].
        rows: float64 [k, 16·n], a layer's columns of the contiguous directions.
        rates: 1/tau, float64 [1].
        dtype: of the result.
    """
    n, k = weights.shape[0], rows.shape[0]
    out = torch.empty(n, k, 4, dtype=dtype, device=weights.device)
    arrays = (out, weights, rows, rates)
    sizes = (n, rows.stride(0))
    launch(direction_coefficients, (cdiv(n, GATES), k), *arrays, *sizes, VECTORS=k, BLOCK=GATES)
    return out


def write_products(
    out: Tensor, weights: Tensor, rows: Tensor, rates: Tensor, slopes: Tensor, sums: Tensor
) -> None:
    """Write ``(∂²L/∂z²) v`` to a layer's columns.

    Args:
        out: float64 [k, 16·n], strided as ``rows``.
        weights: softmax(z/tau) float64 [n, 16].
        rows: float64 [k, 16·n], a layer's columns of the contiguous directions.
        rates: 1/tau, float64 [1].
        slopes: S float64 [n, 4].
        sums: the parts of Ṡ, [n_parts, n, k, 4].
    """
    n, k = weights.shape[0], rows.shape[0]
    assert out.stride() == rows.stride()
    arrays = (out, weights, rows, rates, slopes, sums)
    sizes = (n, sums.shape[0], rows.stride(0))
    launch(direction_products, (cdiv(n, GATES), k), *arrays, *sizes, VECTORS=k, BLOCK=GATES)
