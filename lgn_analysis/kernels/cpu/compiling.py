"""How the CPU kernels are compiled: once per machine, cached on disk, with a line that says so."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from numba import njit
from numba.core import event
from numba.core.compiler_lock import global_compiler_lock

_LOGGER: Final = logging.getLogger(__name__)


def _fingerprint() -> str:
    """Return a digest of the sources of all kernels."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


_SOURCES: Final = _fingerprint()


def entry(function: Callable[..., Any]) -> Any:
    """Compile a kernel that Python calls: without the GIL, cached on disk."""
    # Numba keeps machine code by function name and source file, but a kernel is inlined from many
    # files: the name says what all of them were.
    function.__qualname__ += f"_{_SOURCES}"
    compiled = njit(cache=True, nogil=True, error_model="numpy")(function)
    _NOTICE.own.add(compiled)
    return compiled


def device(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call, inlined into them by LLVM."""
    return njit(nogil=True, error_model="numpy", forceinline=True)(function)


def merged(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of its caller: what is large is optimised once, not twice."""
    return njit(nogil=True, error_model="numpy", inline="always")(function)


class _Notice(event.Listener):
    """Says once a process that kernels are being compiled; loading them from disk is silent."""

    def __init__(self) -> None:
        self.own: set[Any] = set()
        self._said = False
        self._lock = threading.Lock()

    def on_start(self, event: event.Event) -> None:
        with self._lock:
            if self._said or event.data["dispatcher"] not in self.own:
                return
            self._said = True
        # A warning, because Python shows no logging below it unless asked to.
        _LOGGER.warning(
            "compiling the CPU kernels of lgn_analysis for this machine, once: this takes up to a "
            "minute, and later runs load them from the cache"
        )

    def on_end(self, event: event.Event) -> None:
        pass


_NOTICE: Final = _Notice()
event.register("numba:compile", _NOTICE)

if hasattr(os, "register_at_fork"):
    # A child forked while another thread compiles would find the compiler locked for ever: a fork
    # waits until it is done.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
