"""The discrete network on packed bits: 512 samples at once, every gate a handful of instructions."""

from __future__ import annotations

from typing import Final

import numpy as np

from lgn_analysis.kernels.cpu.bits import N_PLANES, count_ones, counts_of, pack_block
from lgn_analysis.kernels.cpu.logits import N_OPTIONS, floats_at
from lgn_analysis.kernels.cpu.packed import MASKS
from lgn_analysis.kernels.cpu.runtime.compiling import device, entry
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK
from lgn_analysis.kernels.cpu.runtime.workers import (
    atomic_add,
    barrier,
    finish_part,
    shard,
    take_part,
    wait_for_parts,
)
from lgn_analysis.kernels.cpu.simd import (
    at,
    first_true,
    largest,
    load,
    load_like,
    longs,
    n_ones,
    put,
    store,
)

WORDS: Final = 8
"""Words of a row that go through the network together, one cache line."""


@entry
def choose_discrete(worker, wires, logits, gates):
    """Write ``argmax z``, the first of equals, of every gate: uint8 [depth, width], by position.

    Args:
        logits: int64 [depth], where each layer's logits float32 [width, 16] lie.
    """
    if not barrier(worker):
        return
    first, last = shard(wires.width, worker)
    for layer in range(wires.depth):
        z = floats_at(logits[layer], wires.width * N_OPTIONS)
        start = layer * wires.width
        for gate in range(first, last):
            row = load(z, gate * N_OPTIONS, 16)
            place = start + at(wires.position_of, start + gate)
            put(gates, place, first_true(row == largest(row)))


@device
def _evaluate_row(words, a, b, mask, like):
    m0, m1, m2, m3 = at(MASKS, mask), at(MASKS, mask + 1), at(MASKS, mask + 2), at(MASKS, mask + 3)
    x, y = load_like(words, a, like), load_like(words, b, like)
    return m0 ^ (x & m1) ^ ((m2 ^ (x & m3)) & y)


@entry
def gate_layer_rows(worker, sources, gates, words, n_words, outputs):
    """Evaluate one layer on rows of ``n_words`` words: ``reference.gate_layer_packed``.

    Args:
        sources: int64 [2, n_out].
        gates: int64 [n_out].
        words: int64 [n_in, n_words].
        outputs: int64 [n_out, n_words]; out.
    """
    if not barrier(worker):
        return
    n_out = len(gates)
    first, last = shard(n_out, worker)
    whole = n_words // WORDS * WORDS
    for gate in range(first, last):
        a, b = at(sources, gate) * n_words, at(sources, n_out + gate) * n_words
        target, mask = gate * n_words, 4 * at(gates, gate)
        for word in range(0, whole, WORDS):
            row = _evaluate_row(words, a + word, b + word, mask, longs(0, WORDS))
            store(outputs, target + word, row)
        for word in range(whole, n_words):
            row = _evaluate_row(words, a + word, b + word, mask, longs(0, 1))
            store(outputs, target + word, row)


@entry
def evaluate_packed(worker, wires, gates, values, batch, counts, activity):
    """Evaluate the discrete network and count its ones, by sample or by gate.

    Workers take parts of 512 samples until none is left, and wait for no one who is late.

    Args:
        gates: uint8 [depth, width], by position.
        values: uint8 [batch, n_features], 0 or 1.
        counts: int32 [batch, n_groups]; out: the group sums. Empty: not wanted.
        activity: int64 [depth, width], by position; out: added to it, on how many samples each gate
            is 1. Empty: not wanted.
    """
    n_parts = -(-batch // (WORDS * BLOCK))
    level_words = max(wires.n_features, wires.width) * WORDS
    words = np.empty(2 * level_words, dtype=np.int64)
    planes = np.empty(N_PLANES * WORDS, dtype=np.int64)
    of_word = np.empty(BLOCK, dtype=np.int32)
    inside = np.empty(WORDS, dtype=np.int64)
    own_activity = np.zeros(len(activity), dtype=np.int64)
    n_taken = 0
    part = take_part(worker)
    while part < n_parts:
        first_block = part * WORDS
        for word in range(min(WORDS, -(-batch // BLOCK) - first_block)):
            pack_block(values, wires.n_features, batch, first_block + word, words, word, WORDS)
        _mark_samples(batch - first_block * BLOCK, inside)
        source, target = 0, level_words
        for layer in range(wires.depth):
            _evaluate_layer(wires, layer, gates, words, source, target, inside, own_activity)
            source, target = target, source
        if len(counts) > 0:
            _write_counts(wires, words, source, first_block * BLOCK, batch, planes, of_word, counts)
        n_taken += 1
        part = take_part(worker)
    if n_taken > 0:
        for place in range(len(activity)):
            atomic_add(activity, place, at(own_activity, place))
    for _ in range(n_taken):
        finish_part(worker)
    wait_for_parts(worker, n_parts)


@device
def _mark_samples(n, inside):
    """Write which bits of a part's words are samples: the first ``n``."""
    for word in range(WORDS):
        n_inside = min(max(n - word * BLOCK, 0), BLOCK)
        inside[word] = -1 if n_inside == BLOCK else (1 << n_inside) - 1


@device
def _evaluate_layer(wires, layer, gates, words, source, target, inside, activity):
    """Evaluate a layer on 512 samples; add the ones of each gate to ``activity``, if it is not empty."""
    base = layer * wires.width
    samples = load(inside, 0, WORDS)
    for place in range(wires.width):
        a = source + at(wires.sources, 2 * (base + place)) * WORDS
        b = source + at(wires.sources, 2 * (base + place) + 1) * WORDS
        mask = 4 * at(gates, base + place)
        row = _evaluate_row(words, a, b, mask, longs(0, WORDS))
        store(words, target + place * WORDS, row)
        if len(activity) > 0:
            put(activity, base + place, at(activity, base + place) + n_ones(row & samples))


@device
def _write_counts(wires, words, source, first_sample, batch, planes, of_word, counts):
    size = wires.width // wires.n_groups
    for group in range(wires.n_groups):
        start = source + group * size * WORDS
        n_planes = count_ones(words, start, WORDS, size, longs(0, WORDS), planes)
        for word in range(WORDS):
            sample = first_sample + word * BLOCK
            if sample >= batch:
                break
            n = min(BLOCK, batch - sample)
            store(of_word, 0, counts_of(planes, n_planes, word))
            for i in range(n):
                put(counts, (sample + i) * wires.n_groups + group, at(of_word, i))
