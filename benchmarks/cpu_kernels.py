"""Each CPU kernel by itself: time, bytes it must move, and that against a copy of the same size.

The bytes of a kernel are those that it reads and writes if every row is brought near once for each
time it is needed: a gradient that two gates need, twice. A copy is timed on as many bytes as the
kernel touches, so that both run out of the same cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from contenders import GROUP_TAU, N_CLASSES, Batches, Size, our_model
from harness import quartiles, repeated, time_in_turns

import lgn_analysis as lgn
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.kernels import cpu
from lgn_analysis.kernels.cpu import dense, logits, network, packed
from lgn_analysis.kernels.cpu.bits import N_PLANES
from lgn_analysis.kernels.cpu.runtime import threads, workers
from lgn_analysis.kernels.cpu.runtime.compiling import entry
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK, count_rows
from lgn_analysis.kernels.cpu.runtime.plans import find_plan
from lgn_analysis.kernels.cpu.training import run, steps


@entry
def choose_gates(worker, wires, work, rule, adam):
    workers.barrier(worker)
    span = workers.shard(wires.depth * wires.width, worker)
    steps._choose_gates(wires, work, rule, adam.logits, 0, span, logits.make_scratch())


@entry
def move_gates(worker, wires, work, rule, adam):
    workers.barrier(worker)
    span = workers.shard(wires.depth * wires.width, worker)
    steps._move_gates(wires, work, rule, adam, 1, 0, span, False, logits.make_scratch())


@entry
def gather_batch(worker, wires, batches, words, n_rows):
    workers.barrier(worker)
    square = np.empty(BLOCK, dtype=np.int64)
    steps._gather_batch(wires, batches, 0, worker, square, words, n_rows)


@entry
def forward_packed(worker, wires, work):
    workers.barrier(worker)
    packed.forward_packed(worker, wires, work.activations)


@entry
def group_sums_packed(worker, wires, work):
    workers.barrier(worker)
    planes = np.empty(N_PLANES, dtype=np.int64)
    packed.group_sums_packed(worker, wires, work.activations, planes, work.outputs)


@entry
def backward_packed(worker, wires, work):
    workers.barrier(worker)
    packed.backward_packed(worker, wires, work.activations, work.gradients)


@entry
def forward_dense(worker, wires, work):
    workers.barrier(worker)
    for _ in range(work.activations.n_blocks):
        dense.forward_dense(worker, wires, work.activations, 0)


@entry
def backward_dense(worker, wires, work):
    workers.barrier(worker)
    for block in range(work.activations.n_blocks):
        dense.backward_dense(worker, wires, work.activations, work.gradients, block, 0)


@dataclass(frozen=True)
class Kernel:
    """A kernel at work: how to run it, and the bytes that it moves and that it touches."""

    name: str
    run: Callable[[], Any]
    moved: float
    touched: float


def kernels(size: Size) -> Iterator[Kernel]:
    """Yield the kernels of a Gumbel-ST step, then those of a soft one."""
    for relaxation in (lgn.GumbelST(), lgn.Soft()):
        yield from _kernels(size, relaxation)


def kernel_table(size: Size, *, rounds: int) -> list[dict[str, Any]]:
    """Return a row a kernel, on one thread: microseconds, GB/s, GB/s of a copy, and the share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = [_row(kernel, size, rounds) for kernel in kernels(size)]
    torch.set_num_threads(before)
    return rows


def _row(kernel: Kernel, size: Size, rounds: int) -> dict[str, Any]:
    variants = {
        "kernel": repeated(kernel.run),
        "copy": repeated(_copy(kernel.touched)),
    }
    times = time_in_turns(variants, rounds=rounds)
    milliseconds = quartiles(times["kernel"])[1]
    achieved = kernel.moved / milliseconds / 1e6
    copied = kernel.touched / quartiles(times["copy"])[1] / 1e6
    return {
        "kernel": kernel.name,
        "microseconds": round(1e3 * milliseconds, 1),
        "ns_per_gate": round(1e6 * milliseconds / size.n_gates, 2),
        "moved_mb": round(kernel.moved / 1e6, 2),
        "gb_per_s": round(achieved, 1),
        "copy_gb_per_s": round(copied, 1),
        "share_of_copy": round(achieved / copied, 2),
    }


def _copy(n_bytes: float) -> Callable[[], None]:
    """Return a copy that reads half of the bytes and writes the other half."""
    source = torch.ones(max(1, int(n_bytes) // 8))
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    return copy


def _kernels(size: Size, relaxation: lgn.Relaxation) -> Iterator[Kernel]:
    model = our_model(size, relaxation, "cpu")
    spec = replace(model.as_spec(), group_tau=GROUP_TAU)
    parameters = [z.detach() for z in model.parameters()]
    moments = [[torch.zeros_like(z) for z in parameters] for _ in range(2)]
    plan = find_plan(spec.wirings, size.n_features, N_CLASSES)
    wires, work = plan.wires, run.make_workspace(plan.wires, size.batch, spec, draws=1)
    data = Batches(size, torch.bool)
    order = np.arange(size.batch, dtype=np.int64)
    packed = cpu.pack_bits(data.x).numpy().reshape(-1)
    scale = 1.0 / (size.batch * GROUP_TAU)
    batches = steps.Batches(packed, data.y.numpy(), order, size.batch, 1, scale)
    key = NoiseKey(0, Purpose.TRAINING) if relaxation.noisy else None
    rule = network.make_rule(spec, key)
    where = [network.addresses(tensors) for tensors in (parameters, *moments)]
    adam = logits.Adam(0.9, 0.999, 1e-8, 0.0, np.full(1, 0.01), 0, *where)
    n_blocks, n_gates = -(-size.batch // BLOCK), size.n_gates
    work.gradients.deltas[:], work.activations.values[:] = 0.01, 0.5
    work.activations.words[:] = 0
    losses = np.zeros(1)
    train = steps.train_packed if relaxation.hard else steps.train_dense

    def call(kernel: Any, *arguments: Any) -> Callable[[], None]:
        return lambda: threads.run_together(kernel, *arguments, work=float(n_gates * size.batch))

    call(
        train, wires, work, rule, adam, batches, losses
    )()  # so that every array holds what it would hold
    row, hidden = 4 * BLOCK * n_blocks, size.width * (size.depth - 1)
    state = 64.0 * n_gates
    kind = relaxation.name
    yield Kernel(
        f"choose gates, {kind}",
        call(choose_gates, wires, work, rule, adam),
        2 * state,
        2 * state,
    )
    if relaxation.noisy:
        yield Kernel(
            "softmax backward and Adam",
            call(move_gates, wires, work, rule, adam),
            7 * state + 16 * n_gates,
            4 * state,
        )
    if relaxation.hard:
        bits = 8.0 * n_blocks
        index = 13.0  # two inputs, the gate's number and its kind
        yield Kernel(
            "gather and transpose the batch",
            call(gather_batch, wires, batches, work.activations.words, count_rows(wires)),
            2 * bits * size.n_features,
            2 * bits * size.n_features,
        )
        yield Kernel(
            "gates forward on bits",
            call(forward_packed, wires, work),
            n_gates * (3 * bits + n_blocks * index),
            n_gates * (bits + index),
        )
        yield Kernel(
            "group sums on bits",
            call(group_sums_packed, wires, work),
            size.width * bits,
            size.width * bits,
        )
        entry_bytes = n_blocks * (2 * 12.0 + 4 + 12)  # consumers, where they start, inputs
        yield Kernel(
            "gates backward on bits",
            call(backward_packed, wires, work),
            hidden * (3 * row + 2 * bits + entry_bytes) + n_gates * (2 * bits + 16 * n_blocks),
            2 * size.width * 4 * BLOCK + n_gates * (16 + bits),
        )
    else:
        values = 4.0 * BLOCK * count_rows(wires)
        yield Kernel(
            "gates forward on floats",
            call(forward_dense, wires, work),
            n_gates * (3.0 * row + n_blocks * 28),
            values,
        )
        yield Kernel(
            "gates backward on floats",
            call(backward_dense, wires, work),
            hidden * 5.0 * row + n_gates * (2.0 * row + n_blocks * 60),
            values + 2 * size.width * 4 * BLOCK,
        )
