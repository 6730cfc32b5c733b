"""One training step of a network, written in every way that is compared.

Each contender returns a function that takes one step on the next batch: forward, cross-entropy,
backward and Adam. They start from a network of the same shape, not from the same logits.
"""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.kernels import select_network_backend
from lgn_analysis.kernels.interface import AdamRule, Moments

LR: Final = 0.01
N_CLASSES: Final = 10
GROUP_TAU: Final = 20.0
N_SAMPLES: Final = 2048

Step = Callable[[], Any]


@dataclass(frozen=True)
class Size:
    """The shape of a network and of its batches."""

    n_features: int = 1024
    width: int = 8000
    depth: int = 6
    batch: int = 128

    @property
    def n_gates(self) -> int:
        return self.width * self.depth

    def __str__(self) -> str:
        return f"{self.n_features} inputs, {self.depth} x {self.width} gates, batch {self.batch}"


class Batches:
    """Random bits and labels, taken batch by batch in an order drawn before."""

    def __init__(self, size: Size, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        n = max(N_SAMPLES, size.batch)
        self.x = (torch.rand(n, size.n_features, generator=generator) < 0.5).to(dtype)
        self.y = torch.randint(N_CLASSES, (n,), generator=generator)
        self._order = torch.randperm(n, generator=generator)
        self._size, self._place = size.batch, 0

    def next(self) -> tuple[Tensor, Tensor]:
        if self._place + self._size > len(self._order):
            self._place = 0
        chosen = self._order[self._place : self._place + self._size]
        self._place += self._size
        return self.x[chosen], self.y[chosen]


def plain_step(
    model: nn.Module, size: Size, dtype: torch.dtype = torch.float32, **adam: Any
) -> Step:
    """The loop that a PyTorch user writes."""
    batches = Batches(size, dtype)
    optimiser = torch.optim.Adam(model.parameters(), lr=LR, **adam)

    def step() -> None:
        x, y = batches.next()
        loss = functional.cross_entropy(model(x), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def our_model(
    size: Size, relaxation: lgn.Relaxation, backend: str | None = None
) -> lgn.LogicNetwork:
    return lgn.LogicNetwork(
        size.n_features,
        size.width,
        size.depth,
        N_CLASSES,
        GROUP_TAU,
        relaxation=relaxation,
        backend=backend,
    ).train()


def our_run(size: Size, relaxation: lgn.Relaxation, steps: int) -> Step:
    """A compiled run of ``steps`` steps, as ``lgn.train`` takes them: data path and Adam included."""
    model = our_model(size, relaxation, "cpu")
    whole = select_network_backend(model.device, "cpu", parametrisation=model.parametrisation)
    assert whole is not None
    batches = Batches(size, torch.bool)
    moments = [
        Moments(torch.zeros_like(p.detach()), torch.zeros_like(p.detach()))
        for p in model.parameters()
    ]
    run = whole.TrainingRun(
        model.as_spec(),
        list(model.parameters()),
        moments,
        whole.PackedSamples(whole.pack_bits(batches.x), size.n_features),
        batches.y,
        AdamRule(LR),
    )
    generator = torch.Generator().manual_seed(1)
    taken = 0

    def advance() -> None:
        nonlocal taken
        order = torch.cat(
            [
                torch.randperm(len(batches.y), generator=generator)[: size.batch]
                for _ in range(steps)
            ]
        ).view(steps, size.batch)
        run.run(order, NoiseKey(0, Purpose.TRAINING, taken), steps_done=taken)
        taken += steps

    return advance


_GATES: Final[tuple[Callable[[Tensor, Tensor], Tensor], ...]] = (
    lambda a, b: torch.zeros_like(a),
    lambda a, b: a * b,
    lambda a, b: a - a * b,
    lambda a, b: a,
    lambda a, b: b - a * b,
    lambda a, b: b,
    lambda a, b: a + b - 2 * a * b,
    lambda a, b: a + b - a * b,
    lambda a, b: 1 - (a + b - a * b),
    lambda a, b: 1 - (a + b - 2 * a * b),
    lambda a, b: 1 - b,
    lambda a, b: 1 - b + a * b,
    lambda a, b: 1 - a,
    lambda a, b: 1 - a + a * b,
    lambda a, b: 1 - a * b,
    lambda a, b: torch.ones_like(a),
)


class SixteenGateLayer(nn.Module):
    """A layer as difflogic's Python path computes it: all sixteen gates, weighted and added up."""

    def __init__(self, n_in: int, n_out: int, relaxation: lgn.Relaxation) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(n_out, 16))
        connections = torch.randperm(2 * n_out) % n_in
        pairs = torch.randperm(n_in)[connections].reshape(2, n_out)
        self.register_buffer("a", pairs[0])
        self.register_buffer("b", pairs[1])
        self.relaxation = relaxation

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[..., self.a], x[..., self.b]
        if self.relaxation.noisy:
            tau, hard = self.relaxation.tau, self.relaxation.hard
            weights = functional.gumbel_softmax(self.weights, tau=tau, hard=hard, dim=-1)
        else:
            weights = functional.softmax(self.weights / self.relaxation.tau, dim=-1)
        total = torch.zeros_like(a)
        for gate, function in enumerate(_GATES):
            total = total + weights[..., gate] * function(a, b)
        return total


def sixteen_gate_model(size: Size, relaxation: lgn.Relaxation) -> nn.Module:
    widths = [size.n_features] + [size.width] * size.depth
    layers = [
        SixteenGateLayer(n_in, n_out, relaxation) for n_in, n_out in itertools.pairwise(widths)
    ]
    return nn.Sequential(*layers, lgn.GroupSum(N_CLASSES, GROUP_TAU)).train()


def torchlogix_model(size: Size, relaxation: lgn.Relaxation) -> nn.Module | None:
    """The same network of torchlogix, or None where it is not installed."""
    # torchlogix imports its circuit exporter, which needs a compiler that no training step needs.
    stand_in = types.ModuleType("torchlogix.circuit")
    stand_in.Circuit = None  # type: ignore[attr-defined]
    sys.modules.setdefault("torchlogix.circuit", stand_in)
    try:
        from torchlogix.layers import GroupSum, LogicDense
    except ImportError:
        return None
    sampling = {"gumbel-st": "gumbel_hard", "soft": "soft"}[relaxation.name]
    widths = [size.n_features] + [size.width] * size.depth
    layers = [
        LogicDense(
            n_in,
            n_out,
            parametrization="raw",
            parametrization_kwargs={
                "forward_sampling": sampling,
                "temperature": relaxation.tau,
                "weight_init": "random",
            },
        )
        for n_in, n_out in itertools.pairwise(widths)
    ]
    return nn.Sequential(*layers, GroupSum(N_CLASSES, GROUP_TAU)).train()
