"""Local processes: a pool that stops at once, and outlives a run that kills its process."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.failures import Failure
from lgn_analysis.experiments.sweep.workers import Outcome, run_here, start_worker

TICK: Final = 1.0
"""Seconds between two signs of life while no run ends."""

_DIED: Final = (
    "the process that did the run died, twice; most likely the system ended it for want of memory: "
    "use fewer workers, or a smaller preset"
)


def local_outcomes(
    specs: Sequence[RunSpec], folder: Path, *, workers: int
) -> Generator[Outcome | None, None, None]:
    """Do runs in local processes; yield each outcome, and None now and then while none ends.

    A process that dies takes the pool with it, and does not say which run it did: those in flight
    are done again, one at a time, and one that kills a process of its own is a failure.

    Args:
        specs: the runs, in the order in which they start.
        folder: the cache, which the processes write into.
        workers: processes.
    """
    queue = list(specs)
    suspects: list[RunSpec] = []
    while queue or suspects:
        alone = bool(suspects)
        source, count = (suspects, 1) if alone else (queue, workers)
        in_flight: dict[Future[Outcome], RunSpec] = {}
        try:
            with _pool(min(count, len(source))) as pool:
                while source or in_flight:
                    # No more in flight than there are processes, to know the suspects.
                    while source and len(in_flight) < count:
                        spec = source.pop(0)
                        in_flight[_submit(pool, spec, folder)] = spec
                    done, _ = wait(in_flight, timeout=TICK, return_when=FIRST_COMPLETED)
                    if not done:
                        yield None
                    for future in done:
                        outcome = future.result()
                        del in_flight[future]
                        yield outcome
        except BrokenProcessPool:
            if alone:
                (spec,) = in_flight.values()
                yield Outcome(spec.key, 0.0, failure=Failure.of(spec.key, spec.label, spec, _DIED))
            else:
                suspects = list(in_flight.values())


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # spawn: a forked process would inherit locks of threads that it does not have.
    context = multiprocessing.get_context("spawn")
    lifeline, end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=start_worker, initargs=(lifeline,)
    )
    try:
        yield pool
    except BaseException:
        # Runs in flight are given up: the workers end at once, and nobody waits for them.
        end.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        end.close()
        lifeline.close()


def _submit(pool: ProcessPoolExecutor, spec: RunSpec, folder: Path) -> Future[Outcome]:
    """Submit a run; the processes that this starts ignore Ctrl-C from their first instant."""
    if threading.current_thread() is not threading.main_thread():
        return pool.submit(run_here, spec, folder)  # signals are the main thread's business
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return pool.submit(run_here, spec, folder)
    finally:
        signal.signal(signal.SIGINT, before)
