"""Modes of a forward pass: soft, noisy, discrete, or the relaxation's training forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.relaxations import FUSED, Relaxation
from lgn_analysis.kernels.interface import is_transformed

Mode = Literal["soft", "noisy", "discrete"]
MODES: Final[tuple[str, ...]] = get_args(Mode)


def resolve_mode(mode: str | None, training: bool, relaxation: Relaxation) -> str:
    """Return ``"train"``, ``"soft"``, ``"noisy"`` or ``"discrete"``; None follows ``training``."""
    if mode is None:
        return "train" if training else "discrete"
    if mode not in MODES:
        raise InvalidInputError(f"unknown mode {mode!r}; use one of {', '.join(MODES)}, or None")
    if mode == "noisy" and not relaxation.noisy:
        raise InvalidInputError(
            f"{type(relaxation).__name__} draws no noise, so it has no noisy mode; "
            'use mode="soft" or mode="discrete"'
        )
    return mode


def chooses_gates(resolved: str, relaxation: Relaxation) -> bool:
    """Return whether a pass takes one gate each, ``resolved`` one of train, soft, noisy, discrete."""
    return resolved == "discrete" or (resolved != "soft" and relaxation.hard)


def has_kernels(resolved: str, relaxation: Relaxation) -> bool:
    """Return whether kernels compute a pass; soft and discrete mode are the same for all relaxations."""
    return resolved in ("soft", "discrete") or type(relaxation) in FUSED.values()


def is_fusible(resolved: str, x: Tensor, logits: Sequence[Tensor], relaxation: Relaxation) -> bool:
    """Return whether the kernels for whole networks can compute this pass, given a plain network.

    They compute the discrete network at any dtype of the logits, and the others in float32. They are
    opaque to transforms and are differentiated once: soft mode is what curvature is made of, so where
    it is differentiated plain PyTorch computes it, layer by layer.
    """
    if is_transformed():
        return False
    if resolved == "discrete":
        return True
    if not has_kernels(resolved, relaxation) or any(z.dtype != torch.float32 for z in logits):
        return False
    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *logits))
    return resolved != "soft" or not differentiated
