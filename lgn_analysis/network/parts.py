"""Whether a module still computes what its class says: what was patched, hooked, added or taken away.

Each function returns in words how a module departs from its class, and "" where in nothing.
"""

from __future__ import annotations

import functools
from typing import Any, Final, TypeVar, cast

from torch import nn
from torch.nn.modules import module as torch_module

_GLOBAL_HOOKS: Final = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
)
_ORIGINAL: Final[dict[type, tuple[tuple[str, ...], list[Any]]]] = {}
_Kind = TypeVar("_Kind")


def unpatched(kind: type[_Kind]) -> type[_Kind]:
    """Remember the methods of a class as they are now, for :func:`patches` to compare with."""
    methods = {
        name: value
        for name, value in vars(kind).items()
        if callable(value) or isinstance(value, property | classmethod | staticmethod)
    }
    _ORIGINAL[kind] = tuple(methods), list(methods.values())
    return kind


def patches(kind: type) -> str:
    """Return which method of a class was replaced since it was defined."""
    names, methods = _ORIGINAL[kind]
    now = list(map(vars(kind).get, names))
    if now == methods:
        return ""
    replaced = next(name for name, a, b in zip(names, now, methods, strict=True) if a != b)
    return f"{kind.__name__}.{replaced} has been replaced"


def departure(
    part: nn.Module, kind: type, parameters: frozenset[str], buffers: frozenset[str], modules: int
) -> str:
    """Return how a module departs from ``kind``: another class, methods or contents of its own.

    Args:
        part: the module.
        kind: the class that it should be, and no subclass.
        parameters: names of its own parameters, all of them.
        buffers: names that its own buffers may have.
        modules: how many modules it holds.
    """
    if type(part) is not kind:
        return f"is a {type(part).__name__}, not a {kind.__name__}"
    own = vars(part)
    # In this order: it goes through the few names of its own, not through all methods.
    if not (methods := _methods(cast(Any, kind))).isdisjoint(own):
        return f"has a {min(own.keys() & methods)} of its own"
    if own["_parameters"].keys() != parameters or any(
        z is None for z in own["_parameters"].values()
    ):
        return f"holds the parameters {sorted(own['_parameters'])}, not {sorted(parameters)}"
    if not own["_buffers"].keys() <= buffers:
        return f"holds the buffers {sorted(own['_buffers'])}, not {sorted(buffers)}"
    if len(own["_modules"]) != modules:
        return f"holds the modules {sorted(own['_modules'])}"
    return ""


def hooks(part: nn.Module) -> str:
    """Return what kind of hook a module has, or that it was compiled."""
    own = vars(part)
    if own["_forward_hooks"] or own["_forward_pre_hooks"]:
        return "has a forward hook"
    if own["_backward_hooks"] or own["_backward_pre_hooks"]:
        return "has a backward hook"
    return "is compiled" if own.get("_compiled_call_impl") is not None else ""


def global_hooks() -> str:
    """Return whether torch calls a hook for every module there is."""
    found = any(getattr(torch_module, name) for name in _GLOBAL_HOOKS)
    return "a hook is registered for all modules" if found else ""


@functools.cache
def _methods(kind: Any) -> frozenset[str]:
    return frozenset(
        name
        for name in dir(kind)
        if callable(getattr(kind, name)) or isinstance(getattr(kind, name), property)
    )
