"""What is handed to a backend that runs a whole network at once, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.gates.relaxations import Relaxation


@dataclass(frozen=True)
class NetworkSpec:
    """What a pass over a network is made of, its logits apart.

    Attributes:
        wirings: int64 [2, n_out] of every layer.
        n_features: inputs of the first layer.
        relaxation: of every layer.
        n_groups: groups of the group sum.
        group_tau: its temperature.
        grad_factor: multiplies the gradient at the input of every layer.
        gradient_dtype: of the gradients of activations, float32 or bfloat16.
        first_layer: index of the first layer, whose noise and those after it these layers draw.
        taus: temperature of the training forward and its gradient in every layer; none where it is
            the relaxation's.
        confidences: [] of every layer, where the relaxation is adaptive and the training forward is
            meant. A :class:`Run` begins with them and writes them in place; a single pass leaves
            them alone and has ``taus``.
    """

    wirings: tuple[Tensor, ...]
    n_features: int
    relaxation: Relaxation
    n_groups: int
    group_tau: float
    grad_factor: float = 1.0
    gradient_dtype: torch.dtype = torch.float32
    first_layer: int = 0
    taus: tuple[float, ...] = ()
    confidences: tuple[Tensor, ...] = ()

    def tau_of(self, layer: int) -> float:
        """Return the temperature of a layer's training forward, ``layer`` counted from 0 here."""
        return self.taus[layer] if self.taus else self.relaxation.tau

    def training_weights(self, layer: int, logits: Tensor, noise: Tensor | None) -> Tensor:
        """Return the gate weights [n_out, 16] of a layer's training forward in plain PyTorch."""
        tau = self.taus[layer] if self.taus else None
        return self.relaxation.training_weights(logits, noise, tau=tau)

    @property
    def group_size(self) -> int:
        """Gates a group."""
        return self.wirings[-1].shape[1] // self.n_groups


@dataclass(frozen=True)
class Moments:
    """Adam's state of one parameter, both of its shape and written in place.

    Attributes:
        mean: first moment, torch's ``exp_avg``.
        square: second moment, torch's ``exp_avg_sq``.
    """

    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class AdamRule:
    """Adam's constants; no weight decay."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


class Run(Protocol):
    """Training steps of one network on given data; logits and moments are written in place."""

    def run(
        self,
        order: Tensor,
        key: NoiseKey,
        *,
        steps_done: int,
        lr: float | None = None,
        taus: Sequence[float] | None = None,
    ) -> Tensor:
        """Take a step for each row of ``order`` and return their mean losses, float64 [n_steps].

        A step whose loss is not finite is the last that counts. On a CPU it moves nothing any more,
        and the losses behind it are NaN.

        Args:
            order: int64 [n_steps, batch], which samples each step takes.
            key: the noise of the first step; the draw goes up by one a step.
            steps_done: Adam's steps before these.
            lr: the learning rate of these steps; None is Adam's own.
            taus: [n_steps], the gate temperature of each step; None is the relaxation's own. An
                adaptive relaxation finds its own.
        """


def check_taus(network: NetworkSpec, taus: Sequence[float] | None, n_steps: int) -> None:
    """Raise unless ``taus`` of :meth:`Run.run` fit the network and the number of steps."""
    if taus is None:
        return
    if network.relaxation.adaptive:
        raise InvalidInputError(
            f"{type(network.relaxation).__name__} finds its own temperatures; leave taus out"
        )
    if len(taus) != n_steps or not all(0 < tau < float("inf") for tau in taus):
        raise InvalidInputError(
            f"taus must hold {n_steps} finite numbers above zero, one a step, got {list(taus)}"
        )


OutputLoss = Callable[[Tensor], Tensor]
"""A loss of class logits [batch, n_groups], to which every sample contributes by itself."""


class Curvature(Protocol):
    """Derivatives of the soft loss of fixed samples at fixed logits, up to the second.

    Soft is ``softmax(z/tau)`` in every layer, whatever the relaxation, without the ``grad_factor``.
    What does not depend on a direction is computed once, when it is made. Directions are rows of
    the logits of the probed layers, one after the other: [k, n_layers · width · 16].

    Attributes:
        ARRAYS: how many numbers are held for every sample, in units of the network's activations.
        loss: the loss.
        slopes: ∂L/∂c by the four coefficients of every gate of the probed layers, summed over
            samples in float64: [n_layers, width, 4].
    """

    ARRAYS: ClassVar[int]
    loss: float
    slopes: Tensor

    def products(self, rows: Tensor) -> Tensor:
        """Return ``(∂²L/∂z²) v`` for each row v, summed over samples in float64: shape of ``rows``."""

    def activation_products(self, seed: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Return what ``uᵀ (∂²L/∂y²) u`` is made of, layer by layer and sample by sample.

        y are the outputs of every gate of the probed layers and ``u = ± √q``, with
        ``q = ‖p ∘ (h − y)‖² / tau²``, h the outputs of the sixteen gates on its inputs, and the signs of
        :func:`lgn_analysis.gates.noise.random_signs` under ``NoiseKey(seed, Purpose.SIGNS, draw)`` for
        the draws ``first``..``first + count - 1``. A gate n contributes
        ``d_n(i) = u_n(i) · (∂²L/∂y² u)_n(i)`` at sample i.

        Returns:
            Σ d over the gates of each layer, float64 [count, n_layers, batch], and Σ d² over the
            gates of all probed layers, float64 [count, batch].
        """


def loss_derivatives(loss: OutputLoss, outputs: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return value, gradient [batch, n_groups] and Hessians [batch, n_groups, n_groups] of a loss.

    Each sample's Hessian comes from the others' not having any part in it.
    """
    with torch.enable_grad():
        leaf = outputs.detach().requires_grad_()
        value = loss(leaf)
        (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
        hessian = outputs.new_zeros(*outputs.shape, outputs.shape[1])
        if gradient.requires_grad:
            columns = gradient.sum(0)
            for group in range(outputs.shape[1]):
                (row,) = torch.autograd.grad(columns[group], leaf, retain_graph=True)
                hessian[:, group] = row
    return float(value.detach()), gradient.detach(), hessian


def check_samples(x: Tensor, n_features: int) -> None:
    """Raise unless x is [batch, n_features], batch at least 1: a curvature is of some samples."""
    if x.ndim != 2 or x.shape[1] != n_features or len(x) == 0:
        raise InvalidInputError(
            f"expected at least one sample, x [batch, {n_features}], got {tuple(x.shape)}"
        )


def is_transformed() -> bool:
    """Return whether ``torch.func``, forward-mode differentiation or a tracer is at work.

    They see through plain PyTorch alone.
    """
    return (
        torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
        or torch._C._is_tracing()
    )
