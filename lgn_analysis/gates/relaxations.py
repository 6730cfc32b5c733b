"""Relaxations of the choice "gate ``argmax z``", by which networks are trained.

Each turns logits z [..., 16] into gate weights [..., 16]. All share the noise-free *soft* weights
``softmax(z / tau)`` and the *discrete* weights ``onehot(argmax z)``; they differ in the forward that
training uses.

Source: Petersen et al., NeurIPS 2022 (Soft); Jang et al. and Maddison et al., ICLR 2017 (Gumbel
softmax and its straight-through form); Yousefi et al., NeurIPS 2025 (Gumbel-ST in LGNs); Kim,
arXiv 2603.14157 (CAGE).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError, NotDifferentiableError
from lgn_analysis.base.validation import positive, real
from lgn_analysis.gates.table import N_GATES

UNDECIDED: Final = 1.0 / N_GATES
"""The confidence of a uniform choice, at which that of a new layer starts."""

_Number = TypeVar("_Number", float, Tensor)


@dataclass(frozen=True)
class Relaxation:
    """A relaxation at gate temperature ``tau``; use one of its five kinds.

    Attributes:
        tau: gate temperature, finite and above zero.
    """

    tau: float = 1.0

    name: ClassVar[str]
    noisy: ClassVar[bool]
    """Whether the training forward draws Gumbel noise."""
    hard: ClassVar[bool]
    """Whether the training forward selects one gate, with a straight-through gradient."""
    adaptive: ClassVar[bool] = False
    """Whether the gradient's temperature follows a confidence that each layer keeps: CAGE."""

    def __post_init__(self) -> None:
        if type(self) is Relaxation:
            raise InvalidInputError(f"choose a relaxation: {', '.join(RELAXATIONS)}")
        # A float: NumPy's numbers do not go into JSON.
        object.__setattr__(self, "tau", positive("tau", self.tau))

    def training_weights(
        self,
        logits: Tensor,
        noise: Tensor | None = None,
        *,
        tau: float | Tensor | None = None,
    ) -> Tensor:
        """Return the gate weights of the training forward.

        Args:
            logits: z [..., 16].
            noise: Gumbel noise of the same shape; given exactly when ``self.noisy``.
            tau: temperature of the softmax, where hard that of the gradient alone; None is the
                relaxation's own: for CAGE that of these logits' confidence, without a past.
        """
        if self.noisy != (noise is not None):
            raise InvalidInputError(
                f"{type(self).__name__} {'needs' if self.noisy else 'takes no'} noise"
            )
        perturbed = logits if noise is None else logits + noise
        if tau is None:
            tau = self._own_tau(logits)
        soft = functional.softmax(perturbed / tau, dim=-1)
        if not self.hard:
            return soft
        return straight_through(one_hot_argmax(perturbed), soft)

    def _own_tau(self, logits: Tensor) -> float | Tensor:
        return self.tau


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


@dataclass(frozen=True)
class CAGE(Relaxation):
    """``onehot(argmax z)`` with the gradient of ``softmax(z / tau_b)``, tau_b falling with confidence.

    ``tau_b = tau_max - (tau_max - tau_min) · clip((c - 1/16) / (15/16), 0, 1)``, and every training
    forward first moves c, ``c <- decay · c + (1 - decay) · mean over gates of max softmax(z / tau)``.

    c is a buffer of each layer, over whose own gates the mean is taken, and starts at 1/16: layers
    become confident at different times, and a layer does not depend on the rest of its network. (This
    package's choice: the source gives one c, without its mean's range or its start.) It is saved with
    the model and is a function of the logits alone, so that all ranks have the same. As for every
    relaxation, soft mode has weights ``softmax(z / tau)``.

    Source: Kim, *Align Forward, Adapt Backward*, arXiv 2603.14157: confidence-adaptive gradient
    estimation, with the defaults 3, 0.5 and 0.99.

    Attributes:
        tau: temperature of soft mode and of the confidence.
        tau_max: temperature of the gradient at no confidence.
        tau_min: temperature of the gradient at full confidence, above zero and at most tau_max.
        decay: how much of c is kept at each step, in [0, 1).

    >>> CAGE().backward_tau(1 / 16), CAGE().backward_tau(1.0)
    (3.0, 0.5)
    """

    tau_max: float = field(default=3.0, kw_only=True)
    tau_min: float = field(default=0.5, kw_only=True)
    decay: float = field(default=0.99, kw_only=True)

    name = "cage"
    noisy = False
    hard = True
    adaptive = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tau_max", "tau_min", "decay"):
            object.__setattr__(self, name, real(name, getattr(self, name)))
        if not 0 < self.tau_min <= self.tau_max < math.inf:
            raise InvalidInputError(
                f"CAGE needs 0 < tau_min <= tau_max, both finite; got tau_min={self.tau_min}, "
                f"tau_max={self.tau_max}"
            )
        if not 0 <= self.decay < 1:
            raise InvalidInputError(
                f"decay must lie in [0, 1), got {self.decay}; 0 keeps nothing of the past"
            )

    def backward_tau(self, confidence: _Number) -> _Number:
        """Return tau_b at a confidence, a number or a tensor."""
        share = (confidence - UNDECIDED) / (1.0 - UNDECIDED)
        if isinstance(share, Tensor):
            share = share.clamp(0.0, 1.0)
        else:
            share = min(max(share, 0.0), 1.0)
        return self.tau_max - (self.tau_max - self.tau_min) * share

    def certainty(self, logits: Tensor) -> Tensor:
        """Return the mean over gates of ``max softmax(z / tau)``, [] for logits [..., 16], detached."""
        return soft_weights(logits.detach(), self.tau).amax(-1).mean()

    def next_confidence(self, confidence: Tensor, logits: Tensor) -> Tensor:
        """Return c after a step at these logits, for c [] before it."""
        return self.decay * confidence + (1.0 - self.decay) * self.certainty(logits)

    def _own_tau(self, logits: Tensor) -> float | Tensor:
        return self.backward_tau(self.certainty(logits))


FUSED: Final[dict[str, type[Relaxation]]] = {
    kind.name: kind for kind in (Soft, GumbelSoft, GumbelST, HardST, CAGE)
}
"""The relaxations whose training forward the kernels compute."""
RELAXATIONS: Final[dict[str, type[Relaxation]]] = {**FUSED}
"""All relaxations by name; one that is not in :data:`FUSED` is trained in plain PyTorch."""
OPTIONS: Final[dict[str, tuple[str, str]]] = {
    f"{kind.name.replace('-', '_')}_{item.name}": (kind.name, item.name)
    for kind in RELAXATIONS.values()
    for item in fields(kind)
    if item.kw_only
}
"""Key of an option in a configuration: name of its relaxation, and of its field there."""


def make_relaxation(name: str, tau: float = 1.0, **options: float) -> Relaxation:
    """Return the relaxation called ``name`` (as in :data:`RELAXATIONS`).

    >>> make_relaxation("gumbel-st", tau=0.5)
    GumbelST(tau=0.5)
    >>> make_relaxation("cage", decay=0.9)
    CAGE(tau=1.0, tau_max=3.0, tau_min=0.5, decay=0.9)
    """
    if name not in RELAXATIONS:
        raise InvalidInputError(f"unknown relaxation {name!r}; use one of {', '.join(RELAXATIONS)}")
    known = [option for kind, option in OPTIONS.values() if kind == name]
    for option in options:
        if option not in known:
            have = f"only {', '.join(known)}" if known else "none beside tau"
            raise InvalidInputError(f"relaxation {name!r} has no option {option!r}, {have}")
    return RELAXATIONS[name](tau, **options)


def relaxation_from(config: dict[str, Any]) -> Relaxation:
    """Return the relaxation that a network's configuration names, and take its keys out of it."""
    name, tau = config.pop("relaxation"), config.pop("tau")
    options = {}
    for key, (kind, option) in OPTIONS.items():
        value = config.pop(key, None)
        if value is not None and kind != name:
            raise InvalidInputError(
                f"{key} is an option of relaxation {kind!r}, and this is {name!r}; leave it out"
            )
        if value is not None:
            options[option] = value
    return make_relaxation(name, tau, **options)


def relaxation_config(relaxation: Relaxation) -> dict[str, Any]:
    """Return what :func:`relaxation_from` reads."""
    options = {
        key: getattr(relaxation, option)
        for key, (kind, option) in OPTIONS.items()
        if kind == relaxation.name
    }
    return {"relaxation": relaxation.name, "tau": relaxation.tau, **options}


def soft_weights(logits: Tensor, tau: float) -> Tensor:
    """Return ``softmax(z / tau)`` [..., 16], the weights of soft mode for every relaxation."""
    return functional.softmax(logits / tau, dim=-1)


def one_hot_argmax(logits: Tensor) -> Tensor:
    """Return ``onehot(argmax z)`` in the dtype of ``logits``, detached; the first maximum wins."""
    best = logits.detach().argmax(dim=-1, keepdim=True)
    options = torch.arange(N_GATES, device=logits.device)
    return (best == options).to(logits.dtype)


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Return ``hard`` with the gradient of ``soft``; a second derivative is refused."""
    values: Tensor = _StraightThrough.apply(hard, soft)
    return values


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
        raise NotDifferentiableError(NO_SECOND_DERIVATIVE)


class GradientFunction(torch.autograd.Function):
    """A straight-through gradient: a function whose own derivative is refused."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotDifferentiableError(NO_SECOND_DERIVATIVE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotDifferentiableError(NO_SECOND_DERIVATIVE)


class _OnlyOnce(GradientFunction):
    """The identity in ``grad``, whose own derivative is refused.

    ``soft`` ties it to the logits: without, a ``grad`` that depends on none (one layer, a linear
    loss) would leave a second derivative of the softmax alone, which is the Hessian of nothing.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, soft: Tensor) -> Tensor:
        return grad.clone()


NO_SECOND_DERIVATIVE: Final = (
    "a straight-through gradient is the gradient of no function, so it has no derivative and no "
    'Hessian; differentiate the network in soft mode instead: model(x, mode="soft")'
)
