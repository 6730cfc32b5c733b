"""Between logits and coefficients: ċ from ż, and the product in z from that in c."""

from __future__ import annotations

from lgn_analysis.kernels.cpu.logits import N_OPTIONS, to_coefficients
from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import AHEAD
from lgn_analysis.kernels.cpu.simd import (
    at,
    lanes_with,
    load,
    prefetch,
    select,
    store,
    total,
    widen,
)


@device
def weight_tangents(weights, offset, rows, place, tau):
    """Return ṗ = p ∘ (ż − Σ p ż) / tau of one gate."""
    p, z = load(weights, offset, N_OPTIONS), load(rows, place, N_OPTIONS)
    return p * (z - total(p * z)) * (1.0 / tau)


@device
def coefficient_tangents(layout, primal, product, n, first, last):
    """Write ċ of steps ``first``..``last - 1``, zero in layers that are not probed."""
    wires, rows, tau = layout.wires, product.rows, primal.tau
    zero = load(primal.weights, 0, 4) * 0.0
    for step in range(first, last):
        layer = layout.first + step // wires.width
        gate = at(layout.order.gates, layout.first * wires.width + step)
        weight = (layer * wires.width + gate) * N_OPTIONS
        probed = primal.probed[layer]
        ahead = at(layout.order.gates, layout.first * wires.width + step + AHEAD)
        prefetch(primal.weights, (layer * wires.width + ahead) * N_OPTIONS, N_OPTIONS)
        for v in range(n):
            prefetch(rows, _place(primal, wires, v, probed, ahead), N_OPTIONS)
        for v in range(n):
            c_tangent = zero
            if probed >= 0:
                place = _place(primal, wires, v, probed, gate)
                changed = weight_tangents(primal.weights, weight, rows, place, tau)
                c_tangent = to_coefficients(changed, changed * 0.0)
            store(product.c_tangents, 4 * (step * n + v), c_tangent)


@device
def _place(primal, wires, v, probed, gate):
    n_probed = primal.n_probed
    return ((v * n_probed + probed) * wires.width + gate) * N_OPTIONS


@device
def to_weights(four, zero):
    """Return ``G s``, a vector of 16, of four sums ``s``."""
    s, s_a, s_b, s_ab = four
    at_00 = select(lanes_with(8, 16), zero + ((s - s_a) - (s_b - s_ab)), zero)
    at_01 = select(lanes_with(4, 16), zero + (s_b - s_ab), zero)
    at_10 = select(lanes_with(2, 16), zero + (s_a - s_ab), zero)
    at_11 = select(lanes_with(1, 16), zero + s_ab, zero)
    return (at_00 + at_01) + (at_10 + at_11)


@device
def logit_products(layout, primal, product, n, first, last):
    """Write H v of the gates of steps ``first``..``last - 1``, in float64.

    With s = ∂L/∂p and ṡ its change: ``ṗ ∘ (s − Σ p s) + p ∘ (ṡ − Σ (ṗ s + p ṡ))``, over tau.
    """
    wires, rows, tau = layout.wires, product.rows, primal.tau
    sums, products = product.sums, product.products
    n_gates = (wires.depth - layout.first) * wires.width
    for step in range(first, last):
        layer = layout.first + step // wires.width
        probed = primal.probed[layer]
        if probed < 0:
            continue
        gate = at(layout.order.gates, layout.first * wires.width + step)
        weight = (layer * wires.width + gate) * N_OPTIONS
        ahead = at(layout.order.gates, layout.first * wires.width + step + AHEAD)
        prefetch(primal.weights, (layer * wires.width + ahead) * N_OPTIONS, N_OPTIONS)
        for v in range(n):
            place = _place(primal, wires, v, probed, ahead)
            prefetch(rows, place, N_OPTIONS)
            prefetch(products, place, N_OPTIONS)
        p = widen(load(primal.weights, weight, N_OPTIONS))
        slopes = primal.slopes
        four = (
            at(slopes, 4 * step),
            at(slopes, 4 * step + 1),
            at(slopes, 4 * step + 2),
            at(slopes, 4 * step + 3),
        )
        s = to_weights(four, p * 0.0)
        s = s - total(p * s)
        for v in range(n):
            place = _place(primal, wires, v, probed, gate)
            changed = widen(weight_tangents(primal.weights, weight, rows, place, tau))
            change = _summed(sums, layout.n_parts, n_gates * 4 * n, 4 * (step * n + v))
            s_change = to_weights(change, p * 0.0)
            # s less its mean: Σ ṗ is zero, and the sum of ṗ s loses less to rounding.
            mean = total(changed * s + p * s_change)
            store(products, place, (changed * s + p * (s_change - mean)) * (1.0 / tau))


@device
def _summed(sums, n_parts, stride, offset):
    """Return four sums, added up over the parts in their order."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for part in range(n_parts):
        place = part * stride + offset
        s0 += at(sums, place)
        s1 += at(sums, place + 1)
        s2 += at(sums, place + 2)
        s3 += at(sums, place + 3)
    return s0, s1, s2, s3
