"""One loop that gives runs to a pool of workers and collects what they leave, wherever they are."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from typing import Final, Protocol

from lgn_analysis.base.errors import SweepError
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.failures import Failure
from lgn_analysis.experiments.sweep.workers import Outcome, run_anywhere

TICK: Final = 1.0
"""Seconds after which :func:`outcomes` yields None while no run ends."""


class Pool(Protocol):
    """Workers that make runs."""

    @property
    def slots(self) -> float:
        """How many runs may be in flight."""

    def submit(self, spec: RunSpec) -> Future[Outcome]:
        """Give a run to a worker."""

    def recover(self, lost: Sequence[RunSpec], error: Exception) -> Iterator[Outcome | None]:
        """Yield the outcomes of the runs that were in flight when the pool broke down.

        Raises:
            SweepError: the pool does not recover.
        """


def outcomes(specs: Iterable[RunSpec], pool: Pool) -> Generator[Outcome | None, None, None]:
    """Make runs; yield each outcome, and None now and then while none ends.

    Args:
        specs: the runs, in the order in which they begin.
        pool: makes them.

    Raises:
        SweepError: the pool broke down for good.
    """
    waiting = deque(specs)
    in_flight: dict[Future[Outcome], RunSpec] = {}
    try:
        while waiting or in_flight:
            try:
                while waiting and len(in_flight) < pool.slots:
                    in_flight[pool.submit(waiting[0])] = waiting[0]
                    waiting.popleft()
                done, _ = wait(in_flight, timeout=TICK, return_when=FIRST_COMPLETED)
                if not done:
                    yield None
                for future in sorted(done, key=_is_lost):  # first what finished, to be kept
                    outcome = _outcome_of(future, in_flight[future])
                    del in_flight[future]
                    yield outcome
            except (BrokenExecutor, CancelledError) as error:
                lost = list(in_flight.values())
                in_flight.clear()
                yield from pool.recover(lost, error)
    finally:
        for future in in_flight:
            future.cancel()


def _is_lost(future: Future[Outcome]) -> bool:
    return future.cancelled() or isinstance(future.exception(), BrokenExecutor)


def _outcome_of(future: Future[Outcome], spec: RunSpec) -> Outcome:
    try:
        return future.result()
    except (BrokenExecutor, CancelledError):
        raise
    except Exception as error:  # of the transport: a killed worker, for instance
        failure = Failure.of(spec.key, spec.label, spec, error)
        return Outcome(spec.key, 0.0, failure=failure)


class ExecutorPool:
    """Any ``concurrent.futures`` executor; a record comes back as bytes.

    Args:
        executor: gets all runs at once, and stays open.
    """

    slots = math.inf

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, spec: RunSpec) -> Future[Outcome]:
        """Submit a run."""
        return self._executor.submit(run_anywhere, spec)

    def recover(self, lost: Sequence[RunSpec], error: Exception) -> Iterator[Outcome | None]:
        """Raise: what broke an executor is not known here.

        Raises:
            SweepError: in any case.
        """
        raise SweepError(
            f"the executor gave up {len(lost) or 'all'} runs ({type(error).__name__}); what finished "
            "is kept, so start the sweep again with an executor that works"
        ) from error
