"""Modules in float64, whatever dtype they ask for: what their derivatives are compared with."""

from __future__ import annotations

import copy
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

_NARROW: Final = (torch.float32, torch.bfloat16, torch.float16)
_CASTS: Final = (Tensor.float, Tensor.half, Tensor.bfloat16)


def copy_of(model: nn.Module) -> nn.Module:
    """Return a copy of a module, also where a hook such as weight norm's left a graph in an attribute."""
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for part in model.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, memo)


class Widened(TorchFunctionMode):
    """What runs inside computes in float64 where it asks for less: casts, new tensors, constants."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _CASTS:
            func = Tensor.double
        if _writes(func):
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(widened, (args, kwargs or {}))
        return tree_map(widened, func(*args, **kwargs))


def widened(item: Any) -> Any:
    """Return a narrow floating tensor, or dtype, in float64, and anything else as it is."""
    if isinstance(item, torch.dtype):
        return torch.float64 if item in _NARROW else item
    return item.double() if isinstance(item, Tensor) and item.dtype in _NARROW else item


def _writes(func: Any) -> bool:
    """Return whether a function writes to its first argument, or reads an attribute of it."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name in ("__setitem__", "__set__", "__get__") or name.startswith("__i")
    return bool(name.endswith("_")) or func is Tensor.view
