"""Do explicit vectors pay? Three kernels of a training step against plain Numba loops.

    python benchmarks/explicit_vectors.py [--width 8000] [--depth 6] [--batch 128] [--rounds 15]

The plain loops do the same arithmetic on the same arrays, lane by lane, and are compiled with
``fastmath``, so that LLVM may vectorise sums and contract products. Prefetches, which plain Numba
cannot say, are left out of them. One thread; outputs are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import harness
import numpy as np
from numba import njit

from lgn_analysis.gates.table import COEFFICIENTS
from lgn_analysis.kernels.cpu.dense import gate_backward_dense, gate_forward_dense
from lgn_analysis.kernels.cpu.logits import Rule, make_scratch, select_gates
from lgn_analysis.kernels.cpu.packed import gate_backward_packed
from lgn_analysis.kernels.cpu.runtime.layout import (
    BLOCK,
    Activations,
    Gradients,
    Rows,
    build_wires,
    count_rows,
    level_row,
)
from lgn_analysis.kernels.cpu.tables import SIXTEEN

plain = njit(fastmath=True, error_model="numpy", nogil=True)
TABLE = COEFFICIENTS.numpy().astype(np.float32)


@plain
def row_of(rows, place):
    """Return 64 lanes as a slice, whose offset the loop over lanes need not check."""
    return rows[place * 64 : place * 64 + 64]


@njit(nogil=True, error_model="numpy")
def forward_vectors(wires, activations, n_rows):
    for block in range(activations.n_blocks):
        for layer in range(wires.depth):
            gate_forward_dense(wires, activations, layer, (0, wires.width), block * n_rows)


@plain
def forward_plain(wires, coefficients, values, n_rows, n_blocks):
    for block in range(n_blocks):
        for layer in range(wires.depth):
            source = block * n_rows + level_row(wires, layer)
            target = block * n_rows + level_row(wires, layer + 1)
            base = layer * wires.width
            for place in range(wires.width):
                a = row_of(values, source + wires.sources[2 * (base + place)])
                b = row_of(values, source + wires.sources[2 * (base + place) + 1])
                y = row_of(values, target + place)
                c = 4 * (base + wires.gate_at[base + place])
                c0, c1 = coefficients[c], coefficients[c + 1]
                c2, c3 = coefficients[c + 2], coefficients[c + 3]
                for lane in range(64):
                    y[lane] = (c3 * a[lane] + c2) * b[lane] + (c1 * a[lane] + c0)


@njit(nogil=True, error_model="numpy")
def backward_vectors(wires, layer, activations, gradients, source, target):
    span, block = (0, wires.width), (0, False)
    gate_backward_dense(wires, activations, gradients, layer, span, block, source, target)


@plain
def backward_plain(wires, layer, coefficients, values, deltas, inputs, sums):
    level = level_row(wires, layer)
    below = level_row(wires, layer - 1)
    base, entries = layer * wires.width, 2 * layer * wires.width
    start = wires.n_features + 1 + (layer - 1) * (wires.width + 1)
    gathered = np.empty(64, dtype=np.float32)
    for row in range(wires.width):
        gathered[:] = 0.0
        for entry in range(
            entries + wires.starts[start + row], entries + wires.starts[start + row + 1]
        ):
            delta = row_of(deltas, wires.consumers[3 * entry])
            gate_and_side = wires.consumers[3 * entry + 1]
            other = row_of(values, level + wires.consumers[3 * entry + 2])
            c = 4 * (base + (gate_and_side >> 1))
            c3, slope = coefficients[c + 3], coefficients[c + 1 + (gate_and_side & 1)]
            for lane in range(64):
                gathered[lane] += (c3 * other[lane] + slope) * delta[lane]
        gate = base - wires.width + row
        a = row_of(values, below + wires.sources[2 * gate])
        b = row_of(values, below + wires.sources[2 * gate + 1])
        written = row_of(inputs, row)
        s0, s1, s2, s3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for lane in range(64):
            d = gathered[lane]
            da = d * a[lane]
            written[lane] = d
            s0 += d
            s1 += da
            s2 += d * b[lane]
            s3 += da * b[lane]
        sums[4 * gate], sums[4 * gate + 1] = s0, s1
        sums[4 * gate + 2], sums[4 * gate + 3] = s2, s3


@njit(nogil=True, error_model="numpy")
def packed_vectors(wires, layer, activations, gradients, source, target):
    span, block = (0, wires.width), (0, False)
    gate_backward_packed(wires, activations, gradients, layer, span, block, source, target)


AT_ZERO = np.ascontiguousarray(TABLE[:, 1:3])
AT_ONE = np.ascontiguousarray(TABLE[:, 1:3] + TABLE[:, 3:])


@plain
def packed_plain(wires, layer, gates, words, deltas, inputs, sums):
    level = level_row(wires, layer)
    below = level_row(wires, layer - 1)
    base, entries = layer * wires.width, 2 * layer * wires.width
    start = wires.n_features + 1 + (layer - 1) * (wires.width + 1)
    gathered = np.empty(64, dtype=np.float32)
    zero = np.float32(0.0)
    for row in range(wires.width):
        gathered[:] = 0.0
        for entry in range(
            entries + wires.starts[start + row], entries + wires.starts[start + row + 1]
        ):
            delta = row_of(deltas, wires.consumers[3 * entry])
            gate_and_side = wires.consumers[3 * entry + 1]
            word = words[level + wires.consumers[3 * entry + 2]]
            gate = gates[base + (gate_and_side >> 1)]
            one, none = AT_ONE[gate, gate_and_side & 1], AT_ZERO[gate, gate_and_side & 1]
            for lane in range(64):
                slope = one if (word >> lane) & 1 else none
                gathered[lane] += slope * delta[lane]
        gate = base - wires.width + row
        a = words[below + wires.sources[2 * gate]]
        b = words[below + wires.sources[2 * gate + 1]]
        written = row_of(inputs, row)
        s0, s1, s2, s3 = zero, zero, zero, zero
        for lane in range(64):
            d = gathered[lane]
            written[lane] = d
            bit_a, bit_b = (a >> lane) & 1, (b >> lane) & 1
            s0 += d
            s1 += d if bit_a else zero
            s2 += d if bit_b else zero
            s3 += d if bit_a & bit_b else zero
        sums[4 * gate], sums[4 * gate + 1] = s0, s1
        sums[4 * gate + 2], sums[4 * gate + 3] = s2, s3


@njit(nogil=True, error_model="numpy")
def logits_vectors(logits, width, n, rule, activations):
    select_gates(logits, width, (0, n), rule, activations, make_scratch())


@plain
def logits_plain(z, n, tau, weights, gates, coefficients):
    """The soft rule, without noise: Philox would be the same integer code in both."""
    inverse = np.float32(1.0 / tau)
    for gate in range(n):
        top, best = z[16 * gate], 0
        for option in range(1, 16):
            if z[16 * gate + option] > top:
                top, best = z[16 * gate + option], option
        gates[gate] = best
        summed = np.float32(0.0)
        for option in range(16):
            raised = math.exp((z[16 * gate + option] - top) * inverse)
            weights[16 * gate + option] = raised
            summed += raised
        scale = np.float32(1.0) / summed
        for k in range(4):
            coefficients[4 * gate + k] = 0.0
        for option in range(16):
            weight = weights[16 * gate + option] * scale
            weights[16 * gate + option] = weight
            for k in range(4):
                coefficients[4 * gate + k] += weight * TABLE[option, k]


def cases(width: int, depth: int, batch: int) -> dict[str, tuple[Any, Any, list[Any]]]:
    """Return for each kernel its two forms, and the arrays that they write."""
    rng = np.random.default_rng(0)
    wirings = [rng.integers(0, width, (2, width)) for _ in range(depth)]
    wires = build_wires(wirings, width, 10)
    n_rows, n_blocks, n = count_rows(wires), -(-batch // BLOCK), width * depth
    values = rng.random(n_blocks * n_rows * BLOCK, dtype=np.float32)
    z = rng.standard_normal(n * 16, dtype=np.float32)
    weights, gates = np.empty(n * 16, np.float32), rng.integers(0, 16, n).astype(np.uint8)
    coefficients = rng.random(4 * n + 256, dtype=np.float32)
    words = rng.integers(-(2**63), 2**63 - 1, n_rows + 64, dtype=np.int64)
    deltas = rng.standard_normal((width + 64) * BLOCK, dtype=np.float32)
    inputs, sums = np.zeros(width * BLOCK, np.float32), np.zeros(4 * n, np.float32)
    address = np.array([z.ctypes.data + 64 * width * layer for layer in range(depth)])
    soft = Rule(False, False, SIXTEEN, np.ones(depth), 1, 2, 3, 0, 7)
    chosen, made = np.empty(n, np.uint8), np.empty(4 * n, np.float32)
    layer = depth - 2
    none = np.empty(0, np.float32)
    held = Activations(n_blocks, True, weights, gates, coefficients, words, none, values)
    written = held._replace(gates=chosen, coefficients=made)
    gradients = Gradients(deltas, sums, none, np.float32(1.0))
    source, target = Rows(deltas, 0), Rows(inputs, 0)
    return {
        "gates forward, floats": (
            lambda: forward_vectors(wires, held, n_rows),
            lambda: forward_plain(wires, coefficients, values, n_rows, n_blocks),
            [values],
        ),
        "gates backward and sums, floats": (
            lambda: backward_vectors(wires, layer, held, gradients, source, target),
            lambda: backward_plain(wires, layer, coefficients, values, deltas, inputs, sums),
            [inputs, sums],
        ),
        "gates backward and sums, bits": (
            lambda: packed_vectors(wires, layer, held, gradients, source, target),
            lambda: packed_plain(wires, layer, gates, words, deltas, inputs, sums),
            [inputs, sums],
        ),
        "logits to weights and coefficients": (
            lambda: logits_vectors(address, width, n, soft, written),
            lambda: logits_plain(z, n, 1.0, weights, chosen, made),
            [weights, chosen, made],
        ),
    }


def main() -> None:
    """Compare, time in turns, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("width", 8000), ("depth", 6), ("batch", 128), ("rounds", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    results: dict[str, Any] = {"options": vars(options)}
    for name, (vectors, loops, arrays) in cases(
        options.width, options.depth, options.batch
    ).items():
        vectors()
        expected = [array.copy() for array in arrays]
        loops()
        for array, other in zip(arrays, expected, strict=True):
            np.testing.assert_allclose(array, other, rtol=2e-4, atol=2e-4)
        variants = {
            "vectors": harness.repeated(vectors),
            "plain loops": harness.repeated(loops),
        }
        times = harness.time_in_turns(variants, rounds=options.rounds)
        low, median, high = harness.ratio(times["plain loops"], times["vectors"])
        print(
            f"{name}: vectors {harness.summary(times['vectors'])}, plain loops "
            f"{harness.summary(times['plain loops'])}, {median:.2f} times ({low:.2f} to {high:.2f})"
        )
        results[name] = {**harness.as_json(times), "ratio": [low, median, high]}
    print(harness.write_results("explicit-vectors", results))


if __name__ == "__main__":
    main()
