"""The optimiser of a run: AdamW, its learning rate over the steps, and the scale of its gradient.

Gradients of the first layers of a deep network are small: at 24 layers their squares, some 1e-40, are
no normal float32. Adam's step is the same for a gradient that is multiplied by S and an ε that is, and
in floating point to the last bit where S is a power of two. So a run whose ε says that such gradients
count is taken at ``S ∂L/∂z`` and ``S ε``: its moments, in checkpoints too, are those of ``S ∂L/∂z``,
with S by :func:`gradient_scale` a function of ε alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.optim import optimizer as torch_optimizer

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import positive, real

CONSTANT: Final = "constant"
COSINE: Final = "cosine"
WARMUP: Final = "warmup"
LR_SCHEDULES: Final = (CONSTANT, COSINE, WARMUP)
"""``warmup`` is what constant with ``warmup_steps`` was called when warm-up and cosine excluded each other."""

_USUAL_EPS: Final = 1e-8
_MOST_DOUBLINGS: Final = 40
_LEAST_EPS: Final = 1e-48
"""Below, ``S ε`` is no normal float32, and a logit without a gradient would move by 0 / 0."""
_MOMENTS: Final = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class LrSchedule:
    """Adam's learning rate as a function of the step t alone, counted from 0.

    With W warm-up steps and C of the cosine it is ``lr (t + 1) / W`` for t < W, then
    ``lr (1 + cos(π min(1, (t − W) / C))) / 2``, or ``lr`` without a cosine: torch's ``SequentialLR`` of
    ``LinearLR(1 / W, 1, W − 1)`` and ``CosineAnnealingLR(C)``.

    Attributes:
        lr: the highest learning rate.
        warmup_steps: W; 0 begins with ``lr``.
        cosine_steps: C, at least 1; None stays at ``lr``.

    >>> [LrSchedule(0.1, warmup_steps=4).at(step) for step in (0, 1, 3, 9)]
    [0.025, 0.05, 0.1, 0.1]
    >>> [round(LrSchedule(0.1, 2, 4).at(step), 12) for step in (0, 1, 2, 4, 6, 9)]
    [0.05, 0.1, 0.1, 0.05, 0.0, 0.0]
    """

    lr: float
    warmup_steps: int = 0
    cosine_steps: int | None = None

    @classmethod
    def of(
        cls, kind: str, lr: float, steps: int, warmup_steps: int | None, cosine_steps: int | None
    ) -> LrSchedule | None:
        """Return the schedule that these options of a run mean, or None where the rate stays ``lr``.

        Raises:
            InvalidInputError: they mean none.
        """
        if kind not in LR_SCHEDULES:
            known = ", ".join(LR_SCHEDULES)
            raise InvalidInputError(f"unknown lr_schedule {kind!r}; use one of {known}")
        if kind == WARMUP and warmup_steps is None:
            raise InvalidInputError(
                "lr_schedule 'warmup' needs warmup_steps, after which lr is reached"
            )
        warm = warmup_steps or 0
        if kind != COSINE:
            if cosine_steps is not None:
                raise InvalidInputError(
                    f"cosine_steps is given and lr_schedule is {kind}; give lr_schedule cosine, or "
                    "leave cosine_steps out"
                )
            return cls(lr, warm) if warm else None
        if cosine_steps is None and warm >= steps:
            raise InvalidInputError(
                f"warmup_steps {warm} leave none of {steps} steps to the cosine; give fewer, or "
                "cosine_steps, in which it falls after them"
            )
        return cls(lr, warm, cosine_steps or steps - warm)

    def at(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup_steps:
            return self.lr * ((step + 1) / self.warmup_steps)
        if self.cosine_steps is None:
            return self.lr
        share = min(1.0, (step - self.warmup_steps) / self.cosine_steps)
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * share))


def gradient_scale(eps: float) -> float:
    """Return S: 1 for an ε of 1e-8 or more, below the power of two next to 1e-8 / ε, 2**40 at most.

    >>> gradient_scale(1e-8), gradient_scale(1e-16) == 2.0**27, gradient_scale(1e-30) == 2.0**40
    (1.0, True, True)
    """
    if eps >= _USUAL_EPS:
        return 1.0
    return 2.0 ** min(_MOST_DOUBLINGS, round(math.log2(_USUAL_EPS) - math.log2(eps)))


@contextmanager
def scaled(parameters: Sequence[Tensor], scale: float) -> Iterator[None]:
    """Multiply the gradients of parameters, and divide them again on leaving: exact by powers of two."""
    gradients = [p.grad for p in parameters if p.grad is not None and scale != 1.0]
    for gradient in gradients:
        gradient.mul_(scale)
    try:
        yield
    finally:
        for gradient in gradients:
            gradient.div_(scale)


def checked_eps(eps: object) -> float:
    """Return ε as a float, or raise unless it is finite and some way above zero."""
    number = positive("eps", eps)
    if number < _LEAST_EPS:
        raise InvalidInputError(
            f"eps must be at least {_LEAST_EPS:g}, below which float32 has no eps, got {eps}"
        )
    return number


def checked_betas(betas: object) -> tuple[float, float]:
    """Return both decays as floats, or raise unless they are two numbers in [0, 1)."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise InvalidInputError(f"betas must be two numbers, got {betas!r}")
    first, second = (real("betas", beta) for beta in betas)
    if not (0 <= first < 1 and 0 <= second < 1):
        raise InvalidInputError(f"betas must lie in [0, 1), got {betas}")
    return first, second


def checked_decay(weight_decay: object) -> float:
    """Return the weight decay as a float, or raise unless it is finite and not below zero."""
    number = real("weight_decay", weight_decay)
    if not 0 <= number < math.inf:
        raise InvalidInputError(f"weight_decay must be finite and at least 0, got {weight_decay}")
    return number


def is_plain_adamw(optimiser: torch.optim.Adam, parameters: Sequence[Tensor]) -> bool:
    """Return whether an optimiser's steps are those of AdamW on these parameters, and no more.

    Adam with weight decay in its gradient is none; Adam without weight decay is.
    """
    called = (
        optimiser._optimizer_step_pre_hooks,
        optimiser._optimizer_step_post_hooks,
        torch_optimizer._global_optimizer_pre_hooks,
        torch_optimizer._global_optimizer_post_hooks,
    )
    if any(called) or "step" in vars(optimiser) or len(optimiser.param_groups) != 1:
        return False
    group = optimiser.param_groups[0]
    if not same(group["params"], parameters):
        return False
    if group["weight_decay"] != 0 and not group["decoupled_weight_decay"]:
        return False
    if group["amsgrad"] or group["maximize"]:
        return False
    moments = [state[name] for state in optimiser.state.values() for name in _MOMENTS if state]
    return all(m.dtype == torch.float32 and m.is_contiguous() for m in moments)


def same(one: Sequence[object], other: Sequence[object]) -> bool:
    """Return whether two sequences hold the same objects."""
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
