"""The CPU backend: Numba kernels on explicit vectors, feature-major, activations packed as bits.

* ``simd``, ``noise``: vectors for Numba; Philox, logarithm, exponential, Gumbel noise;
* ``logits``: noise, argmax, softmax and the 16 → 4 map in one pass, and back; Adam;
* ``tables``: the same for four numbers a gate, its truth table;
* ``bits``: packing, transposing, counting;
* ``packed``, ``dense``: layers on bits or on floats, forward and backward;
* ``passes``, ``evaluation``, ``network``: a whole network, in training and discrete;
* ``training``: whole training steps, many a call;
* ``curvature``: Hessian-vector products of the soft loss, in float32 and float64;
* ``runtime``: memory, threads, compilation.

:mod:`lgn_analysis.kernels.reference` is the specification. Kernels compute in float32, those
of ``curvature`` in float64 too; what is asked for in another dtype the reference computes, bits apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.cpu.bits import pack_rows, pack_samples, unpack_rows
from lgn_analysis.kernels.cpu.curvature import Curvature
from lgn_analysis.kernels.cpu.evaluation import gate_layer_rows
from lgn_analysis.kernels.cpu.logits import Rule, draw_gumbel
from lgn_analysis.kernels.cpu.network import discrete_activity, discrete_forward, training_forward
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK, check_reads
from lgn_analysis.kernels.cpu.runtime.threads import run_together
from lgn_analysis.kernels.cpu.tables import LAWS, SIXTEEN
from lgn_analysis.kernels.cpu.training.run import TrainingRun
from lgn_analysis.kernels.interface import PackedSamples, as_int64
from lgn_analysis.kernels.reference import gate_layer

__all__ = [
    "Curvature",
    "NAME",
    "PARAMETRISATIONS",
    "PackedSamples",
    "TrainingRun",
    "discrete_activity",
    "discrete_forward",
    "gate_layer",
    "gate_layer_packed",
    "gumbel",
    "pack_bits",
    "training_forward",
    "unpack_bits",
]

NAME: Final = "cpu"
PARAMETRISATIONS: Final = frozenset(LAWS)


def gumbel(
    key: NoiseKey,
    layers: Tensor | Sequence[int] | int,
    n_gates: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return Gumbel noise [..., n_gates, 16], ``layers`` leading; see :func:`lgn_analysis.gates.noise.gumbel`.

    The words are those of every backend; a value lies within the bound stated there.
    """
    which = torch.as_tensor(layers, dtype=torch.int64)
    if dtype != torch.float32:
        return reference.gumbel(key, which, n_gates, dtype=dtype, device=device)
    rule = Rule(
        noisy=True,
        hard=False,
        law=SIXTEEN,
        taus=np.ones(1),  # read by softmaxes alone
        seed_low=key.seed & 0xFFFFFFFF,
        seed_high=key.seed >> 32,
        purpose=int(key.purpose),
        first_layer=0,
        draw=as_int64(key.draw),
    )
    noise = torch.empty(*which.shape, n_gates, N_GATES, dtype=torch.float32)
    indices = which.reshape(-1).numpy()
    run_together(
        draw_gumbel,
        rule,
        indices,
        n_gates,
        noise.view(-1).numpy(),
        work=2.0 * noise.numel(),
    )
    return noise


def gate_layer_packed(words: Tensor, wiring: Tensor, gates: Tensor) -> Tensor:
    """Return the outputs of discrete gates [n_out, n_words] on packed bits [n_in, n_words].

    Raises:
        InvalidInputError: the wiring reads an input that is not there.
    """
    n_words = words.shape[1]
    sources = wiring.contiguous().numpy()
    check_reads(sources, words.shape[0], "a layer")
    outputs = torch.empty(len(gates), n_words, dtype=torch.int64)
    run_together(
        gate_layer_rows,
        sources.reshape(-1),
        gates.to(torch.int64).contiguous().numpy(),
        words.contiguous().numpy().reshape(-1),
        n_words,
        outputs.numpy().reshape(-1),
        work=float(outputs.numel()),
    )
    return outputs


def pack_bits(bits: Tensor) -> Tensor:
    """Return bits [n, batch] packed into int64 words [n, ceil(batch / 64)]."""
    n, batch = bits.shape
    n_words = -(-batch // BLOCK)
    words = torch.empty(n, n_words, dtype=torch.int64)
    if words.numel() == 0:
        return words
    flat, octets = words.numpy().reshape(-1), bits.to(torch.bool).view(torch.uint8)
    if octets.T.is_contiguous():
        pack_samples(octets.T.numpy().reshape(-1), n, batch, flat, 1, n_words)
    else:
        pack_rows(octets.contiguous().numpy().reshape(-1), batch, flat)
    return words


def unpack_bits(words: Tensor, batch: int) -> Tensor:
    """Return packed words [n, n_words] as bool [n, batch]."""
    bits = torch.empty(words.shape[0], batch, dtype=torch.bool)
    if bits.numel() > 0:
        flat = bits.view(torch.uint8).numpy().reshape(-1)
        unpack_rows(words.contiguous().numpy().reshape(-1), batch, flat)
    return bits
