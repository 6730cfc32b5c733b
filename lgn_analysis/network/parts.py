"""Whether a module still computes what its class defines: patches, hooks, other contents.

Each function returns in words how a module departs from its class, and "" if it does not.
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
_CALLS: Final = ("__call__", "_wrapped_call_impl", "_call_impl", "__getattr__")
"""What PyTorch does around the ``forward`` of every module."""
_OWN_CALLS: Final = [vars(nn.Module)[name] for name in _CALLS]
_ORIGINAL: Final[dict[type, dict[str, Any]]] = {}
_Kind = TypeVar("_Kind", bound=type)


def unpatched(kind: _Kind) -> _Kind:
    """Remember the contents of a class as they are now, for :func:`patches` to compare with."""
    _ORIGINAL[kind] = dict(vars(kind))
    return kind


def patches() -> str:
    """Return what was replaced in, added to or taken from a class since :func:`unpatched`.

    Methods, properties and constants of its own count, and not what Python itself keeps in a class when
    instances are first copied, or annotations read.
    """
    for kind, original in _ORIGINAL.items():
        now = vars(kind)
        if now == original:
            continue
        for name in [*original, *now]:
            same = name in now and name in original and now[name] is original[name]
            if not same and not _kept_by_python(name):
                return f"{kind.__name__}.{name} has been replaced"
        _ORIGINAL[kind] = dict(now)  # from now on one comparison tells again
    return ""


def _kept_by_python(name: str) -> bool:
    return name == "__slotnames__" or name.startswith("__annot")


def departure(
    part: nn.Module,
    kind: type,
    parameters: frozenset[str],
    buffers: frozenset[str],
    modules: tuple[str, ...],
) -> str:
    """Return how a module departs from ``kind``: another class, methods or contents of its own.

    Args:
        part: the module.
        kind: the class that it should be, and no subclass.
        parameters: names of its own parameters, all of them.
        buffers: names that its own buffers may have.
        modules: names of the modules it holds, in order.
    """
    if type(part) is not kind:
        return f"is a {type(part).__name__}, not a {kind.__name__}"
    own = vars(part)
    # In this order: it goes through the few names of its own, not through all methods.
    if not (methods := _methods(cast(Any, kind))).isdisjoint(own):
        return f"has a {min(own.keys() & methods)} of its own"
    # An attribute of a module's own comes before its parameters, buffers and modules.
    for names in (parameters, buffers, modules):
        if not own.keys().isdisjoint(names):
            return f"has a {min(own.keys() & set(names))} of its own"
    if own["_parameters"].keys() != parameters or any(
        z is None for z in own["_parameters"].values()
    ):
        return f"holds the parameters {sorted(own['_parameters'])}, not {sorted(parameters)}"
    if not own["_buffers"].keys() <= buffers:
        return f"holds the buffers {sorted(own['_buffers'])}, not {sorted(buffers)}"
    if tuple(own["_modules"]) != modules:
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
    """Return whether torch calls more than ``forward`` for every module there is."""
    if any(getattr(torch_module, name) for name in _GLOBAL_HOOKS):
        return "a hook is registered for all modules"
    now = [vars(nn.Module).get(name) for name in _CALLS]
    return "" if now == _OWN_CALLS else "the way in which PyTorch calls modules has been replaced"


@functools.cache
def _methods(kind: Any) -> frozenset[str]:
    return frozenset(
        name
        for name in dir(kind)
        if callable(getattr(kind, name)) or isinstance(getattr(kind, name), property)
    )
