"""Local processes: a pool that stops at once, and outlives a run that kills its process."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Final

from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.failures import Failure
from lgn_analysis.experiments.sweep.pools import outcomes
from lgn_analysis.experiments.sweep.workers import Outcome, run_here, start_worker

_DIED: Final = (
    "the process that did the run died, twice; most likely the system ended it for want of memory: "
    "use fewer workers, or a smaller preset"
)


class LocalPool:
    """Processes on this machine, which write into the cache themselves.

    A process that dies takes the pool with it, and does not say which run it did: those in flight
    are done again, one at a time, and one that kills a process of its own is a failure.

    Args:
        folder: the cache.
        workers: processes; no more runs are in flight, so that few are suspected.
        retried: the runs were in flight before, when a process died.
    """

    def __init__(self, folder: Path, workers: int, *, retried: bool = False) -> None:
        self.slots = workers
        self._folder = folder
        self._retried = retried
        # spawn: a forked process would inherit locks of threads that it does not have.
        self._context = multiprocessing.get_context("spawn")
        # Workers end at once when this end of the pipe is closed, or its process is killed.
        self._worker_end, self._own_end = self._context.Pipe(duplex=False)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:  # runs in flight are given up
            self._own_end.close()
        self._shut_down()
        self._own_end.close()
        self._worker_end.close()

    def submit(self, spec: RunSpec) -> Future[Outcome]:
        """Submit a run; the processes that this starts ignore Ctrl-C from their first instant."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.slots,
                mp_context=self._context,
                initializer=start_worker,
                initargs=(self._worker_end,),
            )
        if threading.current_thread() is not threading.main_thread():
            return self._pool.submit(run_here, spec, self._folder)  # signals are the main thread's
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return self._pool.submit(run_here, spec, self._folder)
        finally:
            signal.signal(signal.SIGINT, before)

    def recover(self, lost: Sequence[RunSpec], error: Exception) -> Iterator[Outcome | None]:
        """Do the runs again, one at a time; runs that were retried already are failures."""
        self._shut_down()
        if self._retried:
            for spec in lost:
                failure = Failure.of(spec.key, spec.label, spec, _DIED)
                yield Outcome(spec.key, 0.0, failure=failure)
        else:
            with LocalPool(self._folder, 1, retried=True) as pool:
                yield from outcomes(lost, pool)

    def _shut_down(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
