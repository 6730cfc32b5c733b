"""The CPU backend: Numba kernels on explicit vectors, feature-major, activations packed as bits.

* ``simd``, ``elementary``: vectors for Numba; Philox, logarithm, exponential, Gumbel noise;
* ``selection``: noise, argmax, softmax and the 16 → 4 map in one pass, and back; Adam;
* ``packed``, ``dense``: one layer on bits or on floats, forward and backward;
* ``bits``, ``counting``, ``loss``: packing, transposing, group sums, cross-entropy;
* ``passes``, ``network``, ``autograd``: a whole network, as one node of autograd;
* ``steps``, ``run``: whole training steps, many a call; ``confidence``: the part of CAGE in them;
* ``evaluation``: the discrete network;
* ``curvature``: Hessian-vector products of the soft loss, in float32 and float64;
* ``layout``, ``plans``, ``threads``, ``thread_count``, ``compiling``: memory, threads, compilation.

:mod:`lgn_analysis.kernels.reference` is the specification. Kernels compute in float32, those
of ``curvature`` in float64 too; what is asked for in another dtype the reference computes, bits apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.cpu.autograd import addresses, as_int64, training_forward
from lgn_analysis.kernels.cpu.bits import pack_rows, pack_samples, unpack_rows
from lgn_analysis.kernels.cpu.curvature import Curvature
from lgn_analysis.kernels.cpu.evaluation import (
    WORDS,
    choose_discrete,
    evaluate_packed,
    gate_layer_rows,
)
from lgn_analysis.kernels.cpu.logits import Rule, draw_gumbel
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK, Wires, check_reads
from lgn_analysis.kernels.cpu.runtime.plans import find_plan
from lgn_analysis.kernels.cpu.runtime.threads import run_in_parts, run_together
from lgn_analysis.kernels.cpu.training.run import PackedSamples, TrainingRun
from lgn_analysis.kernels.interface import NetworkSpec
from lgn_analysis.kernels.reference import gate_layer

__all__ = [
    "Curvature",
    "NAME",
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
_NO_COUNTS: Final = np.empty(0, dtype=np.int32)
_NO_ACTIVITY: Final = np.empty(0, dtype=np.int64)


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
    taus = np.ones(1)  # read by softmaxes alone
    rule = Rule(True, False, taus, key.seed & 0xFFFFFFFF, key.seed >> 32, int(key.purpose), 0)
    noise = torch.empty(*which.shape, n_gates, N_GATES, dtype=torch.float32)
    indices = which.reshape(-1).numpy()
    run_together(
        draw_gumbel,
        rule,
        as_int64(key.draw),
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


def discrete_forward(network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor) -> Tensor:
    """Return the group sums of the discrete network, not divided: int32 [batch, n_groups].

    Args:
        network: the network, its layers of one width.
        logits: [width, 16] of every layer.
        bits: bool [batch, n_features].
    """
    counts = torch.empty(bits.shape[0], network.n_groups, dtype=torch.int32)
    wires = find_plan(network.wirings, network.n_features, network.n_groups).wires
    _evaluate(wires, logits, bits, counts=counts.numpy().reshape(-1))
    return counts


def discrete_activity(network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor) -> Tensor:
    """Return on how many samples each gate is 1: int64 [depth, width]; see :func:`discrete_forward`."""
    wires = find_plan(network.wirings, network.n_features, network.n_groups).wires
    by_position = np.zeros((wires.depth, wires.width), dtype=np.int64)
    _evaluate(wires, logits, bits, activity=by_position.reshape(-1))
    activity = torch.empty(by_position.shape, dtype=torch.int64)
    np.put_along_axis(activity.numpy(), _gate_order(wires), by_position, axis=1)
    return activity


def _gate_order(wires: Wires) -> NDArray[np.int64]:
    """Return the gate at each position: int64 [depth, width]."""
    n_gates = wires.depth * wires.width
    return wires.gate_at[:n_gates].reshape(wires.depth, wires.width).astype(np.int64)


def _evaluate(
    wires: Wires,
    logits: Sequence[Tensor],
    bits: Tensor,
    counts: NDArray[np.int32] = _NO_COUNTS,
    activity: NDArray[np.int64] = _NO_ACTIVITY,
) -> None:
    """Run :func:`evaluate_packed` on the gates that the logits choose."""
    batch, n_gates = bits.shape[0], wires.depth * wires.width
    gates = np.empty(n_gates, dtype=np.uint8)
    if all(z.dtype == torch.float32 and z.is_contiguous() for z in logits):
        where = addresses([z.detach() for z in logits])
        run_together(choose_discrete, wires, where, gates, work=2.0 * n_gates)
    else:
        chosen = torch.stack([z.detach().argmax(-1) for z in logits]).numpy()
        gates[:] = np.take_along_axis(chosen, _gate_order(wires), axis=1).reshape(-1)
    run_in_parts(
        evaluate_packed,
        wires,
        gates,
        bits.contiguous().view(torch.uint8).numpy().reshape(-1),
        batch,
        counts,
        activity,
        n_parts=-(-batch // (WORDS * BLOCK)),
        work=batch * n_gates / BLOCK,
    )
