"""Launches of the kernels on logits: noise, gates, coefficients, gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.table import N_GATES
from lgn_analysis.kernels.cuda.logits import (
    gumbel_noise,
    logit_gradient,
    mix_gates,
    select_gates,
)
from lgn_analysis.kernels.cuda.runtime.launch import cdiv, launch

GATES: Final = 64
"""Gates that one program holds."""


@dataclass(frozen=True)
class Draw:
    """Which noise a pass draws.

    Attributes:
        state: int64 on the device, beginning with seed and draw (modulo 2**64). Kernels read it
            when they run, so that a captured step draws anew whenever it is replayed.
        purpose: of the noise.
    """

    state: Tensor
    purpose: Purpose

    @classmethod
    def of(cls, key: NoiseKey, device: torch.device) -> Draw:
        """Put a key on the device, without waiting for it."""
        state = torch.empty(2, dtype=torch.int64, device=device)
        state[0].fill_(as_int64(key.seed))
        state[1].fill_(as_int64(key.draw))
        return cls(state, key.purpose)

    def stream(self, layer: int) -> int:
        """Return the counter word that names purpose and layer."""
        return int(self.purpose) << 24 | layer


Tau = float | Tensor
"""A gate temperature: a number, or float32 [1] on the device that holds 1 / tau when kernels run."""


def inverse_of(tau: Tau) -> tuple[Tau, bool]:
    """Return 1 / tau as a kernel's argument, and whether it is stored there."""
    return (tau, True) if isinstance(tau, Tensor) else (1 / tau, False)


def as_int64(word: int) -> int:
    """Return 0 <= word < 2**64 as the int64 with the same bits."""
    return word - 2**64 if word >= 2**63 else word


def noise(draw: Draw, layer: int, n_gates: int, dtype: torch.dtype) -> Tensor:
    """Return Gumbel noise [n_gates, 16]."""
    out = torch.empty(n_gates, N_GATES, dtype=dtype, device=draw.state.device)
    grid = (cdiv(n_gates, GATES),)
    launch(gumbel_noise, grid, out, draw.state, draw.stream(layer), n_gates, BLOCK=GATES)
    return out


def gates_of(logits: Tensor, draw: Draw | None = None, layer: int = 0) -> Tensor:
    """Return ``argmax(z + g)``, or ``argmax z`` without a draw: uint8 [n] for logits [n, 16]."""
    n = logits.shape[0]
    out = torch.empty(n, dtype=torch.uint8, device=logits.device)
    launch(
        select_gates,
        (cdiv(n, GATES),),
        out,
        logits,
        *noise_arguments(logits, draw, layer),
        n,
        NOISY=draw is not None,
        BLOCK=GATES,
    )
    return out


def coefficients_of(
    logits: Tensor, draw: Draw | None, layer: int, *, tau: Tau, hard: bool
) -> Tensor:
    """Return the coefficients [n, 4] of the training forward's gate weights."""
    n = logits.shape[0]
    inverse, stored = inverse_of(tau)
    out = torch.empty(n, 4, dtype=logits.dtype, device=logits.device)
    launch(
        mix_gates,
        (cdiv(n, GATES),),
        out,
        logits,
        *noise_arguments(logits, draw, layer),
        n,
        inverse,
        NOISY=draw is not None,
        HARD=hard,
        STORED=stored,
        BLOCK=GATES,
    )
    return out


def gradient_of(
    logits: Tensor, sums: Tensor, draw: Draw | None, layer: int, *, tau: float
) -> Tensor:
    """Return the gradient of logits [n, 16] for the four sums [n_parts, n, 4] of their gates."""
    n = logits.shape[0]
    out = torch.empty_like(logits)
    launch(
        logit_gradient,
        (cdiv(n, GATES),),
        out,
        logits,
        sums,
        *noise_arguments(logits, draw, layer),
        n,
        sums.shape[0],
        1 / tau,
        NOISY=draw is not None,
        BLOCK=GATES,
    )
    return out


def noise_arguments(logits: Tensor, draw: Draw | None, layer: int) -> tuple[Tensor, int]:
    """Return state and stream; without a draw the kernel reads neither."""
    return (logits, 0) if draw is None else (draw.state, draw.stream(layer))
