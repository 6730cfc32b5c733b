"""Passes over a whole network: the training forward with its gradient, and the discrete network.

Where gates are hard and inputs are bits, activations are packed words from the first layer to the
last; otherwise they are floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.gates.parametrisations import GATES16, get_parametrisation
from lgn_analysis.kernels import reference
from lgn_analysis.kernels.autograd import Passes, Tape, differentiable_forward
from lgn_analysis.kernels.cpu.bits import pack_samples, to_bytes, unpack_samples
from lgn_analysis.kernels.cpu.evaluation import WORDS, choose_discrete, evaluate_packed
from lgn_analysis.kernels.cpu.logits import Rule
from lgn_analysis.kernels.cpu.passes import (
    network_backward_dense,
    network_backward_packed,
    network_forward_dense,
    network_forward_packed,
)
from lgn_analysis.kernels.cpu.runtime.layout import (
    BLOCK,
    Activations,
    Gradients,
    Outputs,
    Wires,
    count_rows,
)
from lgn_analysis.kernels.cpu.runtime.plans import (
    Array,
    Lease,
    Plan,
    empty,
    find_plan,
    read_blocks,
    write_blocks,
)
from lgn_analysis.kernels.cpu.runtime.threads import run_in_parts, run_together
from lgn_analysis.kernels.cpu.tables import LAWS
from lgn_analysis.kernels.interface import NetworkSpec, as_int64

_NO_FLOATS: Final = np.empty(0, dtype=np.float32)
_NO_COUNTS: Final = np.empty(0, dtype=np.int32)
_NO_ACTIVITY: Final = np.empty(0, dtype=np.int64)


def make_rule(network: NetworkSpec, key: NoiseKey | None, taus: Array | None = None) -> Rule:
    """Return how the kernels choose gates; the key is needed where the relaxation is noisy.

    ``taus`` float64 [n_steps, depth] are those of a run of steps, flat; None those of the pass.
    """
    relaxation = network.relaxation
    seed, purpose, draw = (0, 0, 0) if key is None else (key.seed, int(key.purpose), key.draw)
    return Rule(
        noisy=relaxation.noisy,
        hard=relaxation.hard,
        law=LAWS[network.parametrisation],
        taus=np.array(network.layer_taus) if taus is None else taus,
        seed_low=seed & 0xFFFFFFFF,
        seed_high=seed >> 32,
        purpose=purpose,
        first_layer=network.first_layer,
        draw=as_int64(draw),
    )


def addresses(tensors: Sequence[Tensor]) -> Array:
    """Return where contiguous tensors lie: int64 [len(tensors)]."""
    return np.array([tensor.data_ptr() for tensor in tensors], dtype=np.int64)


def training_forward(
    network: NetworkSpec, logits: Sequence[Tensor], x: Tensor, key: NoiseKey | None
) -> Tensor:
    """Return class logits float32 [batch, n_groups] of the training forward; see :class:`NetworkBackend`."""
    if len(x) == 0:
        return reference.training_forward(network, logits, x, key)
    return differentiable_forward(_PASSES, network, logits, x, key)


@dataclass(frozen=True)
class _Memory:
    """What the backward pass needs of the forward pass.

    Attributes:
        plan, lease: whose memory, and that it stays lent.
        activations: in that memory.
        batch: samples.
        on_bits: whether activations are words.
    """

    plan: Plan
    lease: Lease
    activations: Activations
    batch: int
    on_bits: bool

    @property
    def work(self) -> float:
        """Gates times samples."""
        return float(self.plan.wires.depth * self.plan.wires.width * self.batch)


def _run_forward(
    network: NetworkSpec,
    key: NoiseKey | None,
    x: Tensor,
    logits: Sequence[Tensor],
    tape: Tape | None,
) -> Tensor:
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
    on_bits, n_rows = network.relaxation.hard and octets is not None, count_rows(wires)

    sizes: dict[str, tuple[int, Any]] = {
        "weights": (n_gates * network.n_parameters, np.float32),
        "gates": (n_gates, np.uint8),
    }
    if on_bits:
        sizes["words"] = (n_blocks * n_rows, np.int64)
    else:
        sizes["coefficients"] = (n_gates * 4, np.float32)
        blocks_held = torch.get_num_threads() if tape is None else n_blocks
        sizes["values"] = (blocks_held * n_rows * BLOCK, np.float32)
        sizes["words"] = (0 if octets is None else n_blocks * wires.n_features, np.int64)
    lease = plan.lease(sizes)
    words = lease["words"]
    activations = Activations(
        n_blocks=n_blocks,
        keeps=tape is not None,
        weights=lease["weights"],
        gates=lease["gates"],
        coefficients=_NO_FLOATS if on_bits else lease["coefficients"],
        words=words,
        inputs=_blocks(x) if octets is None else _NO_FLOATS,
        values=_NO_FLOATS if on_bits else lease["values"],
    )
    memory = _Memory(plan, lease, activations, batch, on_bits)
    if tape is not None:
        tape.memory = memory
    if octets is not None:
        stride = n_rows if on_bits else wires.n_features
        pack_samples(octets, wires.n_features, batch, words, stride, 1)
    # A group of one gate is that gate: nothing is summed.
    has_groups = not on_bits or network.group_size > 1
    sums = empty(n_blocks * wires.n_groups * BLOCK if has_groups else 0, np.float32)
    group_tau = float(network.group_tau)
    run_together(
        network_forward_packed if on_bits else network_forward_dense,
        wires,
        addresses(logits),
        make_rule(network, key),
        activations,
        Outputs(sums, wires.n_groups, group_tau),
        work=memory.work,
    )
    if has_groups:
        return _samples(sums, n_blocks, batch)
    outputs = torch.empty(batch, wires.width, dtype=torch.float32)
    last = words[n_rows - wires.width :]
    unpack_samples(last, n_rows, wires.width, batch, outputs.numpy().reshape(-1))
    return outputs if group_tau == 1.0 else outputs / group_tau


def _run_backward(
    network: NetworkSpec,
    key: NoiseKey | None,
    x: Tensor,
    logits: Sequence[Tensor],
    tape: Tape,
    grad: Tensor,
    inputs_too: bool,
) -> tuple[Tensor | None, Sequence[Tensor]]:
    memory: _Memory = tape.memory
    wires, n_blocks = memory.plan.wires, memory.activations.n_blocks
    workspace = memory.plan.lease(
        {
            "deltas": (n_blocks * wires.n_groups * BLOCK + 2 * wires.width * BLOCK, np.float32),
            "sums": (wires.depth * wires.width * 4, np.float32),
        }
    )
    _blocks(grad.detach() / network.group_tau, out=workspace["deltas"])
    inputs = empty(n_blocks * wires.n_features * BLOCK if inputs_too else 0, np.float32)
    shape = (wires.depth, wires.width, network.n_parameters)
    grad_logits = torch.empty(shape, dtype=torch.float32)
    factor = np.float32(network.grad_factor)
    run_together(
        network_backward_packed if memory.on_bits else network_backward_dense,
        wires,
        make_rule(network, key),
        memory.activations,
        Gradients(workspace["deltas"], workspace["sums"], inputs, factor),
        grad_logits.numpy().reshape(-1),
        work=memory.work,
    )
    of_inputs = _samples(inputs, n_blocks, memory.batch) if inputs_too else None
    return of_inputs, grad_logits.unbind()


_PASSES: Final = Passes(_run_forward, _run_backward)


def _as_octets(x: Tensor) -> Array | None:
    """Return float32 x as bytes, flat, if it holds nothing but 0 and 1."""
    values = x.numpy().reshape(-1)
    octets = np.empty(len(values), dtype=np.uint8)
    return octets if to_bytes(values, octets) else None


def _blocks(x: Tensor, out: Array | None = None) -> Array:
    """Return [batch, n] as float32 [n_blocks, n, 64], zero beyond the batch; into ``out`` if given."""
    batch, n = x.shape
    n_blocks = -(-batch // BLOCK)
    if out is None:
        out = empty(n_blocks * n * BLOCK, np.float32)
    write_blocks(x, torch.from_numpy(out[: n_blocks * n * BLOCK]).view(n_blocks, n, BLOCK))
    return out


def _samples(blocks: Array, n_blocks: int, batch: int) -> Tensor:
    """Return float32 [n_blocks, n, 64] as a tensor [batch, n]."""
    return read_blocks(torch.from_numpy(blocks).view(n_blocks, -1, BLOCK), batch)


def discrete_forward(network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor) -> Tensor:
    """Return the group sums of the discrete network, not divided: int32 [batch, n_groups].

    Args:
        network: the network, its layers of one width.
        logits: [width, 16] of every layer, or what its parametrisation has instead.
        bits: bool [batch, n_features].
    """
    counts = torch.empty(bits.shape[0], network.n_groups, dtype=torch.int32)
    wires = find_plan(network.wirings, network.n_features, network.n_groups).wires
    _evaluate(network, wires, logits, bits, counts=counts.numpy().reshape(-1))
    return counts


def discrete_activity(network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor) -> Tensor:
    """Return on how many samples each gate is 1: int64 [depth, width]; see :func:`discrete_forward`."""
    wires = find_plan(network.wirings, network.n_features, network.n_groups).wires
    by_position = np.zeros((wires.depth, wires.width), dtype=np.int64)
    _evaluate(network, wires, logits, bits, activity=by_position.reshape(-1))
    activity = torch.empty(by_position.shape, dtype=torch.int64)
    np.put_along_axis(activity.numpy(), _gate_order(wires), by_position, axis=1)
    return activity


def _gate_order(wires: Wires) -> NDArray[np.int64]:
    """Return the gate at each position: int64 [depth, width]."""
    n_gates = wires.depth * wires.width
    return wires.gate_at[:n_gates].reshape(wires.depth, wires.width).astype(np.int64)


def _evaluate(
    network: NetworkSpec,
    wires: Wires,
    logits: Sequence[Tensor],
    bits: Tensor,
    counts: NDArray[np.int32] = _NO_COUNTS,
    activity: NDArray[np.int64] = _NO_ACTIVITY,
) -> None:
    """Run :func:`evaluate_packed` on the gates that the logits choose."""
    batch, n_gates = bits.shape[0], wires.depth * wires.width
    gates = np.empty(n_gates, dtype=np.uint8)
    plain = all(z.dtype == torch.float32 and z.is_contiguous() for z in logits)
    if plain and network.parametrisation == GATES16:
        where = addresses([z.detach() for z in logits])
        run_together(choose_discrete, wires, where, gates, work=2.0 * n_gates)
    else:
        law = get_parametrisation(network.parametrisation)
        chosen = torch.stack([law.gates(z) for z in logits]).numpy()
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
