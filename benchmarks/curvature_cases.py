"""Operators whose trace is known: Hessians of small networks, dense, and prescribed spectra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

import lgn_analysis as lgn

N_FEATURES: Final = 8
N_CLASSES: Final = 3
N_SAMPLES: Final = 13
TRAINING_STEPS: Final = 300


@dataclass(frozen=True)
class Shape:
    """Width and depth of a network, and whether it is trained."""

    width: int
    depth: int
    trained: bool

    def __str__(self) -> str:
        state = "trained" if self.trained else "untrained"
        return f"LGN {self.depth} × {self.width}, {state}"


SHAPES: Final = tuple(Shape(w, d, t) for w, d in ((12, 2), (9, 3)) for t in (False, True))


def bits() -> tuple[Tensor, Tensor]:
    """Return random bits [13, 8] and labels of three classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (N_SAMPLES, N_FEATURES), generator=generator).bool()
    return x, torch.randint(0, N_CLASSES, (N_SAMPLES,), generator=generator)


@cache
def network(shape: Shape) -> lgn.LogicNetwork:
    """Return a network in float64, trained in soft mode where asked for."""
    model = lgn.LogicNetwork(
        N_FEATURES,
        shape.width,
        shape.depth,
        N_CLASSES,
        2.0,
        relaxation=lgn.GumbelST(1.0),
        seed=0,
        dtype=torch.float64,
    )
    _train(model, *bits(), TRAINING_STEPS if shape.trained else 0)
    return model


def hessian(shape: Shape) -> Tensor:
    """Return the dense Hessian of a network's soft loss."""
    return lgn.HessianProbe(network(shape), bits()).dense()


def digits_network(*, trained: bool) -> tuple[lgn.LogicNetwork, tuple[Tensor, Tensor]]:
    """Return 3 × 60 gates in float64, 2880 parameters, and 200 digits with their labels."""
    data = lgn.load_dataset("digits", thresholds=(7.5,))
    x, y = data.x_train[:200], data.y_train[:200]
    model = lgn.LogicNetwork(
        data.n_features,
        60,
        3,
        data.n_classes,
        2.0,
        relaxation=lgn.GumbelST(1.0),
        seed=0,
        dtype=torch.float64,
    )
    _train(model, x, y, TRAINING_STEPS if trained else 0)
    return model, (x, y)


def digits_hessian(*, trained: bool) -> Tensor:
    """Return the dense Hessian of :func:`digits_network`."""
    return lgn.HessianProbe(*digits_network(trained=trained)).dense()


def _train(model: lgn.LogicNetwork, x: Tensor, y: Tensor, steps: int) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(model(x, mode="soft"), y).backward()
        optimiser.step()


def symmetric(eigenvalues: Sequence[float]) -> Tensor:
    """Return a matrix of these eigenvalues with a random eigenbasis."""
    generator = torch.Generator().manual_seed(0)
    n = len(eigenvalues)
    gaussian = torch.randn(n, n, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(gaussian)
    return basis * torch.tensor(eigenvalues, dtype=torch.float64) @ basis.T


def pair() -> Tensor:
    """Return one pair of entries off a diagonal: a form of two equally likely values."""
    matrix = torch.diag(torch.arange(4.0, dtype=torch.float64))
    matrix[0, 1] = matrix[1, 0] = 1.0
    return matrix


def corner() -> Tensor:
    """Return three equal parameters among sixty: a form that is 9 or 1."""
    matrix = torch.zeros(60, 60, dtype=torch.float64)
    matrix[:3, :3] = 1.0
    return matrix


CASES: Final[dict[str, Callable[[], Tensor]]] = {
    **{str(shape): lambda shape=shape: hessian(shape) for shape in SHAPES},  # type: ignore[misc]
    "rank 1": lambda: symmetric([1.0] + [0.0] * 59),
    "rank 1 negative, in a bulk": lambda: symmetric([-1.0] + [0.05] * 60),
    "rank 2, trace 0": lambda: symmetric([1.0, -1.0] + [0.0] * 58),
    "rank 4, indefinite": lambda: symmetric([5.0, 3.0, -2.0, 1.0] + [0.0] * 60),
    "four large of 30": lambda: symmetric([3.0, -1.0, 2.0, 0.5] + [0.1] * 26),
    "alternating, decaying": lambda: symmetric([(-1) ** i * 2.0 ** (-i / 4) for i in range(60)]),
    "two clusters": lambda: symmetric([1.0 + 1e-4 * i for i in range(20)] + [-3.0] * 20),
    "one pair off a diagonal": pair,
    "three equal parameters": corner,
}
"""Matrices by name, made when asked for."""
