"""Training steps that ask nothing of the host: batch, forward, loss, backward, Adam, next draw.

A step is the same launches with the same arguments every time: which batch, which noise and how
far Adam has come stand in device memory, and the step itself moves them on. So one captured CUDA
graph is replayed for every step but the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import CAGE
from lgn_analysis.kernels.autograd import Tape
from lgn_analysis.kernels.checks import check_confidences, check_lrs, check_taus
from lgn_analysis.kernels.cuda.bits import Batch, gather_packed
from lgn_analysis.kernels.cuda.logits import Draw, Tau, gradient_of
from lgn_analysis.kernels.cuda.network import run_backward, run_forward
from lgn_analysis.kernels.cuda.runtime.layout import consumers_of_layers
from lgn_analysis.kernels.cuda.training.confidence import follow_confidence
from lgn_analysis.kernels.cuda.training.steps import adam_step, finish_step, losses_and_deltas
from lgn_analysis.kernels.interface import (
    AdamRule,
    Moments,
    NetworkSpec,
    PackedSamples,
    as_int64,
)

_DRAW: Final = 1
_POSITION: Final = 3
"""Where the step's number within its run stands in the state: seed, draw, Adam's steps, position."""
_MOST_STEPS: Final = 256
"""Steps of one call for which there is room from the first on: more room means a new graph."""


class TrainingRun:
    """:class:`lgn_analysis.kernels.interface.Run` on one CUDA device.

    ``capture``: whether to capture the step in a CUDA graph.
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
        capture: bool = True,
    ) -> None:
        device = labels.device
        self.network = network
        self.logits = [z.detach() for z in logits]
        self.moments = list(moments)
        self.samples = samples
        self.labels = labels
        self.adam = adam
        self.draws = draws
        self.captures = capture and device.type == "cuda"
        # The same launches serve every step because what changes stands here, on the device.
        self._state = torch.zeros(4, dtype=torch.int64, device=device)
        self._rates = torch.zeros(3, dtype=torch.float32, device=device)
        self._lrs = torch.empty(0, dtype=torch.float32, device=device)
        self._means = torch.empty(0, dtype=torch.float64, device=device)
        # 1 / tau: of every step of a call, and of every layer in the step at hand.
        self._inverses = torch.empty(0, dtype=torch.float32, device=device)
        self._inverse = [torch.zeros(1, dtype=torch.float32, device=device) for _ in logits]
        self._scheduled = False
        check_confidences(network)
        self._order = torch.zeros(0, 0, dtype=torch.int64, device=device)
        self._consumers = consumers_of_layers(network)
        self._launched: Purpose | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(
        self,
        order: Tensor,
        key: NoiseKey,
        *,
        steps_done: int,
        lrs: Sequence[float] | None = None,
        taus: Sequence[float] | None = None,
    ) -> Tensor:
        """Take a step for each row of ``order``; see :meth:`lgn_analysis.kernels.interface.Run.run`.

        The losses are on the device, and nothing has waited for them.
        """
        n_steps, size = order.shape
        check_taus(self.network, taus, n_steps)
        check_lrs(lrs, n_steps)
        self._set_state(key, steps_done, lrs[0] if lrs else self.adam.lr)
        if self._order.shape[0] < n_steps or self._order.shape[1] != size:
            shape = (max(n_steps, _MOST_STEPS), size)
            self._order = torch.empty(shape, dtype=torch.int64, device=self.labels.device)
            self._inverses = torch.empty(shape[0], dtype=torch.float32, device=self.labels.device)
            self._lrs = torch.empty(shape[0] + 1, dtype=torch.float32, device=self.labels.device)
            self._means = torch.empty(shape[0], dtype=torch.float64, device=self.labels.device)
            self._launched, self._graph = None, None
        self._order[:n_steps].copy_(order, non_blocking=True)
        if lrs is None:
            self._lrs.fill_(self.adam.lr)
        else:
            self._lrs[:n_steps].copy_(torch.tensor(lrs, dtype=torch.float32), non_blocking=True)
        if self._scheduled != (taus is not None):
            self._launched, self._graph, self._scheduled = None, None, taus is not None
        if taus is not None:
            inverses = torch.tensor([1 / tau for tau in taus], dtype=torch.float32)
            self._inverses[:n_steps].copy_(inverses, non_blocking=True)
        # A graph reads them where they lie, so they must outlive it, and it must not outlive them.
        consumers = consumers_of_layers(self.network)
        if any(a is not b for a, b in zip(consumers, self._consumers, strict=True)):
            self._launched, self._graph, self._consumers = None, None, consumers
        for _ in range(n_steps):
            # Launched once before it is captured: a capture runs nothing, and must compile nothing.
            if not self.captures or self._launched != key.purpose:
                self._step(key.purpose)
                self._launched, self._graph = key.purpose, None
            else:
                self._graph = self._graph or self._captured(key.purpose)
                self._graph.replay()
        torch.autograd.graph.increment_version(self.logits)
        return self._means[:n_steps].clone()

    def _set_state(self, key: NoiseKey, steps_done: int, lr: float) -> None:
        """Name the first step on the device, by fills: they wait for nothing."""
        for place, word in enumerate((key.seed, key.draw, steps_done, 0)):
            self._state[place].fill_(as_int64(word))
        corrections = [1 - beta ** (steps_done + 1) for beta in self.adam.betas]
        kept = 1 - lr * self.adam.weight_decay
        for place, rate in enumerate((lr / corrections[0], corrections[1] ** -0.5, kept)):
            self._rates[place].fill_(rate)

    def _captured(self, purpose: Purpose) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.labels.device), torch.cuda.graph(graph):
            self._step(purpose)
        return graph

    def _temperatures(self) -> list[Tau]:
        """Launch what finds the temperature of each layer in this step, where it moves."""
        relaxation = self.network.relaxation
        if isinstance(relaxation, CAGE):
            layers = zip(self.logits, self.network.confidences, self._inverse, strict=True)
            for z, confidence, inverse in layers:
                follow_confidence(relaxation, z, confidence, inverse)
            return [*self._inverse]
        if not self._scheduled:
            return [relaxation.tau] * len(self.logits)
        place = self._state[_POSITION : _POSITION + 1]
        torch.index_select(self._inverses, 0, place, out=self._inverse[0])
        return [self._inverse[0]] * len(self.logits)

    def _step(self, purpose: Purpose) -> None:
        """Launch one step."""
        gradients: dict[int, Tensor] = {}
        losses = []
        for draw in range(self.draws):
            losses.append(self._pass(purpose, gradients, last=draw + 1 == self.draws))
            if draw + 1 < self.draws:
                self._state[_DRAW].add_(1)
        together = losses[0] if self.draws == 1 else torch.cat(losses)
        finish_step(self._state, self._rates, self._lrs, self._means, together, self.adam)

    def _pass(self, purpose: Purpose, gradients: dict[int, Tensor], *, last: bool) -> Tensor:
        """Launch a pass of one draw of noise, and return the losses [batch].

        The ``last`` one of a step moves the logits, those before it add to their ``gradients``.
        """
        network = self.network
        batch = Batch(self._order, self._state[_POSITION:])
        draw = Draw(self._state, purpose) if network.relaxation.noisy else None
        tape = Tape()
        taus = self._temperatures()
        words = gather_packed(self.samples.words, self.samples.n_features, batch)
        logits = run_forward(network, self.logits, words, batch.size, draw, tape, taus)
        scale = self.adam.gradient_scale / self.draws
        losses, delta = losses_and_deltas(network, logits, self.labels, batch, scale)

        def use(layer: int, sums: Tensor) -> None:
            z, index, added = self.logits[layer], network.first_layer + layer, gradients.get(layer)
            tau = taus[layer]
            if not last:
                gradients[layer] = gradient_of(z, sums, draw, index, tau=tau, added=added)
                return
            adam_step(
                *(z, self.moments[layer], sums, draw, index),
                tau=tau,
                rule=self.adam,
                rates=self._rates,
                added=added,
            )

        run_backward(network, tape, delta, batch.size, use)
        return losses
