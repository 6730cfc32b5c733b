"""CAGE in compiled steps: how sure gates are, each layer's confidence, and the temperature it gives."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgn_analysis.gates.relaxations import UNDECIDED
from lgn_analysis.kernels.cpu.logits import N_OPTIONS, floats_at
from lgn_analysis.kernels.cpu.noise import exp
from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.workers import shard
from lgn_analysis.kernels.cpu.simd import at, first_true, largest, load, put, store, total
from lgn_analysis.kernels.cpu.tables import TILE

_FLOOR: Final = UNDECIDED


class Adaptation(NamedTuple):
    """How temperatures follow confidence; :class:`lgn_analysis.gates.relaxations.CAGE` has the rule.

    Attributes:
        active: whether they do; otherwise the rest is empty and unread.
        tau: temperature of the confidence.
        tau_max, tau_min: temperatures of the gradient at none and at full confidence.
        decay: how much of the confidence a step keeps.
        confidences: float32 [depth]; in and out.
        certainties: float32 [depth, width]: the largest of each gate's ``softmax(z / tau)``.
    """

    active: bool
    tau: float
    tau_max: float
    tau_min: float
    decay: float
    confidences: NDArray[np.float32]
    certainties: NDArray[np.float32]


@device
def rate_gates(logits, width, span, adaptation, gates, scratch):
    """Choose gates ``span[0]``..``span[1] - 1`` by ``argmax z`` and write how sure they are.

    Args:
        logits: int64 [depth], where each layer's logits float32 [width, 16] lie.
        width: gates a layer.
        span: the range.
        adaptation: its ``certainties`` are written.
        gates: uint8 [depth, width]; out.
        scratch: from :func:`lgn_analysis.kernels.cpu.logits.make_scratch`.
    """
    inverse = np.float32(1.0 / adaptation.tau)
    gate, last = span
    while gate < last:
        layer = gate // width
        within = gate - layer * width
        n = min(TILE, min(last - gate, width - within))
        z = floats_at(logits[layer], width * N_OPTIONS)
        for i in range(n):
            row = load(z, (within + i) * N_OPTIONS, 16)
            top = largest(row)
            put(scratch.tops, i, top)
            put(gates, gate + i, first_true(row == top))
        for i in range(n):
            row = load(z, (within + i) * N_OPTIONS, 16)
            raised = exp((row - at(scratch.tops, i)) * inverse)
            # The largest term of the sum is exp(0).
            put(adaptation.certainties, gate + i, np.float32(1.0) / total(raised))
        gate += n


@device
def follow_confidence(adaptation, depth, width, worker, taus):
    """Take each layer's confidence to its gates' certainties, and write its temperature to ``taus``.

    Workers share out the layers, each of which is summed in one order. ``taus`` is float64 [depth].
    """
    first, last = shard(depth, worker)
    for layer in range(first, last):
        mean = _sum(adaptation.certainties, layer * width, width) / width
        kept = adaptation.decay * adaptation.confidences[layer]
        confidence = np.float32(kept + (1.0 - adaptation.decay) * mean)
        adaptation.confidences[layer] = confidence
        part = min(max((confidence - _FLOOR) / (1.0 - _FLOOR), 0.0), 1.0)
        taus[layer] = adaptation.tau_max - (adaptation.tau_max - adaptation.tau_min) * part


@device
def _sum(values, start, n):
    """Return the sum of n float32 from ``start`` on in float64."""
    # Four at a time: one chain of additions would wait for itself.
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    fours = n // 4 * 4
    for i in range(start, start + fours, 4):
        s0 += at(values, i)
        s1 += at(values, i + 1)
        s2 += at(values, i + 2)
        s3 += at(values, i + 3)
    for i in range(start + fours, start + n):
        s0 += at(values, i)
    return (s0 + s1) + (s2 + s3)


@device
def soften_gates(logits, width, first, last, tau, weights):
    """Write ``softmax(z / tau)`` of gates ``first``..``last - 1``, all of one layer.

    Args:
        logits: int64 [depth], where each layer's logits lie.
        width: gates a layer.
        tau: temperature.
        weights: float32 [depth, width, 16]; out.
    """
    layer = first // width
    z = floats_at(logits[layer], width * N_OPTIONS)
    inverse = np.float32(1.0 / tau)
    for gate in range(first, last):
        row = load(z, (gate - layer * width) * N_OPTIONS, 16)
        raised = exp((row - largest(row)) * inverse)
        store(weights, gate * N_OPTIONS, raised * (np.float32(1.0) / total(raised)))
