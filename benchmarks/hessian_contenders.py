"""Hessian-vector products of one trained network, in every way that is compared.

All contenders are built from the same logits and the same samples, and multiply the same directions:
rows [k, n_params] of the logits, layer after layer. What does not depend on the direction is prepared
outside of the timing, where a contender can prepare anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from contenders import SixteenGateLayer
from curvlinops import HessianLinearOperator
from torch import Tensor, nn
from torch.nn import functional

import lgn_analysis as lgn
from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.kernels import cpu, reference

Multiply = Callable[[Tensor], Tensor]

OURS: Final = "ours, CPU kernels"
REFERENCE: Final = "ours, reference (double backward)"
FOUR: Final = "curvlinops, four coefficients"
SIXTEEN: Final = "curvlinops, 16 gates"

TOLERANCES: Final = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Of the largest entry of a product; beyond them contenders do not compute the same."""


@dataclass(frozen=True)
class Problem:
    """A network, its logits in some dtype, and samples."""

    model: lgn.LogicNetwork
    logits: list[Tensor]
    x: Tensor
    y: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.logits[0].dtype

    @property
    def n_params(self) -> int:
        return sum(z.numel() for z in self.logits)

    @property
    def n_gate_samples(self) -> int:
        return self.n_params // 16 * len(self.y)

    @property
    def tau(self) -> float:
        return self.model.relaxation.tau

    def to(self, dtype: torch.dtype) -> Problem:
        return Problem(self.model, [z.to(dtype) for z in self.logits], self.x, self.y)

    def directions(self, k: int) -> Tensor:
        generator = torch.Generator().manual_seed(k)
        return torch.randn(k, self.n_params, generator=generator, dtype=self.dtype)

    def curvature(self, backend: Any = cpu) -> Any:
        """Return the mean loss's curvature by one of our backends."""
        return backend.Curvature(
            self.model.as_spec(),
            self.logits,
            self.x,
            lambda outputs: functional.cross_entropy(outputs, self.y),
            tau=self.tau,
            layers=range(self.model.depth),
        )


class FourCoefficients(nn.Module):
    """The soft network in plain PyTorch, feature-major, a gate as four coefficients."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.logits = nn.ParameterList([z.clone() for z in problem.logits])
        self.wirings = [layer.wiring for layer in problem.model.layers]
        self.tau, self.group_sum = problem.tau, problem.model.group_sum

    def forward(self, x: Tensor) -> Tensor:
        values = x.T
        for z, wiring in zip(self.logits, self.wirings, strict=True):
            weights = torch.softmax(z / self.tau, dim=-1)
            values = reference.gate_layer(values, wiring, gate_coefficients(weights))
        outputs: Tensor = self.group_sum(values.T)
        return outputs


def sixteen_gates(problem: Problem) -> nn.Module:
    """Return the soft network that evaluates all sixteen gates, as difflogic's Python path does."""
    layers: list[nn.Module] = []
    n_in = problem.model.n_features
    for z, layer in zip(problem.logits, problem.model.layers, strict=True):
        gates = SixteenGateLayer(n_in, len(z), lgn.Soft(problem.tau))
        gates.weights = nn.Parameter(z.clone())
        gates.a, gates.b = layer.wiring[0], layer.wiring[1]
        layers.append(gates)
        n_in = len(z)
    return nn.Sequential(*layers, problem.model.group_sum)


def by_curvlinops(model: nn.Module, problem: Problem) -> Multiply:
    """Return products by curvlinops, all directions in one call."""
    data = [(problem.x.to(problem.dtype), problem.y)]
    operator = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), data, check_deterministic=False
    )

    def multiply(rows: Tensor) -> Tensor:
        return (operator @ rows[0])[None] if len(rows) == 1 else (operator @ rows.T).T

    return multiply


def contenders(problem: Problem) -> dict[str, Multiply]:
    """Return every way to multiply, ours first.

    Raises:
        SystemExit: two of them do not agree.
    """
    found: dict[str, Multiply] = {
        OURS: problem.curvature().products,
        REFERENCE: problem.curvature(reference).products,
        FOUR: by_curvlinops(FourCoefficients(problem), problem),
        SIXTEEN: by_curvlinops(sixteen_gates(problem), problem),
    }
    check_agreement(problem, found)
    return found


def check_agreement(problem: Problem, found: dict[str, Multiply], k: int = 2) -> None:
    """Exit unless all contenders give the same products, one at a time and together."""
    rows = problem.directions(k)
    wanted = found[OURS](rows)
    scale, limit = float(wanted.abs().max()), TOLERANCES[problem.dtype]
    for name, multiply in found.items():
        products: Sequence[Tensor] = (multiply(rows), multiply(rows[:1]))
        for got in products:
            error = float((got.double() - wanted[: len(got)]).abs().max()) / scale
            if not error <= limit:
                raise SystemExit(f"{name} differs from {OURS} by {error:.1e}: nothing is reported")
