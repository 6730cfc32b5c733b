"""What is handed to a backend that runs a whole network at once, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lgn_analysis.noise import NoiseKey
from lgn_analysis.relaxations import Relaxation


@dataclass(frozen=True)
class Pass:
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
    """

    wirings: tuple[Tensor, ...]
    n_features: int
    relaxation: Relaxation
    n_groups: int
    group_tau: float
    grad_factor: float = 1.0
    gradient_dtype: torch.dtype = torch.float32
    first_layer: int = 0

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
        self, order: Tensor, key: NoiseKey, *, steps_done: int, lr: float | None = None
    ) -> Tensor:
        """Take a step for each row of ``order`` and return the sum of their mean losses.

        Args:
            order: int64 [n_steps, batch], which samples each step takes.
            key: the noise of the first step; the draw goes up by one a step.
            steps_done: Adam's steps before these.
            lr: the learning rate of these steps; None is Adam's own.
        """


def is_transformed() -> bool:
    """Return whether ``torch.func``, forward-mode differentiation or a tracer is at work.

    They see through plain PyTorch alone.
    """
    return (
        torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
    )
