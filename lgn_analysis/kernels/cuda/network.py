"""A whole network's training forward and backward, as one node of autograd.

Where gates are hard and inputs are bits, activations are packed words from the first layer to the
last; otherwise they are floats. Floats of the backward pass live for one layer only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.autograd import Passes, Tape, differentiable_forward
from lgn_analysis.kernels.cuda.backward import Delta, backward_inputs, backward_sums
from lgn_analysis.kernels.cuda.bits import pack_bits
from lgn_analysis.kernels.cuda.forward import (
    gates_forward_float,
    gates_forward_packed,
    group_counts,
    group_sums,
)
from lgn_analysis.kernels.cuda.logits import Draw, Tau, coefficients_of, gates_of, gradient_of
from lgn_analysis.kernels.cuda.runtime.layout import consumers_of_layers
from lgn_analysis.kernels.interface import NetworkSpec

_KERNEL_DTYPES: Final = (torch.float32, torch.float64)


def run_forward(
    network: NetworkSpec,
    logits: Sequence[Tensor],
    inputs: Tensor,
    batch: int,
    draw: Draw | None,
    tape: Tape | None,
    taus: Sequence[Tau] | None = None,
) -> Tensor:
    """Return class logits float32 [batch, n_groups].

    Args:
        network: the network.
        logits: float32 [n_out, 16] of every layer.
        inputs: packed words int64 [n_features, n_words], or floats [n_features, batch].
        batch: number of samples.
        draw: the noise, given exactly when the relaxation is noisy.
        tape: takes what the backward pass needs: of each layer its inputs, as words or floats, then its
            table, gate numbers uint8 [n_out] on words, coefficients [n_out, 4] on floats.
        taus: gate temperature of each layer; None is the network's.
    """
    relaxation = network.relaxation
    on_bits = relaxation.hard and inputs.dtype == torch.int64
    values = inputs
    layers = zip(logits, consumers_of_layers(network), strict=True)
    for layer, (z, consumers) in enumerate(layers, start=network.first_layer):
        if on_bits:
            table = gates_of(z, draw, layer)
            outputs = gates_forward_packed(values, consumers.wiring, table)
        else:
            tau = (taus or network.layer_taus)[layer - network.first_layer]
            table = coefficients_of(z, draw, layer, tau=tau, hard=relaxation.hard)
            outputs = gates_forward_float(values, consumers.wiring, table, batch)
        if tape is not None:
            tape.tensors += values, table
        values = outputs
    return group_sums(values, network.n_groups, network.group_tau, batch)


def run_backward(
    network: NetworkSpec,
    tape: Tape,
    delta: Tensor,
    batch: int,
    use_sums: Callable[[int, Tensor], None],
    *,
    inputs_too: bool = False,
) -> Tensor | None:
    """Hand the four sums of every layer to ``use_sums(layer, sums)``, the last layer first.

    Args:
        network: the network.
        tape: from the forward pass.
        delta: float32 [n_groups, batch], the gradient of the sums over groups.
        batch: number of samples.
        use_sums: called with sums [n_parts, n_out, 4]; it may write to the layer's logits.
        inputs_too: whether to return the gradient of the inputs, float32 [n_features, batch].
    """
    upstream = Delta(delta, network.group_size)
    for layer, consumers in reversed([*enumerate(consumers_of_layers(network))]):
        inputs, table = tape.tensors[2 * layer : 2 * layer + 2]
        if layer == 0 and not inputs_too:
            use_sums(layer, backward_sums(upstream, inputs, consumers.wiring, batch))
            return None
        rows, sums = backward_inputs(
            upstream,
            inputs,
            table,
            consumers,
            batch,
            out_dtype=network.gradient_dtype if layer else torch.float32,
            factor=network.grad_factor,
        )
        upstream = Delta(rows)
        use_sums(layer, sums)
    return upstream.rows


def discrete_forward(network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor) -> Tensor:
    """Return the group sums of the discrete network, not divided: int32 [batch, n_groups].

    Args:
        network: the network.
        logits: [n_out, 16] of every layer, any real dtype.
        bits: bool [batch, n_features].
    """
    words = deque(_discrete_layers(network, logits, bits), maxlen=1).pop()
    return group_counts(words, network.n_groups, bits.shape[0])


def discrete_activity(network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor) -> Tensor:
    """Return on how many samples each gate is 1: int64 [depth, width]; see :func:`discrete_forward`."""
    layers = _discrete_layers(network, logits, bits)
    return torch.stack([reference.count_ones(words, bits.shape[0]) for words in layers])


def _discrete_layers(
    network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor
) -> Iterator[Tensor]:
    """Yield each layer's discrete outputs, packed: int64 [n_out, n_words]."""
    words = pack_bits(bits.T)
    for z, consumers in zip(logits, consumers_of_layers(network), strict=True):
        z = z.detach()
        gates = gates_of(z.contiguous()) if z.dtype in _KERNEL_DTYPES else z.argmax(-1)
        words = gates_forward_packed(words, consumers.wiring, gates)
        yield words


def training_forward(
    network: NetworkSpec, logits: Sequence[Tensor], x: Tensor, key: NoiseKey | None
) -> Tensor:
    """Return class logits float32 [batch, n_groups] of the training forward; see :class:`NetworkBackend`.

    Whether floats are bits is looked up where gates are hard, and the host waits for the answer; bool
    needs none.
    """
    return differentiable_forward(_PASSES, network, logits, x, key)


def _forward(
    network: NetworkSpec,
    key: NoiseKey | None,
    x: Tensor,
    logits: Sequence[Tensor],
    tape: Tape | None,
) -> Tensor:
    on_bits = x.dtype == torch.bool or (network.relaxation.hard and _holds_only_bits(x))
    inputs = pack_bits(x.T) if on_bits else x.T.contiguous()
    draw = None if key is None else Draw.of(key, x.device)
    return run_forward(network, logits, inputs, x.shape[0], draw, tape)


def _backward(
    network: NetworkSpec,
    key: NoiseKey | None,
    x: Tensor,
    logits: Sequence[Tensor],
    tape: Tape,
    grad: Tensor,
    inputs_too: bool,
) -> tuple[Tensor | None, Sequence[Tensor]]:
    draw = None if key is None else Draw.of(key, x.device)
    grad_logits = dict[int, Tensor]()

    def to_logits(layer: int, sums: Tensor) -> None:
        index, tau = network.first_layer + layer, network.layer_taus[layer]
        grad_logits[layer] = gradient_of(logits[layer], sums, draw, index, tau=tau)

    delta = (grad.T / network.group_tau).contiguous()
    rows = run_backward(network, tape, delta, x.shape[0], to_logits, inputs_too=inputs_too)
    return None if rows is None else rows.T, [grad_logits[layer] for layer in range(len(logits))]


_PASSES: Final = Passes(_forward, _backward)


def _holds_only_bits(x: Tensor) -> bool:
    """Return whether x holds nothing but 0 and 1 and has no gradient of its own."""
    if x.requires_grad or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return False
    return bool(((x == 0) | (x == 1)).all())
