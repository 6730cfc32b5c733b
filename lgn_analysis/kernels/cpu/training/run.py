"""Training steps of one network on given data, many steps a call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.gates.relaxations import CAGE
from lgn_analysis.kernels.checks import check_confidences, check_lrs, check_taus
from lgn_analysis.kernels.cpu.logits import Adam
from lgn_analysis.kernels.cpu.network import addresses, make_rule
from lgn_analysis.kernels.cpu.runtime.layout import (
    BLOCK,
    Activations,
    Gradients,
    Outputs,
    Wires,
    count_rows,
)
from lgn_analysis.kernels.cpu.runtime.plans import empty, find_plan
from lgn_analysis.kernels.cpu.runtime.threads import run_together
from lgn_analysis.kernels.cpu.training.confidence import Adaptation
from lgn_analysis.kernels.cpu.training.steps import Batches, Workspace, train_dense, train_packed
from lgn_analysis.kernels.interface import (
    AdamRule,
    Moments,
    NetworkSpec,
    PackedSamples,
)


class TrainingRun:
    """:class:`lgn_analysis.kernels.interface.Run` on the CPU.

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
        *,
        draws: int = 1,
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
        self._draws = draws
        self._batch = 0
        self._work: Workspace | None = None

    def run(
        self,
        order: Tensor,
        key: NoiseKey,
        *,
        steps_done: int,
        lrs: Sequence[float] | None = None,
        taus: Sequence[float] | None = None,
    ) -> Tensor:
        """Take a step for each row of ``order``; see :meth:`lgn_analysis.kernels.interface.Run.run`."""
        n_steps, batch = order.shape
        network = self._network
        wires = find_plan(network.wirings, network.n_features, network.n_groups).wires
        check_taus(network, taus, n_steps)
        check_lrs(lrs, n_steps)
        if self._work is None or self._batch != batch:
            check_confidences(network)
            self._work = make_workspace(wires, batch, network, self._draws)
            self._batch = batch
        rule = self._adam
        adam = Adam(
            beta1=float(rule.betas[0]),
            beta2=float(rule.betas[1]),
            eps=float(rule.eps),
            weight_decay=float(rule.weight_decay),
            lrs=np.full(n_steps, rule.lr, float) if lrs is None else np.array(lrs, float),
            steps_done=steps_done,
            logits=addresses(self._logits),
            first_moments=addresses([moments.mean for moments in self._moments]),
            second_moments=addresses([moments.square for moments in self._moments]),
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
            make_rule(network, key, np.repeat(own, self._draws * wires.depth)),
            adam,
            Batches(
                *(self._data, self._labels, indices, batch, self._draws),
                scale=rule.gradient_scale / (batch * network.group_tau * self._draws),
            ),
            losses,
            work=float(wires.depth * wires.width * batch),
            passes=n_steps * self._draws,
        )
        torch.autograd.graph.increment_version(self._logits)
        for buffer, value in zip(network.confidences, confidences.tolist(), strict=True):
            buffer.fill_(value)
        return torch.from_numpy(losses)


def make_workspace(wires: Wires, batch: int, network: NetworkSpec, draws: int) -> Workspace:
    """Return memory for steps of so many samples and noise draws."""
    hard = network.relaxation.hard
    n_gates, n_blocks = wires.depth * wires.width, -(-batch // BLOCK)
    n_rows = count_rows(wires)
    activations = Activations(
        n_blocks=n_blocks,
        keeps=False,
        weights=empty(n_gates * network.n_parameters, np.float32),
        gates=empty(n_gates, np.uint8),
        coefficients=empty(0 if hard else n_gates * 4, np.float32),
        words=empty(n_blocks * (n_rows if hard else wires.n_features), np.int64),
        inputs=empty(0, np.float32),
        values=empty(0 if hard else n_rows * BLOCK, np.float32),
    )
    n_outputs = n_blocks * (wires.n_groups + 1) * BLOCK
    n_deltas = (n_blocks * wires.n_groups + 2 * wires.width) * BLOCK
    return Workspace(
        activations=activations,
        outputs=Outputs(empty(n_outputs, np.float32), wires.n_groups + 1, float(network.group_tau)),
        gradients=Gradients(
            deltas=empty(n_deltas, np.float32),
            sums=empty(n_gates * 4, np.float32),
            inputs=empty(0, np.float32),
            factor=np.float32(network.grad_factor),
        ),
        losses=empty(n_blocks, np.float64),
        adaptation=_make_adaptation(network, wires.depth, n_gates),
        logit_gradients=empty(n_gates * network.n_parameters if draws > 1 else 0, np.float32),
    )


def _make_adaptation(network: NetworkSpec, depth: int, n_gates: int) -> Adaptation:
    relaxation = network.relaxation
    if not isinstance(relaxation, CAGE):
        none = empty(0, np.float32)
        return Adaptation(False, 1.0, 1.0, 1.0, 0.0, none, none)
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
