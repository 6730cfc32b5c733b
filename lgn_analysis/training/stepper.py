"""Numbered training steps: by a backend that runs them whole, or by PyTorch's autograd and AdamW.

The batch and the noise of a step are functions of (seed, step), so neither depends on how many steps
are taken at a time, nor on where a run was interrupted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base import distributed
from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey, Purpose, generator_for
from lgn_analysis.gates.relaxations import make_relaxation
from lgn_analysis.gates.schedules import TauSchedule
from lgn_analysis.kernels import NetworkBackend
from lgn_analysis.kernels.interface import AdamRule, Moments, NetworkSpec, Run
from lgn_analysis.network import LogicNetwork, call_network, specify
from lgn_analysis.training.optimiser import (
    LrSchedule,
    gradient_scale,
    is_plain_adamw,
    same,
    scaled,
)

MOST_AT_ONCE: Final = 256
"""Steps that a backend takes in one call at most."""
WORK_AT_ONCE: Final = 2.0e8
"""Gates times samples of one call on a CPU, some tenths of a second: progress shows in between."""
_ROWS: Final = 4096


def warm_up(model: LogicNetwork, *, scheduled: bool = False, draws: int = 1) -> None:
    """Compile or load the kernels of the steps of ``model``, so that their time is not counted."""
    backend = model.network_backend
    if backend is not None and distributed.world()[1] == 1:
        relaxation = model.relaxation
        kind, device = (relaxation.name, relaxation.tau), str(model.device)
        _warm_up(backend.NAME, *kind, device, scheduled, min(draws, 3))


@functools.cache
def _warm_up(
    backend: str, relaxation: str, tau: float, device: str, scheduled: bool, draws: int
) -> None:
    schedule = TauSchedule("linear", tau, tau, 1) if scheduled else None
    tiny = LogicNetwork(
        8, 8, 2, 2, 1.0, relaxation=make_relaxation(relaxation, tau), backend=backend
    ).to(device)
    x = torch.zeros(64, 8, dtype=torch.bool)
    y = torch.zeros(64, dtype=torch.int64)
    steps = Steps(tiny, x, y, batch_size=32, lr=0.01, seed=0, schedule=schedule, draws=draws)
    steps.advance(0, 2, lambda n: None)


class Steps:
    """AdamW on the cross-entropy of a model's training forward.

    Ranks of a process group each take an equal part of every batch, share its noise, and average
    their gradients.

    Args:
        model: trained in place, in train mode.
        x: bool [n, n_features].
        y: int64 [n].
        batch_size: samples a step; an epoch's last short batch is dropped.
        lr: Adam's learning rate.
        seed: draws data order and noise.
        schedule: gate temperature of each step; None leaves it as it is. After steps up to ``n`` the
            model's is that of step ``n``, the next one.
        eps, betas, weight_decay: Adam's.
        learning_rates: learning rate of each step; None leaves it ``lr``.
        draws: noise draws of a step, whose gradients are averaged; step t has the draws
            ``t · draws``..``t · draws + draws - 1``.

    Attributes:
        optimiser: holds Adam's state, whichever path takes the steps. Its ε and its moments are those
            of the gradient times ``scale``.
        scale: :func:`lgn_analysis.training.optimiser.gradient_scale` of ε.
    """

    def __init__(
        self,
        model: LogicNetwork,
        x: Tensor,
        y: Tensor,
        *,
        batch_size: int,
        lr: float,
        seed: int,
        schedule: TauSchedule | None = None,
        eps: float = 1e-8,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        learning_rates: LrSchedule | None = None,
        draws: int = 1,
    ) -> None:
        self.model = model
        self.schedule = schedule
        self.learning_rates = learning_rates
        self.draws = draws
        self.scale = gradient_scale(eps)
        self._optimised = list(model.parameters())
        self.optimiser = torch.optim.AdamW(
            self._optimised,
            lr=lr,
            betas=betas,
            eps=eps * self.scale,
            weight_decay=weight_decay,
        )
        self.batch_size = batch_size
        self.seed = seed
        self._x = x
        self._y = y.to(model.device)
        self._on_device: Tensor | None = None
        self._packed: tuple[NetworkBackend, Any] | None = None
        self._run: _Prepared | None = None
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)
        self._share = distributed.shard(batch_size)
        distributed.copy_from_rank_zero(model.parameters())
        distributed.copy_from_rank_zero(model.confidences)

    def advance(
        self,
        first: int,
        until: int,
        progress: Callable[[int], object],
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[float]:
        """Take steps ``first`` to ``until - 1`` and return their losses.

        Fewer are taken where ``stopped`` says so in between, and a loss that is not finite is the
        last. ``progress`` is called with a number of steps when that many have been taken.
        """
        self.model.train()
        run = self._whole_steps()
        if run is None:
            pieces = self._by_autograd(first, until)
        else:
            pieces = self._by_backend(run, first, until)
        losses: list[float] = []
        for piece in pieces:
            losses += _until_not_finite(piece)
            progress(len(piece))
            if not math.isfinite(losses[-1]) or stopped():
                break
        if self.schedule is not None:
            self.model.set_tau(self.schedule.at(first + len(losses)))
        return losses

    def _whole_steps(self) -> Run | None:
        """Return a backend's training steps of the model as it is now, None where autograd takes them."""
        backend, network = self.model.network_backend, specify(self.model, training=True).network
        taken = {int(state["step"]) for state in self.optimiser.state.values() if state}
        if distributed.world()[1] > 1 or self._x.dtype != torch.bool or len(taken) > 1:
            return None
        parameters = list(self.model.parameters())
        if backend is None or network is None or not same(parameters, self._optimised):
            return None
        if not is_plain_adamw(self.optimiser, parameters):
            return None
        if self.schedule is not None:  # each step brings its own temperature
            relaxation = replace(network.relaxation, tau=self.schedule.start)
            network = replace(network, relaxation=relaxation)
        group = self.optimiser.param_groups[0]
        adam = AdamRule(
            *(float(group["lr"]), group["betas"], group["eps"], group["weight_decay"]),
            gradient_scale=self.scale,
        )
        moments = [self._moments(parameter) for parameter in parameters]
        written = [*parameters, *(m.mean for m in moments), *(m.square for m in moments)]
        addresses = tuple(tensor.data_ptr() for tensor in written)
        # A prepared run keeps its confidences, so that their numbers are given to no other tensor.
        state = (
            *(backend, adam, addresses, tuple(map(id, network.confidences))),
            replace(network, wirings=(), confidences=()),
        )
        if self._run is None or not self._run.serves(state, network.wirings):
            run = self._make_run(backend, network, parameters, moments, adam)
            self._run = _Prepared(run, state, tuple(w.clone() for w in network.wirings))
        return self._run.run

    def _by_autograd(self, first: int, until: int) -> Iterator[list[float]]:
        """Yield the losses of some steps at a time; on a CPU of each, before it moves anything."""
        if self._on_device is None:
            self._on_device = self._x.to(self.model.device)
        self._run = None  # Adam's state moves on without it
        alone = self.model.device.type == "cpu" and distributed.world()[1] == 1
        losses: list[Tensor] = []
        for step in range(first, until):
            if self.schedule is not None:
                self.model.set_tau(self.schedule.at(step))
            if self.learning_rates is not None:
                for group in self.optimiser.param_groups:
                    group["lr"] = self.learning_rates.at(step)
            try:
                losses.append(self._differentiate(step, stops=alone))
            except InvalidInputError:
                if all(bool(z.isfinite().all()) for z in self.model.parameters()):
                    raise
                yield [math.nan]  # no gate can be chosen by what is no number
                return
            if alone and not losses[-1].isfinite():
                yield [losses[-1].item()]
                return
            parameters = list(self.model.parameters())
            distributed.average(p.grad for p in parameters if p.grad is not None)
            with scaled(self._optimised, self.scale):
                self.optimiser.step()
            # Elsewhere the host would wait for every step, and ranks for one another.
            if alone or len(losses) == MOST_AT_ONCE or step + 1 == until:
                together = torch.stack(losses)
                distributed.average([together])
                losses.clear()
                yield together.tolist()

    def _differentiate(self, step: int, *, stops: bool) -> Tensor:
        """Write the gradient of a step's mean loss over its draws, and return that loss, float64.

        Where it ``stops``, a loss that is not finite is the last, and has no gradient.
        """
        assert self._on_device is not None
        chosen = self._batch(step)[self._share].to(self._y.device, non_blocking=True)
        x, y = self._on_device[chosen], self._y[chosen]
        mean = torch.zeros((), dtype=torch.float64, device=y.device)
        self.optimiser.zero_grad(set_to_none=True)
        for draw in range(step * self.draws, (step + 1) * self.draws):
            key = NoiseKey(self.seed, Purpose.TRAINING, draw)
            loss = functional.cross_entropy(call_network(self.model, x, draw=key), y)
            mean += loss.detach().double() / self.draws
            if stops and not loss.isfinite():
                break
            (loss / self.draws).backward()
        return mean

    def _by_backend(self, run: Run, first: int, until: int) -> Iterator[list[float]]:
        model = self.model
        at_once = MOST_AT_ONCE
        if model.device.type == "cpu":
            work = model.n_gates * self.batch_size * self.draws
            at_once = max(1, min(MOST_AT_ONCE, int(WORK_AT_ONCE / work)))
        for step in range(first, until, at_once):
            n = min(at_once, until - step)
            order = torch.stack([self._batch(number) for number in range(step, step + n)])
            key = NoiseKey(self.seed, Purpose.TRAINING, step * self.draws)
            taus = lrs = None
            if self.schedule is not None:
                taus = [self.schedule.at(number) for number in range(step, step + n)]
            if self.learning_rates is not None:
                lrs = [self.learning_rates.at(number) for number in range(step, step + n)]
            losses = run.run(order, key, steps_done=self._steps_done(), lrs=lrs, taus=taus)
            for state in self.optimiser.state.values():
                state["step"] += n
            yield losses.tolist()

    def _make_run(
        self,
        backend: NetworkBackend,
        network: NetworkSpec,
        parameters: Sequence[Tensor],
        moments: Sequence[Moments],
        adam: AdamRule,
    ) -> Run:
        device = self.model.device
        if self._packed is None or self._packed[0] is not backend:
            # In pieces: all bits, a byte each, may not fit the device.
            words = [backend.pack_bits(rows.to(device)) for rows in self._x.split(_ROWS)]
            packed = backend.PackedSamples(torch.cat(words), network.n_features)
            self._packed = backend, packed
        return backend.TrainingRun(
            network, parameters, moments, self._packed[1], self._y, adam, draws=self.draws
        )

    def _moments(self, parameter: torch.nn.Parameter) -> Moments:
        """Return Adam's state of a parameter, as the optimiser itself would begin it."""
        state = self.optimiser.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return Moments(state["exp_avg"], state["exp_avg_sq"])

    def _steps_done(self) -> int:
        return int(next(iter(self.optimiser.state.values()))["step"])

    def _batch(self, step: int) -> Tensor:
        """Return which samples a step takes: int64 [batch_size] on the CPU."""
        epoch, place = divmod(step, len(self._y) // self.batch_size)
        if epoch != self._epoch:
            generator = generator_for(self.seed, Purpose.DATA_ORDER, epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self._y), generator=generator)
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]


class _Prepared(NamedTuple):
    """Training steps that were prepared for a network, its wirings, and where they write."""

    run: Run
    state: tuple[object, ...]
    wirings: tuple[Tensor, ...]

    def serves(self, state: tuple[object, ...], wirings: Sequence[Tensor]) -> bool:
        """Return whether network and optimiser are still those that the steps were prepared for."""
        same = state == self.state and len(wirings) == len(self.wirings)
        return same and all(map(torch.equal, wirings, self.wirings))


def _until_not_finite(losses: list[float]) -> list[float]:
    """Return the losses up to the first that is not finite."""
    for place, loss in enumerate(losses):
        if not math.isfinite(loss):
            return losses[: place + 1]
    return losses
