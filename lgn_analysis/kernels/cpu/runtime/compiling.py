"""How the CPU kernels are compiled: once per machine, cached on disk, with a line that says so."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numba
from llvmlite import binding
from numba import njit
from numba.core import event
from numba.core.compiler_lock import global_compiler_lock

_LOGGER: Final = logging.getLogger(__name__)


def _fingerprint() -> str:
    """Return a digest of the sources of all kernels."""
    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


_SOURCES: Final = _fingerprint()
_NOT_FROM_C: Final[dict[str, Any]] = {"no_cfunc_wrapper": True}
_INLINED: Final[dict[str, Any]] = {**_NOT_FROM_C, "no_cpython_wrapper": True}
"""Options of Numba's that leave out wrappers by which C or Python could call a function."""


def entry(function: Callable[..., Any]) -> Any:
    """Compile a kernel that Python calls: without the GIL, cached on disk."""
    # Numba keeps machine code by function name and source file, but a kernel is inlined from many
    # files: the name says what all of them were.
    function.__qualname__ += f"_{_SOURCES}"
    compiled = njit(cache=True, nogil=True, error_model="numpy", **_NOT_FROM_C)(function)
    _NOTICE.own[compiled] = None
    return compiled


def device(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call, inlined into them by LLVM.

    Wrappers by which Python or C could call it would take a third of the time.
    """
    return njit(nogil=True, error_model="numpy", forceinline=True, **_INLINED)(function)


def merged(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of its caller: what is large is optimised once, not twice."""
    return njit(nogil=True, error_model="numpy", inline="always")(function)


class _Notice(event.Listener):
    """Says once a process that kernels are being compiled; loading them from disk is silent.

    Attributes:
        own: the kernels, in the order of their imports.
        act: called with the name of each kernel that has been compiled, instead of saying anything.
    """

    def __init__(self) -> None:
        self.own: dict[Any, None] = {}
        self.act: Callable[[str], None] | None = None
        self._said = False
        self._lock = threading.Lock()

    def on_start(self, event: event.Event) -> None:
        with self._lock:
            if self._said or self.act or event.data["dispatcher"] not in self.own:
                return
            self._said = True
        # A warning, because Python shows no logging below it unless asked to.
        _LOGGER.warning(
            "compiling the CPU kernels of lgn_analysis for this machine, once: this takes up to a "
            "minute, and later runs load them from the cache"
        )

    def on_end(self, event: event.Event) -> None:
        kernel = event.data["dispatcher"]
        if self.act is not None and kernel in self.own:
            self.act(kernel.py_func.__name__)


_NOTICE: Final = _Notice()
event.register("numba:compile", _NOTICE)


def watch(act: Callable[[str], None]) -> None:
    """Call ``act`` with the name of every kernel that has been compiled, and log nothing."""
    _NOTICE.act = act


def cache_folder() -> Path:
    """Return the folder in which Numba keeps the machine code of the first kernel imported."""
    return Path(next(iter(_NOTICE.own)).stats.cache_path)


def mark_of(part: str) -> Path:
    """Return the file whose existence says that ``part`` of the kernels lies in the cache.

    Its name depends on what the machine code depends on: sources, Numba and the processor.
    """
    machine = f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"
    content = f"{_SOURCES} {numba.__version__} {machine}"
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return cache_folder() / f"lgn_analysis.{part}.{digest}.compiled"


if hasattr(os, "register_at_fork"):
    # A child forked while another thread compiles would find the compiler locked for ever: a fork
    # waits until it is done.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
