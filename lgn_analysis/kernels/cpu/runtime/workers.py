"""The threads that run a kernel: a shard of the work for each, barriers, and parts taken one at a time.

A kernel takes a :class:`Worker` first, works on that worker's shard, and calls :func:`barrier` where all
must have arrived. No result may depend on how many workers there are: shards are ranges of outputs, and
every output is computed by one worker in one order.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any, Final, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from lgn_analysis.kernels.cpu.runtime.compiling import device

# Offsets of the shared state, a cache line each; behind a counter, how many sleep until it grows.
_ARRIVED: Final = 0
_CANCELLED: Final = 8
_TIMEOUT: Final = 10
_TAKEN: Final = 16
_FINISHED: Final = 24
_N_SYNC: Final = 32
_SPINS: Final = 4096
"""Reads of a counter before a worker sleeps, some 20 µs: longer than workers differ while all run."""
_LONGEST_SLEEP: Final = 10_000_000
"""Nanoseconds after which a sleeping worker checks whether the run was cancelled."""

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
        """Do nothing: no worker sleeps."""


class Worker(NamedTuple):
    """One thread of a pool.

    Attributes:
        place: its number, from 0.
        n_workers: workers of the pool.
        sync: int64 [32], shared: arrivals so far, whether the run was cancelled, how long to
            sleep (seconds and nanoseconds), parts taken and parts finished.
        barriers: int64 [1], its own: barriers so far.
    """

    place: int
    n_workers: int
    sync: NDArray[np.int64]
    barriers: NDArray[np.int64]


@device
def barrier(worker):
    """Wait until all workers are here; return False where the run was cancelled.

    A kernel begins with a barrier, the only one that can be cancelled, and returns at once if it was.
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
    """Wait until a counter is at least ``least``; return False where the run was cancelled."""
    spins = 0
    seen = _atomic_load(sync, counter)
    while seen < least:
        spins += 1
        if spins > _SPINS:
            # Another process has the core of the worker that is waited for. The scheduler moves that
            # worker to a core that is idle at once, and not to one kept by spinning or yielding.
            _sleep(sync, counter, seen)
            if _atomic_load(sync, _CANCELLED) != 0:
                return False
        seen = _atomic_load(sync, counter)
    return True


@device
def take_part(worker):
    """Return the number of the next part, from 0 on without end.

    For kernels that take parts instead of waiting at barriers; see :func:`wait_for_parts`.
    """
    return atomic_add(worker.sync, _TAKEN, 1)


@device
def finish_part(worker):
    """Report that a part that was taken is done."""
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
    """Return a worker with all of the work, which never waits."""
    return Worker(0, 1, worker.sync, worker.barriers)


@device
def shard(n, worker):
    """Return the range (first, last) of 0..n-1 that falls to a worker."""
    return n * worker.place // worker.n_workers, n * (worker.place + 1) // worker.n_workers


def make_workers(count: int) -> list[Worker]:
    """Return the workers of one run."""
    sync = np.zeros(_N_SYNC, dtype=np.int64)
    sync[_TIMEOUT : _TIMEOUT + 2] = 0, _LONGEST_SLEEP
    return [Worker(index, count, sync, np.zeros(1, dtype=np.int64)) for index in range(count)]


def cancel(worker: Worker) -> None:
    """Let the workers that wait at the first barrier return at once."""
    worker.sync[_CANCELLED] = 1
