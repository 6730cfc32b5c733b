"""Memory that a logic gate network, its training and its evaluation take, predicted from the shape.

Bytes a gate and bytes a gate and sample, counted from the arrays that each backend allocates;
``tests/base/test_memory.py`` compares them with measured peaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

import torch

from lgn_analysis.base.memory import require_memory
from lgn_analysis.gates.table import N_GATES

EVALUATED: Final = 1024
"""Samples that an evaluation takes at a time, by default."""

_WIRING: Final = 16
"""Bytes of the wiring of a gate."""
_BLOCK: Final = 64
"""Samples that the CPU kernels take together, and that share a word."""
_PLAN: Final = 44
"""Bytes a gate of the wiring tables of the CPU kernels."""
_CONSUMERS: Final = 28
"""The same of the CUDA kernels."""
_ENTROPY: Final = 3 * 8 * N_GATES
"""Bytes of a gate while its usage is counted, one layer at a time."""
_NOISE: Final = 8 * 8 * N_GATES
"""Bytes of a gate while the reference draws its noise."""
_TRACED: Final = 4
"""Numbers a gate and sample that automatic differentiation keeps."""
_PASSING: Final = 6
"""Numbers a gate and sample, one layer at a time, of a forward pass in plain PyTorch."""


class Network(Protocol):
    """The attributes that predictions read; :class:`lgn_analysis.LogicNetwork` has them."""

    n_features: int
    width: int
    depth: int
    gradient_dtype: torch.dtype

    @property
    def n_parameters(self) -> int: ...
    @property
    def relaxation_kind(self) -> Any: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def network_backend(self) -> Any: ...


def network_bytes(
    n_features: int, width: int, depth: int, dtype: torch.dtype, n_parameters: int = N_GATES
) -> int:
    """Return what making a network takes: logits, wiring, and the drawing of one layer."""
    of_gate = n_parameters * dtype.itemsize + _WIRING
    return depth * width * of_gate + width * 8 * n_parameters + 8 * n_features


def training_bytes(model: Network, *, batch_size: int, sizes: Iterable[int], draws: int = 1) -> int:
    """Return what training takes beside the model and its data: Adam, a step, and evaluations.

    Args:
        model: the network.
        batch_size: samples a step.
        sizes: samples for training, validation and test.
        draws: noise draws of a step; several add up their gradients.
    """
    n_train, *evaluated = sizes
    gates, rows = model.width * model.depth, model.n_features + model.width * model.depth
    hard, kind = model.relaxation_kind.hard, _kind(model)
    item = model.dtype.itemsize
    adam = (2 if draws == 1 else 3) * model.n_parameters * item * gates
    blocks = -(-batch_size // _BLOCK)
    packed = 2 * n_train * -(-model.n_features // _BLOCK) * 8
    usage = model.width * _ENTROPY
    if kind == "cpu":
        step = gates * (model.n_parameters * 4 + 1 + 16) + blocks * 8 * (
            rows if hard else model.n_features
        )
        step += 2 * model.width * _BLOCK * 4
        if not hard:
            step += gates * 16 + rows * _BLOCK * 4
        return adam + packed + step + usage + evaluation_bytes(model, evaluated)
    if kind == "cuda":
        gradients = 2 * model.width * batch_size * model.gradient_dtype.itemsize
        values = rows * (blocks * 8 if hard else batch_size * 4)
        tables = gates * (1 if hard else 16) + 16 * model.width * -(-batch_size // 32)
        step = gates * _CONSUMERS + values + gradients + tables
        return adam + packed + max(step + usage, evaluation_bytes(model, evaluated))
    # Gradients, and what the softmax and its gradient keep of every gate.
    step = gates * item * model.n_parameters * 4 + _TRACED * item * rows * batch_size
    step += gates * _NOISE if model.relaxation_kind.noisy else 0
    return adam + max(step, usage, evaluation_bytes(model, evaluated))


def evaluation_bytes(model: Network, sizes: Iterable[int], batch_size: int = EVALUATED) -> int:
    """Return what evaluating splits of so many samples takes, soft, noisy and discrete.

    The CPU kernels keep the memory of the last few kinds of batches, to use it again: whole ones,
    and what is left of each split.
    """
    sizes = list(sizes)
    lengths = {min(batch_size, n) for n in sizes} | {n % batch_size for n in sizes} - {0}
    longest, kind = max(lengths, default=0), _kind(model)
    if kind == "cuda":
        return longest * 4 * (2 * model.width + model.n_features)
    if kind != "cpu":
        noise = _NOISE * model.width * model.depth if model.relaxation_kind.noisy else 0
        item = model.dtype.itemsize
        return noise + longest * item * (_PASSING * model.width + model.n_features)
    gates, rows = model.width * model.depth, model.n_features + model.width * model.depth
    total = gates * _PLAN
    for length in lengths:
        blocks = -(-length // _BLOCK)
        total += gates * (model.n_parameters * 4 + 1 + 16) + blocks * 8 * model.n_features
        total += torch.get_num_threads() * rows * _BLOCK * 4
        if model.relaxation_kind.hard and model.relaxation_kind.noisy:
            total += gates * (model.n_parameters * 4 + 1) + blocks * 8 * rows
    return total


def require_training_memory(
    model: Network, *, batch_size: int, sizes: Iterable[int], draws: int = 1
) -> None:
    """Raise unless training fits the memory of the model's device; see :func:`training_bytes`."""
    require_memory(
        training_bytes(model, batch_size=batch_size, sizes=sizes, draws=draws),
        f"the steps and evaluations of {model.depth} x {model.width} gates in batches of "
        f"{batch_size}",
        "lower batch_size, width or depth",
        device=model.device,
    )


def _kind(model: Network) -> str:
    """Return which backend does the work of whole networks: cpu, cuda, or reference for none."""
    backend = model.network_backend
    whole = backend is not None and model.dtype == torch.float32
    return str(backend.NAME) if whole else "reference"
