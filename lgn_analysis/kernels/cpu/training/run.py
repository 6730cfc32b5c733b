"""Training steps of one network on given data, many steps a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.gates.relaxations import CAGE
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.kernels.cpu.autograd import addresses, as_int64, make_rule
from lgn_analysis.kernels.cpu.logits import Adam
from lgn_analysis.kernels.cpu.runtime.layout import BLOCK, Wires, count_rows
from lgn_analysis.kernels.cpu.runtime.plans import empty, find_plan
from lgn_analysis.kernels.cpu.runtime.threads import run_together
from lgn_analysis.kernels.cpu.training.confidence import Adaptation
from lgn_analysis.kernels.cpu.training.steps import (
    Batches,
    Parameters,
    Workspace,
    train_dense,
    train_packed,
)
from lgn_analysis.kernels.interface import AdamRule, Moments, NetworkSpec, check_taus


@dataclass(frozen=True)
class PackedSamples:
    """Training inputs as words int64 [n, ceil(n_features / 64)], feature 0 lowest."""

    words: Tensor
    n_features: int


class TrainingRun:
    """Steps of one network; parameters and moments are written in place.

    Args:
        network: the network; its relaxation's training forward is trained, on bits.
        logits: float32 [width, 16] of every layer, contiguous.
        moments: Adam's state of every layer, contiguous.
        samples: the training inputs.
        labels: int64 [n].
        adam: Adam's constants.

    Raises:
        InvalidInputError: a label that is no group's number, or logits that do not lie in one piece.
    """

    def __init__(
        self,
        network: NetworkSpec,
        logits: Sequence[Tensor],
        moments: Sequence[Moments],
        samples: PackedSamples,
        labels: Tensor,
        adam: AdamRule,
    ) -> None:
        self._network = network
        self._logits = [z.detach() for z in logits]
        self._moments = list(moments)
        self._data = samples.words.numpy().reshape(-1)
        self._labels = labels.contiguous().numpy()
        # The kernels go where they are told without asking what is there.
        if not all(z.is_contiguous() for z in self._logits):
            raise InvalidInputError("logits must be contiguous; store logits.contiguous()")
        check_range("labels", self._labels, network.n_groups)
        self._adam = adam
        self._batch = 0
        self._work: Workspace | None = None

    def run(
        self,
        order: Tensor,
        key: NoiseKey,
        *,
        steps_done: int,
        lr: float | None = None,
        taus: Sequence[float] | None = None,
    ) -> Tensor:
        """Take a step for each row of ``order`` and return their mean losses.

        Args:
            order: int64 [n_steps, batch], which samples each step takes.
            key: the noise of the first step; the draw goes up by one a step.
            steps_done: Adam's steps before these.
            lr: the learning rate of these steps; None is Adam's own.
            taus: [n_steps], the gate temperature of each step; None is the relaxation's own.

        Returns:
            float64 [n_steps]. Where one is not finite, its step and those behind it, whose losses
            are NaN, have moved nothing.
        """
        n_steps, batch = order.shape
        network = self._network
        wires = find_plan(network.wirings, network.n_features, network.n_groups).wires
        check_taus(network, taus, n_steps)
        if self._work is None or self._batch != batch:
            self._work, self._batch = _make_workspace(wires, batch, network), batch
        adam = Adam(
            lr=float(self._adam.lr if lr is None else lr),
            beta1=float(self._adam.betas[0]),
            beta2=float(self._adam.betas[1]),
            eps=float(self._adam.eps),
        )
        parameters = Parameters(
            logits=addresses(self._logits),
            means=addresses([moments.mean for moments in self._moments]),
            squares=addresses([moments.square for moments in self._moments]),
        )
        indices = order.contiguous().numpy().reshape(-1)
        check_range("sample numbers", indices, len(self._labels))
        confidences = self._work.adaptation.confidences
        confidences[:] = [float(value) for value in network.confidences]
        # Of an adaptive relaxation the kernel writes them; nothing reads them before.
        own = np.full(n_steps, network.relaxation.tau) if taus is None else np.array(taus, float)
        losses = np.full(n_steps, np.nan)
        run_together(
            train_packed if network.relaxation.hard else train_dense,
            wires,
            self._work,
            make_rule(
                network,
                key if network.relaxation.noisy else None,
                np.repeat(own, wires.depth),
            ),
            adam,
            parameters,
            Batches(self._data, self._labels, indices, batch),
            as_int64(key.draw),
            steps_done,
            n_steps,
            float(network.group_tau),
            float(network.grad_factor),
            losses,
            work=float(wires.depth * wires.width * batch),
            passes=n_steps,
        )
        torch.autograd.graph.increment_version(self._logits)
        for buffer, value in zip(network.confidences, confidences.tolist(), strict=True):
            buffer.fill_(value)
        return torch.from_numpy(losses)


def _make_workspace(wires: Wires, batch: int, network: NetworkSpec) -> Workspace:
    hard = network.relaxation.hard
    n_gates, n_blocks = wires.depth * wires.width, -(-batch // BLOCK)
    n_rows = count_rows(wires)
    return Workspace(
        weights=empty(n_gates * N_GATES, np.float32),
        gates=empty(n_gates, np.uint8),
        coefficients=empty(0 if hard else n_gates * 4, np.float32),
        words=empty(n_blocks * (n_rows if hard else wires.n_features), np.int64),
        values=empty(0 if hard else n_rows * BLOCK, np.float32),
        logits=empty(n_blocks * (wires.n_groups + 1) * BLOCK, np.float32),
        deltas=empty(n_blocks * wires.n_groups * BLOCK + 2 * wires.width * BLOCK, np.float32),
        sums=empty(n_gates * 4, np.float32),
        losses=empty(n_blocks, np.float64),
        adaptation=_make_adaptation(network, wires.depth, n_gates),
    )


def _make_adaptation(network: NetworkSpec, depth: int, n_gates: int) -> Adaptation:
    relaxation = network.relaxation
    if not isinstance(relaxation, CAGE):
        none = empty(0, np.float32)
        return Adaptation(False, 1.0, 1.0, 1.0, 0.0, none, none)
    if len(network.confidences) != depth:
        raise InvalidInputError(
            f"{type(relaxation).__name__} needs the confidences of {depth} layers, "
            f"got {len(network.confidences)}"
        )
    return Adaptation(
        active=True,
        tau=relaxation.tau,
        tau_max=relaxation.tau_max,
        tau_min=relaxation.tau_min,
        decay=relaxation.decay,
        confidences=empty(depth, np.float32),
        certainties=empty(n_gates, np.float32),
    )


def check_range(what: str, values: NDArray[np.int64], end: int) -> None:
    """Raise unless all values lie in 0..end-1."""
    if len(values) > 0 and not 0 <= values.min() <= values.max() < end:
        raise InvalidInputError(
            f"{what} must lie in 0..{end - 1}, got {values.min()}..{values.max()}"
        )
