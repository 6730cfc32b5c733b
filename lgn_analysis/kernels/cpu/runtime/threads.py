"""Threads that run one kernel together, meeting at barriers inside it.

Numba's own threading layers are not used: the default one aborts the process when two threads enter
it, and which one is there depends on the machine. Threads do not survive a fork: a forked child has a
pool of its own.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import torch

from lgn_analysis.kernels.cpu.runtime.thread_count import ThreadCount
from lgn_analysis.kernels.cpu.runtime.workers import cancel, make_workers


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
        kernel(make_workers(1)[0], *arguments)
        return 1

    def _together(
        self, kernel: Any, n_workers: int, arguments: tuple[Any, ...], waits: bool
    ) -> None:
        if self._helpers is None or self._n_helpers < n_workers - 1:
            self._n_helpers = n_workers - 1
            self._helpers = ThreadPoolExecutor(self._n_helpers, "lgn-analysis-kernels")
        workers = make_workers(n_workers)
        futures = []
        try:
            for worker in workers[1:]:
                futures.append(_submit(self._helpers, kernel, worker, *arguments))
            kernel(workers[0], *arguments)
            if not waits:
                futures = []
        except BaseException:
            cancel(workers[0])
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


_pool = _Pool()


def _after_fork() -> None:
    # The lock may have been held.
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


MIN_SHARD: Final = 2**17
"""Gates times samples of one pass below which a thread's shard is not worth a barrier."""
MIN_TOTAL: Final = 5e7
"""Gates times samples of a whole call below which it is not worth calling helpers.

Some 20 ms: for a few milliseconds after each of its own parallel operations, torch's OpenMP threads
spin on the cores that the helpers need.
"""


_MAX_KINDS: Final = 64
_counts: dict[tuple[Any, ...], ThreadCount] = {}
"""The number of threads for calls of one kernel, size and length."""


def run_together(kernel: Any, *arguments: Any, work: float, passes: int = 1) -> None:
    """Run a kernel whose workers wait for one another, on as many threads as torch uses or fewer.

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

    No worker waits for a helper that starts late, so even short work can be divided.

    Args:
        kernel, arguments, work: see :func:`run_together`.
        n_parts: how many parts there are.
    """
    worthwhile = min(n_parts, int(work // MIN_SHARD))
    n_workers = max(1, min(torch.get_num_threads(), worthwhile))
    _pool.run(kernel, n_workers, arguments, waits=False)
