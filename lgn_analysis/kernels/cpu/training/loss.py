"""The cross-entropy of one block of samples, with its gradient."""

from __future__ import annotations

import numpy as np

from lgn_analysis.kernels.cpu.noise import exp, log
from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK
from lgn_analysis.kernels.cpu.simd import (
    floats,
    lane_numbers,
    load,
    low_half,
    maximum,
    select,
    store,
)


@device
def cross_entropy_block(n_groups, logits, start, labels, n_samples, scale, deltas, target):
    """Return the sum of the cross-entropies of one block, and write its gradient, scaled.

    Args:
        n_groups: how many logits a sample.
        logits: float32; group g is the row at ``start + 64 · g``, and one more row is scratch.
        labels: int64, of the block.
        n_samples: samples of the block, at most 64.
        scale: multiplies the gradient.
        deltas: float32; out: group g is the row at ``target + 64 · g``, zero beyond the batch.
    """
    top = load(logits, start, BLOCK)
    for group in range(1, n_groups):
        top = maximum(top, load(logits, start + group * BLOCK, BLOCK))
    raised_sum = floats(0.0, BLOCK)
    for group in range(n_groups):
        raised = exp(load(logits, start + group * BLOCK, BLOCK) - top)
        raised_sum = raised_sum + raised
        store(deltas, target + group * BLOCK, raised)
    inside = low_half(lane_numbers(BLOCK)) < n_samples
    shard = select(inside, np.float32(scale) / raised_sum, floats(0.0, BLOCK))
    for group in range(n_groups):
        store(deltas, target + group * BLOCK, load(deltas, target + group * BLOCK, BLOCK) * shard)
    store(logits, start + n_groups * BLOCK, log(raised_sum) + top)
    loss = 0.0
    for sample in range(n_samples):
        place = labels[sample] * BLOCK + sample
        deltas[target + place] -= np.float32(scale)
        loss += np.float64(logits[start + n_groups * BLOCK + sample] - logits[start + place])
    return loss
