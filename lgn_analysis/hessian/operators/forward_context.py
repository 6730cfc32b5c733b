"""How a probed module is called: in operations that have second derivatives, or wholly in float64."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from lgn_analysis.hessian.operators.unfused import UNFUSED

_SWITCHES: Final = threading.Lock()
_open = 0
_restore = ExitStack()


class FunctionMode(TorchFunctionMode):
    """Inside, every call of a function of torch's goes to :meth:`call`."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what stands for ``func(*args, **kwargs)``."""
        raise NotImplementedError

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, kwargs or {})


class OperationMode(TorchDispatchMode):
    """Inside, every operation goes to :meth:`call`, after autograd has taken functions apart."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what stands for ``func(*args, **kwargs)``."""
        raise NotImplementedError

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, kwargs or {})


class _Unfused(FunctionMode):
    """Calls of fused functions go to the formulas of :mod:`.unfused`."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return UNFUSED.get(func, func)(*args, **kwargs)


@contextmanager
def differentiable_forward() -> Iterator[None]:
    """Compute by formulas that can be differentiated twice, where PyTorch's fused kernels cannot.

    Attention takes its mathematical kernel, ``nn.MultiheadAttention`` and encoder layers leave their
    fast path, and what :mod:`.unfused` lists is computed there. Around every forward of a probed
    module; where activations are checkpointed, around the backward too, which calls the forward again.

    The first two are switches of the whole process: the first thread that enters sets them, the last
    one that leaves puts them back.
    """
    global _open
    with _SWITCHES:
        if _open == 0:
            _restore.callback(
                torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled()
            )
            torch.backends.mha.set_fastpath_enabled(False)
            _restore.enter_context(sdpa_kernel(SDPBackend.MATH))
        _open += 1
    try:
        with _Unfused():
            yield
    finally:
        with _SWITCHES:
            _open -= 1
            if _open == 0:
                _restore.close()


_NARROW: Final = (torch.float32, torch.bfloat16, torch.float16)
_CASTS: Final = (Tensor.float, Tensor.half, Tensor.bfloat16)


class Widened(FunctionMode):
    """What runs inside computes in float64 where it asks for less: casts, new tensors, constants."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in _CASTS:
            func = Tensor.double
        if _writes(func):
            return func(*args, **kwargs)
        args, kwargs = tree_map(widened, (args, kwargs))
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
