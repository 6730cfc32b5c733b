"""Training steps that ask nothing of the host: batch, forward, loss, backward, Adam, next draw.

A step is the same launches with the same arguments every time: which batch, which noise and how
far Adam has come stand in device memory, and the step itself moves them on. So one captured CUDA
graph is replayed for every step but the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import CAGE
from lgn_analysis.kernels.cuda.bits import Batch, batch_rows, gather_packed, thermometer
from lgn_analysis.kernels.cuda.consumers import consumers_of_layers
from lgn_analysis.kernels.cuda.network import Tape, run_backward, run_forward
from lgn_analysis.kernels.cuda.relax import Draw, Tau, as_int64
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch, power_of_two
from lgn_analysis.kernels.cuda.training.adam import adam_step
from lgn_analysis.kernels.cuda.training.confidence import follow_confidence
from lgn_analysis.kernels.interface import AdamRule, Moments, NetworkSpec, check_taus

_POSITION: Final = 3
"""Where the step's number within its run stands in the state: seed, draw, Adam's steps, position."""
_MOST_STEPS: Final = 256
"""Steps of one call for which there is room from the first on: more room means a new graph."""
SAMPLES: Final = 16
"""Samples that one program of the loss holds."""


@triton.jit
def cross_entropy(
    losses: tl.tensor,
    delta: tl.tensor,
    logits: tl.tensor,
    labels: tl.tensor,
    order: tl.tensor,
    position: tl.tensor,
    batch: tl.tensor,
    n_groups: tl.tensor,
    scale: tl.tensor,
    BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
) -> None:
    """Write the loss of every sample [batch] and ``scale · (softmax − onehot)`` [n_groups, batch]."""
    samples = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    groups = tl.arange(0, GROUPS)
    rows = batch_rows(order, position, samples, batch)
    label = tl.load(labels + rows, mask=samples < batch, other=0)[:, None]
    inside = (samples < batch)[:, None] & (groups < n_groups)[None, :]
    x = tl.load(
        logits + samples[:, None] * n_groups + groups[None, :], mask=inside, other=float("-inf")
    )
    x = tl.where((samples < batch)[:, None], x, 0.0)
    top = tl.max(x, axis=1)[:, None]
    e = tl.exp(x - top)
    total = tl.sum(e, axis=1)[:, None]
    hit = groups[None, :] == label
    of_label = tl.sum(tl.where(hit, x - top, 0.0), axis=1)
    tl.store(losses + samples, tl.log(tl.sum(e, axis=1)) - of_label, mask=samples < batch)
    gradient = scale * (e / total - tl.where(hit, 1.0, 0.0))
    tl.store(delta + groups[None, :] * batch + samples[:, None], gradient, mask=inside)


@triton.jit
def end_step(
    state: tl.tensor,
    rates: tl.tensor,
    means: tl.tensor,
    losses: tl.tensor,
    batch: tl.tensor,
    log_beta1: tl.tensor,
    log_beta2: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Write the mean loss to means float64 [n_steps], and move state and Adam's rates on."""
    loss = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, batch, BLOCK):
        samples = start + tl.arange(0, BLOCK)
        loss += tl.load(losses + samples, mask=samples < batch, other=0.0).to(tl.float64)
    position = tl.load(state + 3)
    tl.store(means + position, tl.sum(loss, axis=0) / batch)
    step = tl.load(state + 2) + 1
    tl.store(state + 1, tl.load(state + 1) + 1)
    tl.store(state + 2, step)
    tl.store(state + 3, position + 1)
    # float64: 1 - beta2**t is a small difference at first.
    t = (step + 1).to(tl.float64)
    correction1 = 1.0 - tl.exp(t * log_beta1)
    correction2 = 1.0 - tl.exp(t * log_beta2)
    rate = tl.load(rates + 2).to(tl.float64) / correction1
    tl.store(rates, rate.to(tl.float32))
    tl.store(rates + 1, (1.0 / tl.sqrt(correction2)).to(tl.float32))


@dataclass(frozen=True)
class PackedSamples:
    """Training inputs as packed bits: words int64 [n, ceil(n_features / 64)], feature 0 lowest."""

    words: Tensor
    n_features: int

    def gather(self, batch: Batch) -> Tensor:
        """Return a batch as words [n_features, ceil(batch / 64)]."""
        return gather_packed(self.words, self.n_features, batch)


@dataclass(frozen=True)
class Pixels:
    """Training inputs as values that become bits when they are read.

    Attributes:
        values: [n, n_values], uint8 for images.
        levels: [n_levels], see :func:`lgn_analysis.kernels.cuda.bits.thermometer`.
        order: of the bits, ``"threshold-major"`` or ``"feature-major"``.
    """

    values: Tensor
    levels: Tensor
    order: str = "threshold-major"

    def gather(self, batch: Batch) -> Tensor:
        """Return a batch as words [n_levels · n_values, ceil(batch / 64)]."""
        return thermometer(self.values, self.levels, order=self.order, batch=batch)


class TrainingRun:
    """Steps of one network on one device; parameters and moments are written in place.

    Args:
        network: the network; its relaxation's training forward is trained, on bits.
        logits: float32 [n_out, 16] of every layer.
        moments: Adam's state of every layer.
        samples: the training inputs.
        labels: int64 [n].
        adam: Adam's constants.
        capture: whether to capture the step in a CUDA graph; on CUDA only.
        reduce: called with the four sums of a layer before they are used, to average them in place
            over processes: the gradient is linear in them, and they are a quarter of its size.
    """

    def __init__(
        self,
        network: NetworkSpec,
        logits: Sequence[Tensor],
        moments: Sequence[Moments],
        samples: PackedSamples | Pixels,
        labels: Tensor,
        adam: AdamRule,
        *,
        capture: bool = True,
        reduce: Callable[[Tensor], None] | None = None,
    ) -> None:
        device = labels.device
        self.network = network
        self.logits = [z.detach() for z in logits]
        self.moments = list(moments)
        self.samples = samples
        self.labels = labels
        self.adam = adam
        self.reduce = reduce
        self.captures = capture and device.type == "cuda"
        # The same launches serve every step because what changes stands here, on the device.
        self._state = torch.zeros(4, dtype=torch.int64, device=device)
        self._rates = torch.zeros(3, dtype=torch.float32, device=device)
        self._means = torch.empty(0, dtype=torch.float64, device=device)
        # 1 / tau: of every step of a call, and of every layer in the step at hand.
        self._inverses = torch.empty(0, dtype=torch.float32, device=device)
        self._inverse = [torch.zeros(1, dtype=torch.float32, device=device) for _ in logits]
        self._scheduled = False
        if network.relaxation.adaptive and len(network.confidences) != len(self.logits):
            raise InvalidInputError(
                f"{type(network.relaxation).__name__} needs the confidences of {len(self.logits)} "
                f"layers, got {len(network.confidences)}"
            )
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
            float64 [n_steps] on the device, which nothing has waited for.
        """
        n_steps, size = order.shape
        check_taus(self.network, taus, n_steps)
        self._set_state(key, steps_done, self.adam.lr if lr is None else lr)
        if self._order.shape[0] < n_steps or self._order.shape[1] != size:
            shape = (max(n_steps, _MOST_STEPS), size)
            self._order = torch.empty(shape, dtype=torch.int64, device=self.labels.device)
            self._inverses = torch.empty(shape[0], dtype=torch.float32, device=self.labels.device)
            self._means = torch.empty(shape[0], dtype=torch.float64, device=self.labels.device)
            self._launched, self._graph = None, None
        self._order[:n_steps].copy_(order, non_blocking=True)
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
        for place, rate in enumerate((lr / corrections[0], corrections[1] ** -0.5, lr)):
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
        network, device = self.network, self.labels.device
        batch = Batch(self._order, self._state[_POSITION:])
        draw = Draw(self._state, purpose) if network.relaxation.noisy else None
        tape = Tape([], [])
        taus = self._temperatures()
        words = self.samples.gather(batch)
        logits = run_forward(network, self.logits, words, batch.size, draw, tape, taus)
        losses = torch.empty(batch.size, dtype=torch.float32, device=device)
        delta = torch.empty(network.n_groups, batch.size, dtype=torch.float32, device=device)
        launch(
            cross_entropy,
            (cdiv(batch.size, SAMPLES),),
            losses,
            delta,
            logits,
            self.labels,
            batch.order,
            batch.position,
            batch.size,
            network.n_groups,
            1 / (batch.size * network.group_tau),
            BLOCK=SAMPLES,
            GROUPS=power_of_two(network.n_groups),
        )

        def move(layer: int, sums: Tensor) -> None:
            if self.reduce is not None:
                self.reduce(sums)
            adam_step(
                self.logits[layer],
                self.moments[layer],
                sums,
                draw,
                network.first_layer + layer,
                tau=taus[layer],
                rule=self.adam,
                rates=self._rates,
            )

        run_backward(network, tape, delta, batch.size, move)
        launch(
            end_step,
            (1,),
            self._state,
            self._rates,
            self._means,
            losses,
            batch.size,
            *(math.log(beta) for beta in self.adam.betas),
            BLOCK=256,
        )
