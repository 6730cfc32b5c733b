"""A whole network's training forward and backward, as one node of autograd.

Where gates are hard and inputs are bits, activations are packed words from the first layer to the
last; otherwise they are floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lgn_analysis.base.errors import NotDifferentiableError
from lgn_analysis.gates.noise import NoiseKey, gumbel
from lgn_analysis.gates.table import N_GATES, gate_coefficients
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.cpu.bits import pack_samples, to_bytes, unpack_samples
from lgn_analysis.kernels.cpu.logits import Rule
from lgn_analysis.kernels.cpu.network import (
    network_backward_dense,
    network_backward_packed,
    network_forward_dense,
    network_forward_packed,
)
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK, count_rows
from lgn_analysis.kernels.cpu.runtime.plans import Array, Lease, Plan, empty, find_plan
from lgn_analysis.kernels.cpu.runtime.threads import run_together
from lgn_analysis.kernels.interface import NetworkSpec

_NONE: Final = np.empty(0, dtype=np.float32)


def make_rule(network: NetworkSpec, key: NoiseKey | None, taus: Array | None = None) -> Rule:
    """Return how the kernels choose gates; the key is given exactly when the relaxation is noisy.

    ``taus`` float64 [n_steps, depth] are those of a run of steps, flat; None those of the pass.
    """
    relaxation = network.relaxation
    seed, purpose = (0, 0) if key is None else (key.seed, int(key.purpose))
    return Rule(
        noisy=key is not None,
        hard=relaxation.hard,
        taus=layer_taus(network) if taus is None else taus,
        seed_low=seed & 0xFFFFFFFF,
        seed_high=seed >> 32,
        purpose=purpose,
        first_layer=network.first_layer,
    )


def layer_taus(network: NetworkSpec) -> Array:
    """Return the temperature of every layer's training forward: float64 [depth]."""
    depth = len(network.wirings)
    return np.array([network.tau_of(layer) for layer in range(depth)], dtype=np.float64)


def addresses(tensors: Sequence[Tensor]) -> Array:
    """Return where contiguous tensors lie: int64 [len(tensors)]."""
    return np.array([tensor.data_ptr() for tensor in tensors], dtype=np.int64)


def as_int64(word: int) -> int:
    """Return 0 <= word < 2**64 as the int64 with the same bits."""
    return word - 2**64 if word >= 2**63 else word


@dataclass(frozen=True)
class Tape:
    """What the backward pass needs of the forward pass."""

    plan: Plan
    arrays: Lease
    on_bits: bool
    batch: int

    @property
    def n_blocks(self) -> int:
        """Blocks of 64 samples."""
        return -(-self.batch // BLOCK)

    @property
    def work(self) -> float:
        """Gates times samples."""
        return float(self.plan.wires.depth * self.plan.wires.width * self.batch)


def training_forward(
    network: NetworkSpec, logits: Sequence[Tensor], x: Tensor, key: NoiseKey | None
) -> Tensor:
    """Return class logits float32 [batch, n_groups] of the training forward, differentiable once.

    Args:
        network: the network, its layers of one width.
        logits: float32 [width, 16] of every layer.
        x: bool or float32 [batch, n_features].
        key: the noise, given exactly when the relaxation is noisy.

    Raises:
        NotDifferentiableError: where a second derivative of a straight-through gradient is asked
            for. That of a soft relaxation exists, and the reference computes it.
    """
    if len(x) == 0:
        return _reference_forward(network, key, x, logits)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *logits)):
        result: Tensor = _TrainingForward.apply(network, key, x, *logits)
        return result
    return _run_forward(network, key, x, logits, keeps=False)[0]


def _run_forward(
    network: NetworkSpec, key: NoiseKey | None, x: Tensor, logits: Sequence[Tensor], *, keeps: bool
) -> tuple[Tensor, Tape]:
    plan = find_plan(
        network.wirings, network.n_features, network.n_groups, first_layer=network.first_layer
    )
    wires, batch = plan.wires, x.shape[0]
    n_blocks, n_gates = -(-batch // BLOCK), wires.depth * wires.width
    x = x.detach().contiguous()
    logits = [z.detach().contiguous() for z in logits]
    octets = x.view(torch.uint8).numpy().reshape(-1) if x.dtype == torch.bool else None
    if octets is None and network.relaxation.hard:
        octets = _as_octets(x)
    on_bits = network.relaxation.hard and octets is not None

    sizes: dict[str, tuple[int, Any]] = {
        "weights": (n_gates * N_GATES, np.float32),
        "gates": (n_gates, np.uint8),
    }
    if on_bits:
        sizes["words"] = (n_blocks * count_rows(wires), np.int64)
    else:
        sizes["coefficients"] = (n_gates * 4, np.float32)
        blocks_held = n_blocks if keeps else torch.get_num_threads()
        sizes["values"] = (blocks_held * count_rows(wires) * BLOCK, np.float32)
        sizes["words"] = (0 if octets is None else n_blocks * wires.n_features, np.int64)
    arrays = plan.lease(sizes)
    tape = Tape(plan, arrays, on_bits, batch)
    start = (
        wires,
        addresses(logits),
        make_rule(network, key),
        as_int64(0 if key is None else key.draw),
        arrays["weights"],
        arrays["gates"],
    )
    # A group of one gate is that gate: nothing is summed.
    has_groups = not on_bits or network.group_size > 1
    sums = empty(n_blocks * wires.n_groups * BLOCK if has_groups else 0, np.float32)
    words, n_rows, group_tau = arrays["words"], count_rows(wires), float(network.group_tau)
    if octets is not None:
        stride = n_rows if on_bits else wires.n_features
        pack_samples(octets, wires.n_features, batch, words, stride, 1)
    if on_bits:
        run_together(
            network_forward_packed, *start, words, n_blocks, group_tau, sums, work=tape.work
        )
    else:
        run_together(
            network_forward_dense,
            *start,
            arrays["coefficients"],
            words,
            _blocks(x) if octets is None else _NONE,
            arrays["values"],
            keeps,
            n_blocks,
            group_tau,
            sums,
            work=tape.work,
        )
    if has_groups:
        return _samples(sums, n_blocks, batch), tape
    outputs = torch.empty(batch, wires.width, dtype=torch.float32)
    last = words[n_rows - wires.width :]
    unpack_samples(last, n_rows, wires.width, batch, outputs.numpy().reshape(-1))
    return outputs if group_tau == 1.0 else outputs / group_tau, tape


def _as_octets(x: Tensor) -> Array | None:
    """Return float32 x as bytes, flat, if it holds nothing but 0 and 1."""
    values = x.numpy().reshape(-1)
    octets = np.empty(len(values), dtype=np.uint8)
    return octets if to_bytes(values, octets) else None


def _run_backward(
    network: NetworkSpec, tape: Tape, grad: Tensor, *, inputs_too: bool
) -> tuple[Tensor | None, list[Tensor]]:
    wires, arrays, n_blocks = tape.plan.wires, tape.arrays, tape.n_blocks
    workspace = tape.plan.lease(
        {
            "deltas": (n_blocks * wires.n_groups * BLOCK + 2 * wires.width * BLOCK, np.float32),
            "sums": (wires.depth * wires.width * 4, np.float32),
        }
    )
    _blocks(grad.detach() / network.group_tau, out=workspace["deltas"])
    inputs = empty(n_blocks * wires.n_features * BLOCK if inputs_too else 0, np.float32)
    gradients = torch.empty(wires.depth, wires.width, N_GATES, dtype=torch.float32)
    start = (wires, layer_taus(network), arrays["weights"])
    end = (workspace["sums"], inputs, gradients.numpy().reshape(-1))
    factor = float(network.grad_factor)
    if tape.on_bits:
        run_together(
            network_backward_packed,
            *start,
            arrays["gates"],
            arrays["words"],
            n_blocks,
            workspace["deltas"],
            factor,
            *end,
            work=tape.work,
        )
    else:
        run_together(
            network_backward_dense,
            *start,
            arrays["coefficients"],
            arrays["values"],
            n_blocks,
            workspace["deltas"],
            factor,
            *end,
            work=tape.work,
        )
    of_inputs = _samples(inputs, n_blocks, tape.batch) if inputs_too else None
    return of_inputs, list(gradients.unbind())


def _blocks(x: Tensor, out: Array | None = None) -> Array:
    """Return [batch, n] as float32 [n_blocks, n, 64], zero beyond the batch; into ``out`` if given."""
    batch, n = x.shape
    n_blocks = -(-batch // BLOCK)
    if out is None:
        out = empty(n_blocks * n * BLOCK, np.float32)
    blocks = torch.from_numpy(out[: n_blocks * n * BLOCK]).view(n_blocks, n, BLOCK)
    whole = batch // BLOCK
    blocks[:whole].copy_(x[: whole * BLOCK].unflatten(0, (whole, BLOCK)).transpose(1, 2))
    if whole < n_blocks:
        rest = batch - whole * BLOCK
        blocks[whole, :, :rest] = x[whole * BLOCK :].T
        blocks[whole, :, rest:] = 0.0
    return out


def _samples(blocks: Array, n_blocks: int, batch: int) -> Tensor:
    """Return float32 [n_blocks, n, 64] as a tensor [batch, n]."""
    rows = torch.from_numpy(blocks).view(n_blocks, -1, BLOCK)
    return rows.transpose(1, 2).flatten(0, 1)[:batch]


class _TrainingForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, network: NetworkSpec, key: NoiseKey | None, x: Tensor, *logits: Tensor
    ) -> Tensor:
        outputs, ctx.tape = _run_forward(network, key, x, logits, keeps=True)
        ctx.network, ctx.key = network, key
        ctx.save_for_backward(x, *logits)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, *logits = ctx.saved_tensors
        if torch.is_grad_enabled() and not ctx.network.relaxation.hard:
            # create_graph=True: the gradient is to be differentiated again.
            result = _reference_gradient(ctx.network, ctx.key, x, logits, grads[0])
        else:
            inputs_too = bool(ctx.needs_input_grad[2])
            result = _TrainingBackward.apply(
                ctx.network, ctx.tape, inputs_too, grads[0], x, *logits
            )
        return None, None, *result


class _TrainingBackward(torch.autograd.Function):
    """The gradient, whose own derivative is refused."""

    @staticmethod
    def forward(
        ctx: Any,
        network: NetworkSpec,
        tape: Tape,
        inputs_too: bool,
        grad: Tensor,
        x: Tensor,
        *logits: Tensor,
    ) -> tuple[Tensor | None, ...]:
        of_inputs, of_logits = _run_backward(network, tape, grad, inputs_too=inputs_too)
        return of_inputs, *of_logits

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotDifferentiableError(_NO_SECOND_DERIVATIVE)


def _reference_forward(
    network: NetworkSpec, key: NoiseKey | None, x: Tensor, logits: Sequence[Tensor]
) -> Tensor:
    """Return the class logits in plain PyTorch, differentiable any number of times."""
    values = x.T.to(logits[0].dtype)
    for layer, (z, wiring) in enumerate(zip(logits, network.wirings, strict=True)):
        place = network.first_layer + layer
        g = None if key is None else gumbel(key, place, z.shape[0], device=z.device)
        coefficients = gate_coefficients(network.training_weights(layer, z, g))
        if network.grad_factor != 1.0:
            values = values.detach() + network.grad_factor * (values - values.detach())
        values = reference.gate_layer(values, wiring, coefficients)
    return values.T.unflatten(-1, (network.n_groups, -1)).sum(-1) / network.group_tau


def _reference_gradient(
    network: NetworkSpec, key: NoiseKey | None, x: Tensor, logits: Sequence[Tensor], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradient of x and of the logits in plain PyTorch, differentiable again."""

    def forward(x: Tensor, *z: Tensor) -> Tensor:
        return _reference_forward(network, key, x, z)

    if not x.is_floating_point():
        return None, *torch.func.vjp(lambda *z: forward(x, *z), *logits)[1](grad)
    gradients: tuple[Tensor | None, ...] = torch.func.vjp(forward, x, *logits)[1](grad)
    return gradients


_NO_SECOND_DERIVATIVE: Final = (
    "a straight-through gradient is the gradient of no function, so it has no derivative and no "
    'Hessian; differentiate the network in soft mode instead: model(x, mode="soft")'
)
