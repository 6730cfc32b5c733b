"""From logits to gates: noise, argmax, tempered softmax and the 16 → 4 map in one pass; and back."""

from __future__ import annotations

from typing import Final, NamedTuple

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from lgn_analysis.gates.table import COEFFICIENTS
from lgn_analysis.kernels.cpu.noise import exp, gumbel, philox_pair
from lgn_analysis.kernels.cpu.runtime.compiling import device, entry
from lgn_analysis.kernels.cpu.runtime.workers import barrier, shard
from lgn_analysis.kernels.cpu.simd import (
    at,
    first_true,
    floats,
    fma,
    four_totals,
    lanes_with,
    largest,
    load,
    load_like,
    put,
    select,
    sqrt,
    store,
    total,
)
from lgn_analysis.kernels.cpu.tables import N_ENTRIES, SIXTEEN, TILE, select_tables

N_OPTIONS: Final = 16

_COEFFICIENTS: Final = COEFFICIENTS.numpy().astype(np.float32).reshape(-1)


class Rule(NamedTuple):
    """How logits become gates, and which noise is drawn.

    Attributes:
        noisy: whether noise is added.
        hard: whether the forward takes one gate, ``argmax``, rather than a mixture.
        law: what parameters are, of :data:`lgn_analysis.kernels.cpu.tables.LAWS`.
        taus: float64 [depth], gate temperature of each layer; in a run a row for each of its passes.
        seed_low, seed_high: the two words of the noise seed.
        purpose: what the noise is for.
        first_layer: index of the first layer, to which its noise belongs.
        draw: which noise, as an int64; in a run that of its first pass.
    """

    noisy: bool
    hard: bool
    law: int
    taus: NDArray[np.float64]
    seed_low: int
    seed_high: int
    purpose: int
    first_layer: int
    draw: int


@device
def rule_at(rule, turn, depth):
    """Return the rule of one pass of a run: the temperatures of its row, and its draw."""
    return Rule(
        rule.noisy,
        rule.hard,
        rule.law,
        rule.taus[turn * depth : (turn + 1) * depth],
        rule.seed_low,
        rule.seed_high,
        rule.purpose,
        rule.first_layer,
        rule.draw + turn,
    )


@intrinsic
def _as_pointer(typing, address):
    """Return an integer address as a pointer to float32."""
    kind = types.CPointer(types.float32)

    def generate(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64), generate


@device
def floats_at(address, n):
    """Return the n float32 at an address that the caller keeps alive."""
    return numba.carray(_as_pointer(address), (n,))


class Scratch(NamedTuple):
    """What one thread needs to choose a tile of gates.

    Attributes:
        words: int32 [64, 16].
        rows: float32 [64, 16]: noise, then perturbed logits.
        tops: float32 [64]: the largest of each.
    """

    words: NDArray[np.int32]
    rows: NDArray[np.float32]
    tops: NDArray[np.float32]


@device
def make_scratch():
    """Return scratch for :func:`select_gates`."""
    n = TILE * N_OPTIONS
    return Scratch(
        np.empty(n, dtype=np.int32), np.empty(n, dtype=np.float32), np.empty(TILE, dtype=np.float32)
    )


@device
def select_gates(logits, width, span, rule, activations, scratch):
    """Choose gates ``span[0]``..``span[1] - 1``, numbered through the network.

    Args:
        logits: int64 [depth], where each layer's logits float32 [width, 16] lie, or of another law
            [width, 4].
        width: gates a layer.
        span: the range.
        rule: how.
        activations: weights, gates and coefficients are written; the last where they are not empty.
        scratch: from :func:`make_scratch`.
    """
    weights, gates, coefficients = activations.weights, activations.gates, activations.coefficients
    gate, last = span
    while gate < last:
        layer = gate // width
        within = gate - layer * width
        n = min(TILE, min(last - gate, width - within))
        if rule.law != SIXTEEN:
            theta = floats_at(logits[layer], width * N_ENTRIES)
            select_tables(theta, n, within, gate, layer, rule, activations, scratch)
            gate += n
            continue
        z = floats_at(logits[layer], width * N_OPTIONS)
        if rule.noisy:
            _draw_noise(within, n, rule, rule.first_layer + layer, scratch)
        # One pass a stage: a gate alone is a chain of some 300 dependent instructions, and passes
        # let the processor work on many gates at once.
        for i in range(n):
            row = load(z, (within + i) * N_OPTIONS, 16)
            if rule.noisy:
                row = row + load(scratch.rows, i * N_OPTIONS, 16)
            top = largest(row)
            store(scratch.rows, i * N_OPTIONS, row)
            put(scratch.tops, i, top)
            put(gates, gate + i, first_true(row == top))
        inverse = np.float32(1.0 / rule.taus[layer])
        for i in range(n):
            row = load(scratch.rows, i * N_OPTIONS, 16)
            raised = exp((row - at(scratch.tops, i)) * inverse)
            weight = raised * (np.float32(1.0) / total(raised))
            store(weights, (gate + i) * N_OPTIONS, weight)
            if len(coefficients) > 0:
                _write_coefficients(weight, gate + i, rule.hard, gates, coefficients)
        gate += n


@device
def _draw_noise(first, n, rule, layer, scratch):
    """Write the noise of ``n`` gates of a layer; a little more where that fills vectors."""
    stream, draw = rule.purpose << 24 | layer, rule.draw
    for i in range(0, n, 2):
        words = philox_pair(
            first + i, draw & 0xFFFFFFFF, draw >> 32, stream, rule.seed_low, rule.seed_high
        )
        store(scratch.words, i * N_OPTIONS, words)
    for i in range(0, n, 4):
        store(scratch.rows, i * N_OPTIONS, gumbel(load(scratch.words, i * N_OPTIONS, 64)))


@device
def _write_coefficients(weight, gate, hard, gates, coefficients):
    if hard:
        for k in range(4):
            coefficients[gate * 4 + k] = _COEFFICIENTS[gates[gate] * 4 + k]
        return
    store(coefficients, gate * 4, to_coefficients(weight, floats(0.0, 16)))


@device
def to_coefficients(weights, zero):
    """Return ``w G``, a vector of 4, of a gate's sixteen weights; ``zero`` is a vector of zeros like them."""
    # The bits of an option are its truth table: 8 at (0,0), 4 at (0,1), 2 at (1,0), 1 at (1,1).
    at_00 = select(lanes_with(8, 16), weights, zero)
    at_01 = select(lanes_with(4, 16), weights, zero)
    at_10 = select(lanes_with(2, 16), weights, zero)
    at_11 = select(lanes_with(1, 16), weights, zero)
    by_both = (at_00 - at_01) - (at_10 - at_11)
    return four_totals(at_00, at_10 - at_00, at_01 - at_00, by_both)


@entry
def draw_gumbel(worker, rule, layers, n_gates, noise):
    """Write the noise of whole layers: float32 [len(layers), n_gates, 16]."""
    if not barrier(worker):
        return
    scratch = make_scratch()
    first, last = shard(n_gates, worker)
    for place in range(len(layers)):
        for tile in range(first, last, TILE):
            n = min(TILE, last - tile)
            _draw_noise(tile, n, rule, layers[place], scratch)
            for i in range(n):
                offset = (place * n_gates + tile + i) * N_OPTIONS
                store(noise, offset, load(scratch.rows, i * N_OPTIONS, 16))


@device
def logit_gradient(sums, row, weights, gate, tau):
    """Return ∂L/∂z of a gate, whose sums are at ``row``, as a vector of 16.

    ``dw = G · (Σδ, Σδa, Σδb, Σδab)`` and ``dz = s (dw − Σ s dw) / tau``, s the weights.
    """
    zero = floats(0.0, 16)
    d, da = at(sums, 4 * row), at(sums, 4 * row + 1)
    db, dab = at(sums, 4 * row + 2), at(sums, 4 * row + 3)
    at_00 = select(lanes_with(8, 16), floats((d - da) - (db - dab), 16), zero)
    at_01 = select(lanes_with(4, 16), floats(db - dab, 16), zero)
    at_10 = select(lanes_with(2, 16), floats(da - dab, 16), zero)
    at_11 = select(lanes_with(1, 16), floats(dab, 16), zero)
    slope = (at_00 + at_01) + (at_10 + at_11)
    weight = load(weights, gate * N_OPTIONS, 16)
    return weight * (slope - total(weight * slope)) * np.float32(1.0 / tau)


class Adam(NamedTuple):
    """:class:`torch.optim.AdamW` of a network: its constants, and what it moves.

    Attributes:
        beta1, beta2, eps, weight_decay: its constants.
        lrs: float64 [n_steps], the learning rate of each step of a run.
        steps_done: steps before those of a run.
        logits, first_moments, second_moments: int64 [depth], where each layer's float32 [width, 16] lie,
            in memory that the caller keeps alive.
    """

    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    lrs: NDArray[np.float64]
    steps_done: int
    logits: NDArray[np.int64]
    first_moments: NDArray[np.int64]
    second_moments: NDArray[np.int64]


@device
def adam_step(logits, first_moment, second_moment, offset, gradient, adam, factors):
    """Move a gate's parameters, as many as ``gradient`` has; :func:`adam_factors` gives the ``factors``."""
    mean = load_like(first_moment, offset, gradient)
    mean = fma(gradient - mean, np.float32(1.0 - adam.beta1), mean)
    square = load_like(second_moment, offset, gradient) * np.float32(adam.beta2)
    square = fma(gradient * np.float32(1.0 - adam.beta2), gradient, square)
    spread = fma(sqrt(square), factors.scale, np.float32(adam.eps))
    store(first_moment, offset, mean)
    store(second_moment, offset, square)
    kept = load_like(logits, offset, gradient) * factors.kept
    store(logits, offset, kept - mean * factors.rate / spread)


class AdamFactors(NamedTuple):
    """What a step of Adam multiplies by.

    Attributes:
        rate: the learning rate over the bias of the mean.
        scale: 1 over the root of the bias of the squares.
        kept: what weight decay leaves of a logit.
    """

    rate: np.float32
    scale: np.float32
    kept: np.float32


@device
def adam_factors(adam, step):
    """Return the factors of a step, ``step`` its place in the run."""
    lr, taken = adam.lrs[step], adam.steps_done + step + 1
    return AdamFactors(
        np.float32(lr / (1.0 - adam.beta1**taken)),
        np.float32(1.0 / np.sqrt(1.0 - adam.beta2**taken)),
        np.float32(1.0 - lr * adam.weight_decay),
    )
