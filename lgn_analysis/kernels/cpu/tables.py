"""From four numbers a gate to its truth table, and back: parametrisations other than sixteen logits.

What :mod:`lgn_analysis.kernels.cpu.logits` is for sixteen logits. In the place of gate weights stand the
slopes ∂s/∂θ of the four relaxed entries s: a gradient needs nothing else.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lgn_analysis.gates.parametrisations import GATES16, Light, LightSigmoid, Walsh
from lgn_analysis.kernels.cpu.noise import exp, logistic, philox_pair
from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.simd import (
    as_floats,
    as_ints,
    at,
    floats,
    fma,
    four,
    lane,
    load,
    maximum,
    put,
    select,
    store,
)

N_ENTRIES: Final = 4
TILE: Final = 64
"""Gates that go through the stages together, while what they need is in the nearest cache."""

SIXTEEN: Final = 0
SINE: Final = 1
SIGMOID: Final = 2
WALSH: Final = 3
LAWS: Final = {GATES16: SIXTEEN, Light.name: SINE, LightSigmoid.name: SIGMOID, Walsh.name: WALSH}
"""Number of a parametrisation in the kernels."""

_INVERSE_PI: Final = 0.3183098861837907
_SHIFTER: Final = 12582912.0  # 1.5 · 2**23: adding it leaves the nearest integer in the low bits
# π in three parts, the first two of few bits, so that products with small integers are exact.
_PI_HIGH: Final = 3.140625
_PI_MIDDLE: Final = 9.67502593994140625e-4
_PI_LOW: Final = 1.509957990978376432e-7
_HALF_PI: Final = 1.57079637050628662109375
_HALF_PI_REST: Final = -4.37113900018624283e-8


@device
def _sine_near_zero(r):
    """Return sin r of float32 lanes in ±π/2: Taylor's series to r¹¹, within 6e-8."""
    square = r * r
    p = fma(square, -2.505210838544172e-8, 2.7557319223985893e-6)
    p = fma(square, p, -1.984126984126984e-4)
    p = fma(square, p, 8.333333333333333e-3)
    p = fma(square, p, -0.16666666666666666)
    return fma(square * r, p, r)


@device
def sine_and_cosine(x):
    """Return sin x and cos x of float32 lanes, within 2e-7 for abs(x) below 1000; NaN of NaN."""
    shifted = fma(x, _INVERSE_PI, _SHIFTER)
    n = shifted - _SHIFTER
    r = fma(n, -_PI_LOW, fma(n, -_PI_MIDDLE, fma(n, -_PI_HIGH, x)))
    sign = as_ints(shifted) << 31  # an odd multiple of π turns both
    to_edge = (_HALF_PI - maximum(r, 0.0 - r)) + _HALF_PI_REST
    sine, cosine = _sine_near_zero(r), _sine_near_zero(to_edge)
    return as_floats(as_ints(sine) ^ sign), as_floats(as_ints(cosine) ^ sign)


@device
def _sine_entries(theta, noise, noisy):
    """Return s and ∂s/∂θ for ω = ½ + ½ sin θ: s = ω e^l / (ω e^l + 1 − ω)."""
    sine, cosine = sine_and_cosine(theta)
    one, slope = fma(sine, 0.5, 0.5), cosine * np.float32(0.5)
    if noisy:
        raised = exp(noise)
        inverse = 1.0 / fma(one, raised, 1.0 - one)
        one = one * raised * inverse
        slope = slope * (raised * inverse) * inverse
    return one, slope


@device
def _sigmoid_entries(theta, noise, noisy, inverse_tau):
    """Return s and ∂s/∂θ for s = σ((θ + l) / tau)."""
    x = theta * inverse_tau
    if noisy:
        x = (theta + noise) * inverse_tau
    raised = exp(0.0 - maximum(x, 0.0 - x))  # at most 1
    inverse = 1.0 / (raised + 1.0)
    one = select(x > 0.0, inverse, raised * inverse)
    return one, raised * inverse * inverse * inverse_tau


@device
def select_tables(address, n_gates, within, gate, layer, rule, activations, scratch):
    """Choose a tile of gates of one layer.

    Args:
        address: the layer's parameters float32 [width, 4].
        n_gates: gates of the tile, at most 64.
        within: the first of them, in the layer.
        gate: the same, numbered through the network.
        layer: the layer.
        rule: how.
        activations: weights (slopes here), gates and coefficients are written; the last where they are
            not empty.
        scratch: from :func:`lgn_analysis.kernels.cpu.logits.make_scratch`.
    """
    slopes, gates, coefficients = activations.weights, activations.gates, activations.coefficients
    shift = within % 4
    if rule.noisy:
        _draw_noise(within - shift, n_gates + shift, rule, rule.first_layer + layer, scratch)
    inverse_tau = np.float32(1.0 / rule.taus[layer])
    for i in range(n_gates):
        theta = load(address, (within + i) * N_ENTRIES, 4)
        if rule.law == WALSH:
            theta = _minus_transform(lane(theta, 0), lane(theta, 1), lane(theta, 2), lane(theta, 3))
        noise = floats(0.0, 4)
        if rule.noisy:
            noise = load(scratch.rows, (shift + i) * N_ENTRIES, 4)
        if rule.law == SINE:
            one, slope = _sine_entries(theta, noise, rule.noisy)
        else:
            one, slope = _sigmoid_entries(theta, noise, rule.noisy, inverse_tau)
        store(slopes, (gate + i) * N_ENTRIES, slope)
        e00, e01, e10, e11 = lane(one, 0), lane(one, 1), lane(one, 2), lane(one, 3)
        b00, b01, b10, b11 = e00 > 0.5, e01 > 0.5, e10 > 0.5, e11 > 0.5
        put(gates, gate + i, np.uint8(8 * b00 + 4 * b01 + 2 * b10 + b11))
        if len(coefficients) > 0:
            if rule.hard:
                e00, e01 = np.float32(b00), np.float32(b01)
                e10, e11 = np.float32(b10), np.float32(b11)
            of_gate = four(e00, e10 - e00, e01 - e00, (e00 - e01) - (e10 - e11))
            store(coefficients, (gate + i) * 4, of_gate)


@device
def _minus_transform(a, b, c, d):
    """Return −H (a, b, c, d), H the Walsh-Hadamard matrix, symmetric."""
    return four(0.0 - ((a + b) + (c + d)), (b - a) + (d - c), (c + d) - (a + b), (b - a) + (c - d))


@device
def _draw_noise(first, n, rule, layer, scratch):
    """Write the noise of ``n`` gates from ``first`` on, a multiple of 4; a little more to fill vectors."""
    stream, draw = rule.purpose << 24 | layer, rule.draw
    for i in range(0, n, 8):
        # A counter a gate, of which a pair of gates with sixteen options has eight.
        words = philox_pair(
            (first + i) // 4, draw & 0xFFFFFFFF, draw >> 32, stream, rule.seed_low, rule.seed_high
        )
        store(scratch.words, i * N_ENTRIES, words)
    for i in range(0, n, 16):
        store(scratch.rows, i * N_ENTRIES, logistic(load(scratch.words, i * N_ENTRIES, 64)))


@device
def table_gradient(sums, row, slopes, gate, law):
    """Return ∂L/∂θ of a gate, whose sums are at ``row``, as a vector of 4.

    ``∂L/∂ω(a, b)`` are the sums of δ weighted by ``(1 − a)(1 − b)``, ``(1 − a) b``, ``a (1 − b)`` and ``ab``.
    ``law`` is one of :data:`LAWS`.
    """
    d, da = at(sums, 4 * row), at(sums, 4 * row + 1)
    db, dab = at(sums, 4 * row + 2), at(sums, 4 * row + 3)
    of_table = four((d - da) - (db - dab), db - dab, da - dab, dab)
    gradient = of_table * load(slopes, gate * N_ENTRIES, 4)
    if law == WALSH:
        gradient = _minus_transform(
            lane(gradient, 0), lane(gradient, 1), lane(gradient, 2), lane(gradient, 3)
        )
    return gradient
