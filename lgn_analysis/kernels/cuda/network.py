"""A whole network's training forward and backward, as one node of autograd.

Where gates are hard and inputs are bits, activations are packed words from the first layer to the
last; otherwise they are floats. Floats of the backward pass live for one layer only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.gates.noise import NoiseKey, gumbel
from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.cuda.backward import Delta, backward_inputs, backward_sums
from lgn_analysis.kernels.cuda.bits import pack_bits
from lgn_analysis.kernels.cuda.consumers import consumers_of_layers
from lgn_analysis.kernels.cuda.forward import (
    gates_forward_float,
    gates_forward_packed,
    group_counts,
    group_sums,
)
from lgn_analysis.kernels.cuda.relax import Draw, Tau, coefficients_of, gates_of, gradient_of
from lgn_analysis.kernels.interface import NetworkSpec

_KERNEL_DTYPES: Final = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Tape:
    """What the backward pass needs of the forward pass, a tensor a layer.

    Attributes:
        inputs: packed words int64 [n_in, n_words], or floats [n_in, batch].
        tables: gate numbers uint8 [n_out] on packed words, coefficients [n_out, 4] on floats.
    """

    inputs: list[Tensor]
    tables: list[Tensor]


def run_forward(
    network: NetworkSpec,
    logits: Sequence[Tensor],
    inputs: Tensor,
    batch: int,
    draw: Draw | None,
    tape: Tape | None = None,
    taus: Sequence[Tau] | None = None,
) -> Tensor:
    """Return class logits float32 [batch, n_groups].

    Args:
        network: the network.
        logits: float32 [n_out, 16] of every layer.
        inputs: packed words int64 [n_features, n_words], or floats [n_features, batch].
        batch: number of samples.
        draw: the noise, given exactly when the relaxation is noisy.
        tape: takes what the backward pass needs.
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
            place = layer - network.first_layer
            tau = network.tau_of(place) if taus is None else taus[place]
            table = coefficients_of(z, draw, layer, tau=tau, hard=relaxation.hard)
            outputs = gates_forward_float(values, consumers.wiring, table, batch)
        if tape is not None:
            tape.inputs.append(values)
            tape.tables.append(table)
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
        inputs, table = tape.inputs[layer], tape.tables[layer]
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
    """Return class logits float32 [batch, n_groups] of the training forward, differentiable once.

    Args:
        network: the network.
        logits: float32 [n_out, 16] of every layer.
        x: bool or float32 [batch, n_features]. Whether floats are bits is looked up where gates
            are hard, and the host waits for the answer; bool needs none.
        key: the noise, given exactly when the relaxation is noisy.

    Raises:
        NotDifferentiableError: where a derivative is asked for that does not exist, or not here: a
            second one of a straight-through gradient, or one in forward mode. The second derivative
            of a soft relaxation exists, and the reference computes it.
    """
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *logits))
    tape = Tape([], []) if wanted else None
    result: Tensor = _TrainingForward.apply(network, key, tape, x, *logits)
    return result


class _TrainingForward(torch.autograd.Function):
    @staticmethod
    def forward(
        network: NetworkSpec, key: NoiseKey | None, tape: Tape | None, x: Tensor, *logits: Tensor
    ) -> Tensor:
        on_bits = x.dtype == torch.bool or (network.relaxation.hard and _holds_only_bits(x))
        inputs = pack_bits(x.T) if on_bits else x.T.contiguous()
        draw = None if key is None else Draw.of(key, x.device)
        return run_forward(network, logits, inputs, x.shape[0], draw, tape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.network, ctx.key, tape, *tensors = inputs
        if tape is not None:
            ctx.save_for_backward(*tensors, *tape.inputs, *tape.tables)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        saved, depth = ctx.saved_tensors, len(ctx.network.wirings)
        x, logits = saved[0], saved[1 : depth + 1]
        if torch.is_grad_enabled() and not ctx.network.relaxation.hard:
            # create_graph=True: the gradient is to be differentiated again.
            result = _reference_gradient(ctx.network, ctx.key, x, logits, grads[0])
        else:
            tape = Tape([*saved[depth + 1 : 2 * depth + 1]], [*saved[2 * depth + 1 :]])
            inputs_too = bool(ctx.needs_input_grad[3])
            result = _TrainingBackward.apply(
                ctx.network, ctx.key, tape, inputs_too, grads[0], x, *logits
            )
        return None, None, None, *result

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotDifferentiableError(_NO_TANGENT)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, network: NetworkSpec, key: NoiseKey | None, *rest: Any
    ) -> Any:
        # One network at a time is what the kernels are for; many together the reference can do.
        forward = torch.vmap(_reference_forward(network, key), in_dims=tuple(in_dims[3:]))
        return forward(*rest[1:]), 0


class _TrainingBackward(torch.autograd.Function):
    """The gradient, whose own derivative is refused."""

    @staticmethod
    def forward(
        network: NetworkSpec,
        key: NoiseKey | None,
        tape: Tape,
        inputs_too: bool,
        grad: Tensor,
        x: Tensor,
        *logits: Tensor,
    ) -> tuple[Tensor | None, ...]:
        draw = None if key is None else Draw.of(key, x.device)
        gradients: list[Tensor | None] = [None] * len(logits)

        def to_logits(layer: int, sums: Tensor) -> None:
            z = logits[layer]
            index = network.first_layer + layer
            gradients[layer] = gradient_of(z, sums, draw, index, tau=network.tau_of(layer))

        delta = (grad.T / network.group_tau).contiguous()
        rows = run_backward(network, tape, delta, x.shape[0], to_logits, inputs_too=inputs_too)
        return None if rows is None else rows.T, *gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotDifferentiableError(_NO_SECOND_DERIVATIVE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotDifferentiableError(_NO_SECOND_DERIVATIVE)


def _holds_only_bits(x: Tensor) -> bool:
    """Return whether x holds nothing but 0 and 1 and has no gradient of its own."""
    if x.requires_grad or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return False
    return bool(((x == 0) | (x == 1)).all())


def _reference_forward(network: NetworkSpec, key: NoiseKey | None) -> Callable[..., Tensor]:
    """Return the same forward in plain PyTorch, a function of x and the logits."""

    def forward(x: Tensor, *logits: Tensor) -> Tensor:
        values = x.T.to(logits[0].dtype)
        layers = zip(logits, network.wirings, strict=True)
        for layer, (z, wiring) in enumerate(layers, start=network.first_layer):
            g = None if key is None else gumbel(key, layer, z.shape[0], device=z.device)
            weights = network.training_weights(layer - network.first_layer, z, g)
            coefficients = gate_coefficients(weights)
            if network.grad_factor != 1.0:
                values = values.detach() + network.grad_factor * (values - values.detach())
            values = reference.gate_layer(values, wiring, coefficients)
        return values.T.unflatten(-1, (network.n_groups, -1)).sum(-1) / network.group_tau

    return forward


def _reference_gradient(
    network: NetworkSpec, key: NoiseKey | None, x: Tensor, logits: Sequence[Tensor], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradient of x and of the logits in plain PyTorch, differentiable again."""
    forward = _reference_forward(network, key)
    if not x.is_floating_point():
        return None, *torch.func.vjp(lambda *z: forward(x, *z), *logits)[1](grad)
    gradients: tuple[Tensor | None, ...] = torch.func.vjp(forward, x, *logits)[1](grad)
    return gradients


_NO_SECOND_DERIVATIVE: Final = (
    "a straight-through gradient is the gradient of no function, so it has no derivative and no "
    'Hessian; differentiate the network in soft mode instead: model(x, mode="soft")'
)
_NO_TANGENT: Final = (
    "the CUDA training forward has no forward-mode derivative; use backward(), soft mode "
    '(model(x, mode="soft")), or a model made with backend="reference"'
)
