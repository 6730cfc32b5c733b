"""Threads that run one kernel together, meeting at barriers inside it.

Numba's own threading layers are not used: the default one aborts the process when two threads enter
it, and which one is there depends on the machine. A kernel takes a :class:`Member` first, works on
that member's share, and calls :func:`meet` where all must have arrived. No result may depend on how
many members there are: shares are ranges of outputs, and every output is computed by one member in
one order.

Threads do not survive a fork: a forked child has a team of its own.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import llvmlite.binding as llvm
import numpy as np
import torch
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from lgn_analysis.kernels.cpu.runtime.compiling import device
from lgn_analysis.kernels.cpu.runtime.thread_count import ThreadCount

# Where what the members share stands, a cache line each; behind a counter, who sleeps until it grows.
_ARRIVED: Final = 0
_CALLED_OFF: Final = 8
_TIMEOUT: Final = 10
_TAKEN: Final = 16
_FINISHED: Final = 24
_N_SYNC: Final = 32
_SPINS: Final = 4096
"""Looks at a counter before a member sleeps, some 20 µs: longer than members differ while all run."""
_LONGEST_SLEEP: Final = 10_000_000
"""Nanoseconds after which a sleeper looks whether the run was called off."""

if sys.platform == "win32":
    _yield_address = ctypes.cast(ctypes.windll.kernel32.SwitchToThread, ctypes.c_void_p).value
    llvm.add_symbol("sched_yield", _yield_address)
_sched_yield: Final = types.ExternalFunction("sched_yield", types.int32())


@intrinsic
def atomic_add(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Add to an element of an int64 array, visible to all threads, and return what it was."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def _atomic_load(typing: Any, array: Any, index: Any) -> Any:
    """Return an element of an int64 array as other threads last wrote it."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(array, types.intp), generate


_FUTEX: Final = {"x86_64": 202, "aarch64": 98}.get(platform.machine())
"""Linux's system call for sleeping until a word of memory changes."""

if sys.platform == "linux" and _FUTEX is not None:
    _syscall = types.ExternalFunction(
        "syscall",
        types.intp(types.intp, types.intp, types.intp, types.intp, types.intp),
    )
    _WAIT_PRIVATE: Final = 128
    _WAKE_PRIVATE: Final = 129

    @device
    def _sleep(sync, counter, seen):
        """Sleep until a counter is no longer ``seen``, or for a while."""
        atomic_add(sync, counter + 1, 1)
        word, timeout = sync.ctypes.data + 8 * counter, sync.ctypes.data + 8 * _TIMEOUT
        _syscall(_FUTEX, word, _WAIT_PRIVATE, seen, timeout)
        atomic_add(sync, counter + 1, -1)

    @device
    def _wake(sync, counter):
        """Wake all who sleep until a counter grows."""
        if _atomic_load(sync, counter + 1) > 0:
            _syscall(_FUTEX, sync.ctypes.data + 8 * counter, _WAKE_PRIVATE, 2**31 - 1, 0)

else:

    @device
    def _sleep(sync, counter, seen):
        """Let other threads run."""
        _sched_yield()

    @device
    def _wake(sync, counter):
        """Do nothing: nobody sleeps."""


class Member(NamedTuple):
    """One thread of a team.

    Attributes:
        place: its number, from 0.
        n_members: members of the team.
        sync: int64 [32], shared: arrivals so far, whether the run was called off, how long to
            sleep (seconds and nanoseconds), parts taken and parts finished.
        meetings: int64 [1], its own: meetings so far.
    """

    place: int
    n_members: int
    sync: NDArray[np.int64]
    meetings: NDArray[np.int64]


@device
def meet(member):
    """Wait until all members are here; return False where the run was called off.

    A kernel begins with a meeting, which alone can be called off, and returns at once if it was.
    """
    if member.n_members == 1:
        return True
    member.meetings[0] += 1
    expected = member.n_members * member.meetings[0]
    if atomic_add(member.sync, _ARRIVED, 1) + 1 == expected:
        _wake(member.sync, _ARRIVED)
        return True
    return _wait(member.sync, _ARRIVED, expected)


@device
def _wait(sync, counter, least):
    """Wait until a counter is at least ``least``; return False where the run was called off."""
    spins = 0
    seen = _atomic_load(sync, counter)
    while seen < least:
        spins += 1
        if spins > _SPINS:
            # Another process has the core of one that is waited for. A core that is left idle takes
            # that thread over at once; one that is kept by spinning, or by yielding, does not.
            _sleep(sync, counter, seen)
            if _atomic_load(sync, _CALLED_OFF) != 0:
                return False
        seen = _atomic_load(sync, counter)
    return True


@device
def take_part(member):
    """Return the number of a part that nobody has taken yet, from 0 on without end.

    For kernels that share out parts instead of meeting; see :func:`wait_for_parts`.
    """
    return atomic_add(member.sync, _TAKEN, 1)


@device
def finish_part(member):
    """Say that a part that was taken is done."""
    atomic_add(member.sync, _FINISHED, 1)
    _wake(member.sync, _FINISHED)


@device
def wait_for_parts(member, n_parts):
    """Wait, as the first member, until all parts are done; helpers may come late and find none."""
    if member.place == 0:
        wait_until_done(member, n_parts)


@device
def wait_until_done(member, n_parts):
    """Wait until so many parts are done: before a part that needs those taken before it."""
    _wait(member.sync, _FINISHED, n_parts)


@device
def alone(member):
    """Return a member that shares with nobody and never waits."""
    return Member(0, 1, member.sync, member.meetings)


@device
def share(n, member):
    """Return the range (first, last) of 0..n-1 that falls to a member."""
    return n * member.place // member.n_members, n * (member.place + 1) // member.n_members


class _NoHelpersError(Exception):
    """The main thread has ended, and no thread gets helpers any more."""


class _Team:
    """The helpers of this process; one caller at a time has them, others work alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helpers: ThreadPoolExecutor | None = None
        self._n_helpers = 0

    def run(self, kernel: Any, n_members: int, arguments: tuple[Any, ...], *, waits: bool) -> int:
        """Run a kernel and return how many members it had."""
        if n_members > 1 and self._lock.acquire(blocking=False):
            try:
                self._together(kernel, n_members, arguments, waits)
                return n_members
            except _NoHelpersError:
                pass
            finally:
                self._lock.release()
        kernel(_members(1)[0], *arguments)
        return 1

    def _together(
        self, kernel: Any, n_members: int, arguments: tuple[Any, ...], waits: bool
    ) -> None:
        if self._helpers is None or self._n_helpers < n_members - 1:
            self._n_helpers = n_members - 1
            self._helpers = ThreadPoolExecutor(self._n_helpers, "lgn-analysis-kernels")
        members = _members(n_members)
        futures = []
        try:
            for member in members[1:]:
                futures.append(_submit(self._helpers, kernel, member, *arguments))
            kernel(members[0], *arguments)
            if not waits:
                futures = []
        except BaseException:
            members[0].sync[_CALLED_OFF] = 1
            raise
        finally:
            for future in futures:
                future.result()


def _submit(helpers: ThreadPoolExecutor, kernel: Any, *arguments: Any) -> Future[Any]:
    try:
        return helpers.submit(kernel, *arguments)
    except RuntimeError as error:
        # Python stops its pools when the main thread ends, and only then waits for other threads.
        if "shutdown" not in str(error):
            raise
        raise _NoHelpersError from error


def _members(count: int) -> list[Member]:
    sync = np.zeros(_N_SYNC, dtype=np.int64)
    sync[_TIMEOUT : _TIMEOUT + 2] = 0, _LONGEST_SLEEP
    return [Member(index, count, sync, np.zeros(1, dtype=np.int64)) for index in range(count)]


_team = _Team()


def _after_fork() -> None:
    # The lock may have been held.
    global _team
    _team = _Team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


MIN_SHARE: Final = 2**17
"""Gates times samples of one pass below which a thread's share is not worth a meeting."""
MIN_TOTAL: Final = 5e7
"""Gates times samples of a whole call below which it is not worth calling helpers.

Some 20 ms: for a few milliseconds after each of its own parallel operations, torch's OpenMP threads
spin on the cores that the helpers need.
"""


_MAX_KINDS: Final = 64
_counts: dict[tuple[Any, ...], ThreadCount] = {}
"""The number of threads for calls of one kernel, size and length."""


def run_together(kernel: Any, *arguments: Any, work: float, passes: int = 1) -> None:
    """Run a kernel whose members meet, on as many threads as torch uses or fewer.

    Fewer for small work, and where fewer take less time.

    Args:
        kernel: called as ``kernel(member, *arguments)`` on each of them.
        arguments: the same for all.
        work: gates times samples of one training step, or what takes as long: some 0.4 ns each.
        passes: how many passes the call makes.
    """
    worthwhile = int(work // MIN_SHARE) if work * passes >= MIN_TOTAL else 1
    most = min(torch.get_num_threads(), worthwhile)
    if most <= 1:
        _team.run(kernel, 1, arguments, waits=True)
        return
    kind = (kernel, work, passes, most)
    if kind not in _counts and len(_counts) >= _MAX_KINDS:
        _counts.clear()
    count = _counts.setdefault(kind, ThreadCount(most))
    n_members, start = count.choose(), time.perf_counter()
    if _team.run(kernel, n_members, arguments, waits=True) == n_members:
        count.note(n_members, time.perf_counter() - start)


def run_in_parts(kernel: Any, *arguments: Any, n_parts: int, work: float) -> None:
    """Run a kernel whose members take parts, on as many threads as torch uses or fewer.

    Nobody waits for a helper that comes late, so even short work can be shared out.

    Args:
        kernel, arguments, work: see :func:`run_together`.
        n_parts: how many parts there are.
    """
    worthwhile = min(n_parts, int(work // MIN_SHARE))
    n_members = max(1, min(torch.get_num_threads(), worthwhile))
    _team.run(kernel, n_members, arguments, waits=False)
