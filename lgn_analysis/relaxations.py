"""The relaxations: what stands for "gate ``argmax z``" while a network is trained.

Each turns logits z [..., 16] into gate weights [..., 16]. All share the noise-free *soft* weights
``softmax(z / tau)`` and the *discrete* weights ``onehot(argmax z)``; they differ in the forward that
training uses.

Source: Petersen et al., NeurIPS 2022 (Soft); Jang et al. and Maddison et al., ICLR 2017 (Gumbel
softmax and its straight-through form); Yousefi et al., NeurIPS 2025 (Gumbel-ST in LGNs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.gates import N_GATES


@dataclass(frozen=True)
class Relaxation:
    """A relaxation at gate temperature ``tau``; use one of its four kinds.

    Attributes:
        tau: gate temperature, finite and above zero.
    """

    tau: float = 1.0

    name: ClassVar[str]
    noisy: ClassVar[bool]
    """Whether the training forward draws Gumbel noise."""
    hard: ClassVar[bool]
    """Whether the training forward selects one gate, with a straight-through gradient."""

    def __post_init__(self) -> None:
        if type(self) is Relaxation:
            raise InvalidInputError(f"choose a relaxation: {', '.join(RELAXATIONS)}")
        if not (math.isfinite(self.tau) and self.tau > 0):
            raise InvalidInputError(f"tau must be finite and above zero, got {self.tau}")
        object.__setattr__(self, "tau", float(self.tau))  # NumPy's numbers do not go into JSON

    def training_weights(self, logits: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the gate weights of the training forward.

        Args:
            logits: z [..., 16].
            noise: Gumbel noise of the same shape; given exactly when ``self.noisy``.
        """
        if self.noisy != (noise is not None):
            raise InvalidInputError(
                f"{type(self).__name__} {'needs' if self.noisy else 'takes no'} noise"
            )
        perturbed = logits if noise is None else logits + noise
        soft = functional.softmax(perturbed / self.tau, dim=-1)
        if not self.hard:
            return soft
        weights: Tensor = _StraightThrough.apply(one_hot_argmax(perturbed), soft)
        return weights


class Soft(Relaxation):
    """``softmax(z / tau)``: the noise-free DLGN."""

    name = "soft"
    noisy = False
    hard = False


class GumbelSoft(Relaxation):
    """``softmax((z + g) / tau)``, g i.i.d. Gumbel(0, 1)."""

    name = "gumbel-soft"
    noisy = True
    hard = False


class GumbelST(Relaxation):
    """``onehot(argmax(z + g))`` with the gradient of ``softmax((z + g) / tau)``: the GLGN."""

    name = "gumbel-st"
    noisy = True
    hard = True


class HardST(Relaxation):
    """``onehot(argmax z)`` with the gradient of ``softmax(z / tau)``."""

    name = "hard-st"
    noisy = False
    hard = True


RELAXATIONS: Final[dict[str, type[Relaxation]]] = {
    kind.name: kind for kind in (Soft, GumbelSoft, GumbelST, HardST)
}


def make_relaxation(name: str, tau: float = 1.0) -> Relaxation:
    """Return the relaxation called ``name`` (as in :data:`RELAXATIONS`).

    >>> make_relaxation("gumbel-st", tau=0.5)
    GumbelST(tau=0.5)
    """
    if name not in RELAXATIONS:
        raise InvalidInputError(f"unknown relaxation {name!r}; use one of {', '.join(RELAXATIONS)}")
    return RELAXATIONS[name](tau)


def soft_weights(logits: Tensor, tau: float) -> Tensor:
    """Return ``softmax(z / tau)`` [..., 16], the weights of soft mode for every relaxation."""
    return functional.softmax(logits / tau, dim=-1)


def one_hot_argmax(logits: Tensor) -> Tensor:
    """Return ``onehot(argmax z)`` in the dtype of ``logits``, detached; the first maximum wins."""
    best = logits.detach().argmax(dim=-1, keepdim=True)
    options = torch.arange(N_GATES, device=logits.device)
    return (best == options).to(logits.dtype)


class _StraightThrough(torch.autograd.Function):
    """Forward ``hard``, backward the identity onto ``soft``; refuses a second derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(hard: Tensor, soft: Tensor) -> Tensor:
        return hard.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (soft,) = ctx.saved_tensors
        return None, _OnlyOnce.apply(grads[0], soft)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotDifferentiableError(_NO_SECOND_DERIVATIVE)


class _OnlyOnce(torch.autograd.Function):
    """The identity in ``grad``, whose own derivative is refused.

    ``soft`` ties it to the logits: without, a ``grad`` that depends on none (one layer, a linear
    loss) would leave a second derivative of the softmax alone, which is the Hessian of nothing.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, soft: Tensor) -> Tensor:
        return grad.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotDifferentiableError(_NO_SECOND_DERIVATIVE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotDifferentiableError(_NO_SECOND_DERIVATIVE)


_NO_SECOND_DERIVATIVE: Final = (
    "a straight-through gradient is the gradient of no function, so it has no derivative and no "
    'Hessian; differentiate the network in soft mode instead: model(x, mode="soft")'
)
