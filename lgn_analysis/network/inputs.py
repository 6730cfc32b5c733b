"""Checks of the inputs of a layer or a network, and their conversion for the kernels."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.relaxations import relaxation_from

_REQUIRED: Final = ("n_features", "width", "depth", "n_classes", "group_tau", "relaxation", "tau")
_NO_BITS: Final = (
    "discrete mode works on bits, and the inputs hold values other than 0 and 1; "
    'threshold them first (lgn.thermometer), or use mode="soft"'
)


def check_features(x: Tensor, n_features: int) -> None:
    """Raise unless x is a tensor of real numbers [..., n_features]."""
    if not isinstance(x, Tensor):
        raise InvalidInputError(
            f"expected a tensor [batch, {n_features}], got {type(x).__name__}; convert it, for "
            "instance by torch.as_tensor"
        )
    if x.is_complex():
        raise InvalidInputError(f"inputs must be real numbers, got {x.dtype}")
    if x.ndim == 0 or x.shape[-1] != n_features:
        raise InvalidInputError(
            f"expected inputs [batch, {n_features}], got shape {tuple(x.shape)}"
        )


def check_divisible(name: str, size: int, divisor_name: str, divisor: int) -> None:
    """Raise unless ``size`` is a positive multiple of ``divisor``, naming its neighbours that are."""
    if size >= 1 and size % divisor == 0:
        return
    if size < 1:
        raise InvalidInputError(
            f"{name} must be a positive multiple of {divisor_name} {divisor}, got {size}; use "
            f"{divisor}"
        )
    below = size // divisor * divisor
    choices = f"{below} or {below + divisor}" if below > 0 else str(divisor)
    raise InvalidInputError(
        f"{name} {size} is not divisible by {divisor_name} {divisor}; use {choices}"
    )


def as_bits(x: Tensor) -> Tensor:
    """Return x as bool, or raise where it holds anything but 0 and 1."""
    if x.dtype == torch.bool:
        return x
    are_bits = ((x == 0) | (x == 1)).all()
    if torch.compiler.is_compiling():  # a compiled program checks when it runs
        torch._assert_async(are_bits, _NO_BITS)
    elif not bool(are_bits):
        raise InvalidInputError(_NO_BITS)
    return x.to(torch.bool)


def flat_values(x: Tensor) -> Tensor:
    """Return x [..., n] as bool or float32 [batch, n]."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.dtype == torch.bool else flat.to(torch.float32).resolve_neg()


def check_arguments(
    wiring: object, width: int, n_classes: int, n_groups: int, gradient_dtype: torch.dtype
) -> None:
    """Raise unless the arguments of a network fit together."""
    if not isinstance(wiring, str):
        raise InvalidInputError(
            f'wiring must be "random" or "unique", got {type(wiring).__name__}; a wiring of '
            "your own goes into each layer: LogicLayer(wiring=…)"
        )
    if n_classes < 1 or n_groups < n_classes:
        raise InvalidInputError(
            f"n_classes must be at least 1 and n_groups at least n_classes, got "
            f"n_classes={n_classes}, n_groups={n_groups}"
        )
    check_divisible("width", width, "n_classes" if n_groups == n_classes else "n_groups", n_groups)
    if gradient_dtype not in (torch.float32, torch.bfloat16):
        raise InvalidInputError(
            f"gradient_dtype must be torch.float32 or torch.bfloat16, got {gradient_dtype}"
        )


def network_arguments(kind: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a network's class for its configuration, or raise with what is unknown."""
    if lacking := [name for name in _REQUIRED if name not in config]:
        raise InvalidInputError(
            f"a network's configuration needs {', '.join(lacking)} too; give that of a network, "
            "model.config"
        )
    arguments = dict(config)
    relaxation = relaxation_from(arguments)
    known = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    if unknown := [name for name in arguments if name not in known]:
        raise InvalidInputError(
            f"a network's configuration has no {', '.join(map(repr, unknown))}; leave it out"
        )
    return {**arguments, "relaxation": relaxation}
