"""Modules with the names and attributes of difflogic's, gumbel-lgn's and torchlogix's, written here.

Their forward is a dense sum over the four rows of all sixteen truth tables, which shares nothing with the
four coefficients by which this package computes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

TABLES = torch.tensor(
    [[(gate >> (3 - row)) & 1 for row in range(4)] for gate in range(16)]
).double()


def mixture(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Return Σ_gates w Σ_rows P(row) · table[gate, row], [batch, n], in float64."""
    a, b = a.double(), b.double()
    rows = torch.stack([(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b], dim=-1)
    return torch.einsum("bnr,gr,ng->bn", rows, TABLES, weights.double())


class ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * ctx.factor, None


class LogicLayer(nn.Module):
    """difflogic's; with ``stochastic`` gumbel-lgn's."""

    def __init__(
        self, weights: Tensor, wiring: Tensor, in_dim: int, grad_factor: float = 1.0, **more: Any
    ) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.indices = wiring[0], wiring[1]
        self.in_dim, self.out_dim = in_dim, len(weights)
        self.grad_factor = grad_factor
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        x = ScaledGradient.apply(x, self.grad_factor)  # type: ignore[no-untyped-call]
        if not self.training:
            weights = functional.one_hot(self.weights.argmax(-1), 16)
        elif getattr(self, "stochastic", "softmax") == "gumbel":
            weights = functional.gumbel_softmax(self.weights, self.gumbel_tau, hard=True)
        else:
            weights = functional.softmax(self.weights, -1)
        return mixture(x[:, self.indices[0]], x[:, self.indices[1]], weights).to(x.dtype)


class RawLUTParametrization(nn.Module):
    def __init__(self, forward_sampling: str, temperature: float) -> None:
        super().__init__()
        self.forward_sampling, self.temperature = forward_sampling, temperature


class WarpLUTParametrization(RawLUTParametrization):
    pass


class FixedDenseConnections(nn.Module):
    def __init__(self, indices: Tensor) -> None:
        super().__init__()
        self.register_buffer("indices", indices)


class LearnableDenseConnections(nn.Module):
    def __init__(self, indices: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("indices", indices)
        self.weights = nn.Parameter(weights)


class LogicDense(nn.Module):
    """torchlogix's, of which connections and parametrization are modules."""

    def __init__(
        self,
        weight: Tensor,
        connections: nn.Module,
        in_dim: int,
        grad_factor: float = 1.0,
        parametrization: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.connections = connections
        self.parametrization = parametrization or RawLUTParametrization("soft", 1.0)
        self.in_dim, self.out_dim, self.lut_rank = in_dim, len(weight), 2
        self.grad_factor, self.export_mode = grad_factor, False

    def forward(self, x: Tensor) -> Tensor:
        x = ScaledGradient.apply(x, self.grad_factor)  # type: ignore[no-untyped-call]
        indices: Any = self.connections.indices
        if isinstance(self.connections, LearnableDenseConnections):
            choice = self.connections.weights.argmax(0, keepdim=True)
            indices = indices.gather(0, choice)[0]
        sampling: Any = self.parametrization.forward_sampling
        tau: Any = self.parametrization.temperature
        hard = sampling in ("hard", "gumbel_hard")
        if not self.training:
            weights = functional.one_hot(self.weight.argmax(-1), 16)
        elif "gumbel" in sampling:
            weights = functional.gumbel_softmax(self.weight, tau, hard=hard)
        else:
            weights = functional.softmax(self.weight / tau, -1)
            if hard:
                chosen = functional.one_hot(self.weight.argmax(-1), 16)
                weights = chosen - weights.detach() + weights
        return mixture(x[:, indices[0]], x[:, indices[1]], weights).to(x.dtype)


class GroupSum(nn.Module):
    def __init__(self, k: int, tau: float, **more: Any) -> None:
        super().__init__()
        self.k, self.tau = k, tau
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return (x.unflatten(-1, (self.k, -1)).sum(-1) + getattr(self, "beta", 0.0)) / self.tau


N_IN, WIDTH, CLASSES, GROUP_TAU = 9, 12, 3, 1.5


def tensors(seed: int = 0, n_in: int = N_IN, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Return float64 weights [width, 16] and a wiring [2, width]."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(width, 16, generator=generator, dtype=torch.float64)
    return weights, torch.randint(n_in, (2, width), generator=generator)


def logic_layers(**more: Any) -> nn.Sequential:
    """Two layers as difflogic has them, or gumbel-lgn, behind a Flatten."""
    layers = [LogicLayer(*tensors(0), N_IN, **more), LogicLayer(*tensors(1, WIDTH), WIDTH, **more)]
    return nn.Sequential(nn.Flatten(), *layers, GroupSum(CLASSES, GROUP_TAU))


def logic_dense(
    sampling: str = "soft", temperature: float = 1.0, grad_factor: float = 1.0
) -> nn.Sequential:
    """Two layers as torchlogix has them."""
    layers = []
    for index, n_in in enumerate((N_IN, WIDTH)):
        weight, wiring = tensors(index, n_in)
        raw = RawLUTParametrization(sampling, temperature)
        layers.append(LogicDense(weight, FixedDenseConnections(wiring), n_in, grad_factor, raw))
    return nn.Sequential(*layers, GroupSum(CLASSES, GROUP_TAU, beta=0.0))
