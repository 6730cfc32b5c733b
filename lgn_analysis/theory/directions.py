"""Directions through a logic gate network, and the points along them.

Directions in the logits z leave out the shift common to a gate's sixteen logits, to which the softmax
is blind. A coordinate of 1 moves the gates of a direction by the size of their own logits:

- ``"filter"``: a random direction whose sixteen entries at each gate have the norm of that gate's
  centred logits (a gate is a "filter"). Rescaling cannot flatten such a slice.
- ``"eigen"``: eigenvectors of the Hessian in z. Scaling them gate by gate would destroy them, so the
  whole vector v is given the length ℓ = √(Σ_g w_g ‖z_g‖² / Σ_g w_g²), w_g the share of ‖v‖² in gate
  g: the root mean square of its gates' norms times the root of their effective number. For a single
  gate ℓ is that gate's norm, and for a filter direction it is the length that it has. Of v and −v the
  one is taken whose largest entry is positive.
- ``"discrete"``: the straight line to the discrete network in gate weights,
  p(t) = (1 − t)·softmax(z/tau) + t·onehot(argmax z). In z that network lies at infinity.

Source: Li, Xu, Taylor, Studer, Goldstein, *Visualizing the Loss Landscape of Neural Nets*, NeurIPS
2018, for filter normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import Purpose, generator_for
from lgn_analysis.gates.relaxations import one_hot_argmax, soft_weights
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.hessian.operators.linear import Params, unflatten
from lgn_analysis.network import LogicNetwork

_LOWEST_LOG: Final = -200.0
"""Logarithm of a weight that counts as zero: exp(−200) is lost against 1 in any dtype."""


def along(model: LogicNetwork, vectors: Sequence[Tensor]) -> Callable[[Sequence[float]], Params]:
    """Return the function from coordinates to logits, z + Σ_i x_i·v_i for vectors [n_params]."""
    origin = {name: value.detach() for name, value in model.named_parameters()}
    steps = [unflatten(v, origin) for v in vectors]

    def at(point: Sequence[float]) -> Params:
        moved = {}
        for name, z in origin.items():
            shift = sum(x * step[name] for x, step in zip(point, steps, strict=True))
            moved[name] = (z + shift).to(z.dtype)
        return moved

    return at


def between_soft_and_discrete(
    model: LogicNetwork, tau: float
) -> Callable[[Sequence[float]], Params]:
    """Return the function from t to logits whose softmax at ``tau`` is p(t)."""
    ends = [
        (soft_weights(layer.logits.detach().double(), tau), one_hot_argmax(layer.logits.double()))
        for layer in model.layers
    ]

    def at(point: Sequence[float]) -> Params:
        (t,) = point
        moved = {}
        for index, (soft, hard) in enumerate(ends):
            log_p = ((1 - t) * soft + t * hard).log().clamp(min=_LOWEST_LOG)
            moved[f"layers.{index}.logits"] = (tau * log_p).to(model.dtype)
        return moved

    return at


def discrete_distance(model: LogicNetwork, tau: float) -> float:
    """Return ‖onehot(argmax z) − softmax(z/tau)‖ over all gates."""
    total = 0.0
    for layer in model.layers:
        z = layer.logits.detach().double()
        total += float((one_hot_argmax(z) - soft_weights(z, tau)).square().sum())
    return math.sqrt(total)


def _gate_norms(model: LogicNetwork) -> Tensor:
    """Return the norm of every gate's centred logits, float64 [n_gates]."""
    z = torch.cat([layer.logits.detach().double() for layer in model.layers])
    return torch.linalg.vector_norm(z - z.mean(-1, keepdim=True), dim=-1)


def filter_direction(model: LogicNetwork, seed: int, index: int) -> Tensor:
    """Return a random direction [n_params], each gate's entries as long as its centred logits."""
    generator = generator_for(seed, Purpose.PROBE, index)
    shape = (model.n_gates, N_GATES)
    d = torch.randn(shape, generator=generator, dtype=torch.float64).to(model.device)
    d = d - d.mean(-1, keepdim=True)
    norms = torch.linalg.vector_norm(d, dim=-1)
    return (d * (_gate_norms(model) / norms).unsqueeze(-1)).reshape(-1)


def upright(v: Tensor) -> Tensor:
    """Return v or −v, its largest entry positive: the sign of an eigenvector is arbitrary."""
    return v * v[v.abs().argmax()].sign()


def at_own_length(model: LogicNetwork, v: Tensor) -> Tensor:
    """Return v at the length ℓ that this module's docstring gives it, float64."""
    squares = v.reshape(model.n_gates, N_GATES).double().square().sum(-1)
    shares = squares / squares.sum()
    square = (shares * _gate_norms(model).square()).sum() / shares.square().sum()
    return v.double() * (square / squares.sum()).sqrt()


def check_vectors(model: LogicNetwork, vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return the vectors in float64 on the model's device, or raise where one is no direction."""
    n = model.n_gates * N_GATES
    for v in vectors:
        if not isinstance(v, Tensor) or tuple(v.shape) != (n,):
            what = f"shape {tuple(v.shape)}" if isinstance(v, Tensor) else type(v).__name__
            raise InvalidInputError(f"a direction must be a vector of {n} numbers, got {what}")
        if not (bool(torch.isfinite(v).all()) and bool(v.any())):
            raise InvalidInputError("a direction must be finite and other than zero")
    return [v.detach().double().to(model.device) for v in vectors]
