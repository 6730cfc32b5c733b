"""Threads that run one kernel together, barrier at barriers inside it.

Numba's own threading layers are not used: the default one aborts the process when two threads enter
it, and which one is there depends on the machine. A kernel takes a :class:`Worker` first, works on
that worker's share, and calls :func:`barrier` where all must have arrived. No result may depend on how
many workers there are: shares are ranges of outputs, and every output is computed by one worker in
one order.

Threads do not survive a fork: a forked child has a pool of its own.
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

# Where what the workers share stands, a cache line each; behind a counter, who sleeps until it grows.
_ARRIVED: Final = 0
_CALLED_OFF: Final = 8
_TIMEOUT: Final = 10
_TAKEN: Final = 16
_FINISHED: Final = 24
_N_SYNC: Final = 32
_SPINS: Final = 4096
"""Looks at a counter before a worker sleeps, some 20 µs: longer than workers differ while all run."""
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


class Worker(NamedTuple):
    """One thread of a pool.

    Attributes:
        place: its number, from 0.
        n_workers: workers of the pool.
        sync: int64 [32], shared: arrivals so far, whether the run was called off, how long to
            sleep (seconds and nanoseconds), parts taken and parts finished.
        barriers: int64 [1], its own: barriers so far.
    """

    place: int
    n_workers: int
    sync: NDArray[np.int64]
    barriers: NDArray[np.int64]


@device
def barrier(worker):
    """Wait until all workers are here; return False where the run was called off.

    A kernel begins with a barrier, which alone can be called off, and returns at once if it was.
    """
    if worker.n_workers == 1:
        return True
    worker.barriers[0] += 1
    expected = worker.n_workers * worker.barriers[0]
    if atomic_add(worker.sync, _ARRIVED, 1) + 1 == expected:
        _wake(worker.sync, _ARRIVED)
        return True
    return _wait(worker.sync, _ARRIVED, expected)


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
def take_part(worker):
    """Return the number of a part that nobody has taken yet, from 0 on without end.

    For kernels that share out parts instead of barrier; see :func:`wait_for_parts`.
    """
    return atomic_add(worker.sync, _TAKEN, 1)


@device
def finish_part(worker):
    """Say that a part that was taken is done."""
    atomic_add(worker.sync, _FINISHED, 1)
    _wake(worker.sync, _FINISHED)


@device
def wait_for_parts(worker, n_parts):
    """Wait, as the first worker, until all parts are done; helpers may come late and find none."""
    if worker.place == 0:
        wait_until_done(worker, n_parts)


@device
def wait_until_done(worker, n_parts):
    """Wait until so many parts are done: before a part that needs those taken before it."""
    _wait(worker.sync, _FINISHED, n_parts)


@device
def exclusive(worker):
    """Return a worker that shares with nobody and never waits."""
    return Worker(0, 1, worker.sync, worker.barriers)


@device
def shard(n, worker):
    """Return the range (first, last) of 0..n-1 that falls to a worker."""
    return n * worker.place // worker.n_workers, n * (worker.place + 1) // worker.n_workers


class _NoHelpersError(Exception):
    """The main thread has ended, and no thread gets helpers any more."""


class _Pool:
    """The helpers of this process; one caller at a time has them, others work alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helpers: ThreadPoolExecutor | None = None
        self._n_helpers = 0

    def run(self, kernel: Any, n_workers: int, arguments: tuple[Any, ...], *, waits: bool) -> int:
        """Run a kernel and return how many workers it had."""
        if n_workers > 1 and self._lock.acquire(blocking=False):
            try:
                self._together(kernel, n_workers, arguments, waits)
                return n_workers
            except _NoHelpersError:
                pass
            finally:
                self._lock.release()
        kernel(_workers(1)[0], *arguments)
        return 1

    def _together(
        self, kernel: Any, n_workers: int, arguments: tuple[Any, ...], waits: bool
    ) -> None:
        if self._helpers is None or self._n_helpers < n_workers - 1:
            self._n_helpers = n_workers - 1
            self._helpers = ThreadPoolExecutor(self._n_helpers, "lgn-analysis-kernels")
        workers = _workers(n_workers)
        futures = []
        try:
            for worker in workers[1:]:
                futures.append(_submit(self._helpers, kernel, worker, *arguments))
            kernel(workers[0], *arguments)
            if not waits:
                futures = []
        except BaseException:
            workers[0].sync[_CALLED_OFF] = 1
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


def _workers(count: int) -> list[Worker]:
    sync = np.zeros(_N_SYNC, dtype=np.int64)
    sync[_TIMEOUT : _TIMEOUT + 2] = 0, _LONGEST_SLEEP
    return [Worker(index, count, sync, np.zeros(1, dtype=np.int64)) for index in range(count)]


_pool = _Pool()


def _after_fork() -> None:
    # The lock may have been held.
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


MIN_SHARD: Final = 2**17
"""Gates times samples of one pass below which a thread's share is not worth a barrier."""
MIN_TOTAL: Final = 5e7
"""Gates times samples of a whole call below which it is not worth calling helpers.

Some 20 ms: for a few milliseconds after each of its own parallel operations, torch's OpenMP threads
spin on the cores that the helpers need.
"""


_MAX_KINDS: Final = 64
_counts: dict[tuple[Any, ...], ThreadCount] = {}
"""The number of threads for calls of one kernel, size and length."""


def run_together(kernel: Any, *arguments: Any, work: float, passes: int = 1) -> None:
    """Run a kernel whose workers meet, on as many threads as torch uses or fewer.

    Fewer for small work, and where fewer take less time.

    Args:
        kernel: called as ``kernel(worker, *arguments)`` on each of them.
        arguments: the same for all.
        work: gates times samples of one training step, or what takes as long: some 0.4 ns each.
        passes: how many passes the call makes.
    """
    worthwhile = int(work // MIN_SHARD) if work * passes >= MIN_TOTAL else 1
    most = min(torch.get_num_threads(), worthwhile)
    if most <= 1:
        _pool.run(kernel, 1, arguments, waits=True)
        return
    kind = (kernel, work, passes, most)
    if kind not in _counts and len(_counts) >= _MAX_KINDS:
        _counts.clear()
    count = _counts.setdefault(kind, ThreadCount(most))
    n_workers, start = count.choose(), time.perf_counter()
    if _pool.run(kernel, n_workers, arguments, waits=True) == n_workers:
        count.note(n_workers, time.perf_counter() - start)


def run_in_parts(kernel: Any, *arguments: Any, n_parts: int, work: float) -> None:
    """Run a kernel whose workers take parts, on as many threads as torch uses or fewer.

    Nobody waits for a helper that comes late, so even short work can be shared out.

    Args:
        kernel, arguments, work: see :func:`run_together`.
        n_parts: how many parts there are.
    """
    worthwhile = min(n_parts, int(work // MIN_SHARD))
    n_workers = max(1, min(torch.get_num_threads(), worthwhile))
    _pool.run(kernel, n_workers, arguments, waits=False)
