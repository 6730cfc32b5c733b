"""What a backend offers, what it is given and what it returns; and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import shown
from lgn_analysis.gates.noise import NoiseKey
from lgn_analysis.gates.parametrisations import GATES16, get_parametrisation
from lgn_analysis.gates.relaxations import Relaxation


@dataclass(frozen=True)
class NetworkSpec:
    """What a pass over a network is made of, its logits apart.

    Attributes:
        wirings: int64 [2, n_out] of every layer.
        n_features: inputs of the first layer.
        relaxation: of every layer.
        parametrisation: of every layer, by name; a backend has those in its ``PARAMETRISATIONS``.
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
    parametrisation: str = GATES16

    @property
    def layer_taus(self) -> tuple[float, ...]:
        """Temperature of every layer's training forward and its gradient."""
        return self.taus or (self.relaxation.tau,) * len(self.wirings)

    @property
    def n_parameters(self) -> int:
        """Trainable numbers of a gate."""
        return get_parametrisation(self.parametrisation).n_parameters

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
    """Constants of :class:`torch.optim.AdamW`, and what the gradient is multiplied by before it.

    Attributes:
        lr: learning rate.
        betas: decay of the first and of the second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled: every step multiplies the logits by ``1 - lr · weight_decay``.
        gradient_scale: multiplies the gradient; the moments are those of the product. Losses are
            not multiplied.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    gradient_scale: float = 1.0


@dataclass(frozen=True)
class PackedSamples:
    """Training inputs as bits: words int64 [n, ceil(n_features / 64)], feature 0 in the lowest bit."""

    words: Tensor
    n_features: int


class Run(Protocol):
    """Training steps of one network on given data; logits and moments are written in place."""

    def run(
        self,
        order: Tensor,
        key: NoiseKey,
        *,
        steps_done: int,
        lrs: Sequence[float] | None = None,
        taus: Sequence[float] | None = None,
    ) -> Tensor:
        """Take a step for each row of ``order`` and return their mean losses, float64 [n_steps].

        The loss of a step is the mean over its noise draws.

        A step whose loss is not finite is the last that counts. On a CPU it moves nothing any more,
        and the losses behind it are NaN.

        Args:
            order: int64 [n_steps, batch], which samples each step takes.
            key: the noise that is drawn first; the draw goes up by one each time, so by ``draws`` a
                step.
            steps_done: Adam's steps before these.
            lrs: [n_steps], the learning rate of each step; None is Adam's own.
            taus: [n_steps], the gate temperature of each step; None is the relaxation's own. An
                adaptive relaxation finds its own.
        """


OutputLoss = Callable[[Tensor], Tensor]
"""A loss of class logits [batch, n_groups], to which every sample contributes by itself."""


Weight = Literal["softmax", "variance"]
"""Which squared length q a probe in activation space has; see :func:`length_scales`."""


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

    def activation_products(
        self, seed: int, first: int, count: int, *, weight: Weight = "softmax"
    ) -> tuple[Tensor, Tensor]:
        """Return what ``uᵀ (∂²L/∂y²) u`` is made of, layer by layer and sample by sample.

        y are the outputs of every gate of the probed layers and ``u = ± √q``, with q of
        :func:`length_scales` for h, the outputs of the sixteen gates on its inputs, and the signs of
        :func:`lgn_analysis.gates.noise.random_signs` under ``NoiseKey(seed, Purpose.SIGNS, draw)`` for
        the draws ``first``..``first + count - 1``. A gate n contributes
        ``d_n(i) = u_n(i) · (∂²L/∂y² u)_n(i)`` at sample i.

        Returns:
            Σ d over the gates of each layer, float64 [count, n_layers, batch], and Σ d² over the
            gates of all probed layers, float64 [count, batch].
        """


class Backend(Protocol):
    """What every backend offers; :mod:`lgn_analysis.kernels.reference` is the specification.

    Feature-major: a gather of inputs is a contiguous row.
    """

    NAME: str

    def gumbel(
        self,
        key: NoiseKey,
        layers: Tensor | int,
        n_gates: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> Tensor:
        """Return Gumbel noise [..., n_gates, 16]."""

    def gate_layer(self, x: Tensor, wiring: Tensor, coefficients: Tensor) -> Tensor:
        """Return ``c0 + c1·a + c2·b + c3·ab`` [n_out, ...] for x [n_in, ...]."""

    def gate_layer_packed(self, words: Tensor, wiring: Tensor, gates: Tensor) -> Tensor:
        """Return the outputs of discrete gates [n_out, n_words] on packed bits [n_in, n_words]."""

    def pack_bits(self, bits: Tensor) -> Tensor:
        """Return bits [n, batch] packed into int64 words [n, ceil(batch / 64)]."""

    def unpack_bits(self, words: Tensor, batch: int) -> Tensor:
        """Return packed words [n, n_words] as bool [n, batch]."""

    def Curvature(
        self,
        network: NetworkSpec,
        logits: Sequence[Tensor],
        x: Tensor,
        loss: OutputLoss,
        *,
        tau: float,
        layers: Sequence[int],
    ) -> Curvature:
        """Prepare derivatives of the soft loss.

        Args:
            network: wirings and group sum.
            logits: [width, 16] of every layer, all float32 or all float64.
            x: [batch, n_features], bool or numbers.
            loss: of the class logits; samples contribute to it by themselves.
            tau: gate temperature.
            layers: which layers are probed, rising.

        Raises:
            InvalidInputError: arguments that do not fit.
        """


class NetworkBackend(Backend, Protocol):
    """A backend that runs whole networks, their layers of one width.

    Attributes:
        PARAMETRISATIONS: the names of those that its passes over whole networks know.
    """

    PARAMETRISATIONS: ClassVar[frozenset[str]]

    def training_forward(
        self, network: NetworkSpec, logits: Sequence[Tensor], x: Tensor, key: NoiseKey | None
    ) -> Tensor:
        """Return class logits [batch, n_groups] of the training forward for float32 logits.

        ``x`` is bool or float32 [batch, n_features]; the key is given exactly when the relaxation
        is noisy. Differentiable once; twice where the relaxation is soft.
        """

    def discrete_forward(
        self, network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor
    ) -> Tensor:
        """Return the group sums of the discrete network, not divided: int32 [batch, n_groups]."""

    def discrete_activity(
        self, network: NetworkSpec, logits: Sequence[Tensor], bits: Tensor
    ) -> Tensor:
        """Return on how many samples each gate of the discrete network is 1: int64 [depth, width]."""

    def PackedSamples(self, words: Tensor, n_features: int) -> Any:
        """Name training inputs; see :class:`PackedSamples`."""

    def TrainingRun(
        self,
        network: NetworkSpec,
        logits: Sequence[Tensor],
        moments: Sequence[Moments],
        samples: Any,
        labels: Tensor,
        adam: AdamRule,
        *,
        draws: int = 1,
    ) -> Run:
        """Prepare training steps of the relaxation's training forward on bits.

        Args:
            network: the network.
            logits: float32 [width, 16] of every layer, contiguous; written in place.
            moments: Adam's state of every layer, contiguous; written in place.
            samples: the training inputs.
            labels: int64 [n].
            adam: Adam's constants.
            draws: noise draws of a step, whose gradients are averaged.
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


def length_scales(p: Tensor, tau: float, weight: Weight) -> Tensor:
    """Return s with ``q = ‖s ∘ (h − y)‖²`` for gate weights p = softmax(z/tau), both [..., 16].

    ``"softmax"``: s = p/tau, so that q = ‖Jᵀh‖², J the softmax's Jacobian: what a shift of the logits of
    variance one does to the output. ``"variance"``: s = √p, so that q = Σ p h² − y², the variance of
    the output of a gate that is drawn from p.
    """
    if weight not in get_args(Weight):
        raise InvalidInputError(
            f"weight must be one of {', '.join(get_args(Weight))}, got {shown(weight)}"
        )
    return p / tau if weight == "softmax" else p.sqrt()


def as_int64(word: int) -> int:
    """Return 0 <= word < 2**64, a seed or a draw, as the int64 with the same bits."""
    return word - 2**64 if word >= 2**63 else word


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
