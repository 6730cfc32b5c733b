"""CAGE in training steps: each layer's confidence and the temperature that it gives, on the device."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.gates.relaxations import CAGE, UNDECIDED
from lgn_analysis.kernels.cuda.logits import GATES, load_options
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch


@triton.jit
def sum_certainties(parts, logits, n, inverse_tau, BLOCK: tl.constexpr):
    """Write the sum of ``max softmax(z / tau)`` over each block of gates, float32 [n_blocks]."""
    gates = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v0, v1, v2, v3 = load_options(logits, gates, n, BLOCK)
    top = tl.max(tl.maximum(tl.maximum(v0, v1), tl.maximum(v2, v3)), axis=1)[:, None]
    e0 = tl.exp((v0 - top) * inverse_tau)
    e1 = tl.exp((v1 - top) * inverse_tau)
    e2 = tl.exp((v2 - top) * inverse_tau)
    e3 = tl.exp((v3 - top) * inverse_tau)
    # The largest term of the sum is exp(0).
    largest = 1.0 / tl.sum((e0 + e1) + (e2 + e3), axis=1)
    tl.store(parts + tl.program_id(0), tl.sum(tl.where(gates < n, largest, 0.0), axis=0))


@triton.jit
def follow_certainties(
    confidence,  # []
    inverse_tau,  # [1]
    parts,  # [n_parts]
    n_parts,
    n,
    decay,
    tau_max,
    tau_min,
    floor,
    BLOCK: tl.constexpr,
):
    """Move confidence [] to the mean of the certainties, and write 1 / tau_b to inverse_tau [1]."""
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, n_parts, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(parts + at, mask=at < n_parts, other=0.0).to(tl.float64)
    mean = (tl.sum(total, axis=0) / n).to(tl.float32)
    c = decay * tl.load(confidence) + (1.0 - decay) * mean
    tl.store(confidence, c)
    share = tl.minimum(tl.maximum((c - floor) / (1.0 - floor), 0.0), 1.0)
    tl.store(inverse_tau, 1.0 / (tau_max - (tau_max - tau_min) * share))


def follow_confidence(
    relaxation: CAGE, logits: Tensor, confidence: Tensor, inverse_tau: Tensor
) -> None:
    """Take a layer's confidence [] to its logits [n, 16], and write 1 / tau_b to inverse_tau [1]."""
    n = logits.shape[0]
    parts = torch.empty(cdiv(n, GATES), dtype=torch.float32, device=logits.device)
    launch(sum_certainties, (len(parts),), parts, logits, n, 1 / relaxation.tau, BLOCK=GATES)
    arrays = (confidence, inverse_tau, parts)
    sizes = (len(parts), n, relaxation.decay, relaxation.tau_max, relaxation.tau_min, UNDECIDED)
    launch(follow_certainties, (1,), *arrays, *sizes, BLOCK=256)
