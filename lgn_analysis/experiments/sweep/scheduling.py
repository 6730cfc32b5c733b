"""Sweeps: many runs, each made once, by whoever is there to make them.

Local processes by default; any ``concurrent.futures`` executor; a Dask cluster by its scheduler's
address. Local processes write into the cache themselves; everywhere else a record comes back as
bytes, so that no shared file system is needed. A sweep can be stopped or killed at any time: what
is finished is in the cache, and the next call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from contextlib import ExitStack, closing
from pathlib import Path

from lgn_analysis.base.errors import InvalidInputError, SweepError
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.cache import RunCache
from lgn_analysis.experiments.sweep.calibration import slowness_of
from lgn_analysis.experiments.sweep.cluster import dask_executor
from lgn_analysis.experiments.sweep.compilation import compile_kernels, parts_of
from lgn_analysis.experiments.sweep.costs import cost
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.sweep.failures import Failure
from lgn_analysis.experiments.sweep.local import TICK, local_outcomes
from lgn_analysis.experiments.sweep.progress import SweepProgress
from lgn_analysis.experiments.sweep.workers import Outcome, run_anywhere


def run_sweep(
    specs: Sequence[RunSpec],
    *,
    cache: Path,
    workers: int = 1,
    executor: Executor | None = None,
    scheduler: str | None = None,
    retry: bool = True,
    progress: bool = True,
) -> Records:
    """Return the records of all specs, making those that the cache lacks.

    The arguments are those of :func:`make_runs`; the longest runs begin first, so that no worker is
    left alone with one at the end.
    """
    make_runs(
        sorted(specs, key=cost, reverse=True),
        cache=cache,
        workers=workers,
        executor=executor,
        scheduler=scheduler,
        retry=retry,
        progress=progress,
    )
    return RunCache(cache).records(specs)


def make_runs(
    specs: Sequence[RunSpec],
    *,
    cache: Path,
    workers: int = 1,
    executor: Executor | None = None,
    scheduler: str | None = None,
    retry: bool = True,
    progress: bool = True,
    heard: Callable[[str], object] = lambda key: None,
) -> None:
    """Make the runs that the cache lacks.

    A run that raises is kept as a failure in the cache, and the others go on. Ctrl-C stops local
    processes at once; another executor drops what waits and finishes what it has begun. Local
    processes begin when their kernels are compiled.

    Args:
        specs: the runs, in the order in which they begin; equal ones are made once.
        cache: folder of the records; several sweeps may share it.
        workers: local processes, one torch thread each; used when neither of the next is given.
        executor: anything with the interface of ``concurrent.futures``; it stays open.
        scheduler: address of a Dask scheduler.
        retry: make runs again that failed in an earlier call; else they stay failures.
        progress: show one progress bar for the whole.
        heard: called with the key of every run that has ended, and is in the cache.

    Raises:
        InvalidInputError: contradicting arguments, or a scheduler that cannot be used.
        SweepError: the executor broke down; finished runs are kept.
    """
    if executor is not None and scheduler is not None:
        raise InvalidInputError("give an executor or the address of a scheduler, not both")
    if workers < 1:
        raise InvalidInputError(f"workers must be at least 1, got {workers}")
    store = RunCache(cache)
    store.tidy()
    todo = store.missing(specs, retry=retry)
    if not todo:
        return
    unique = {spec.key: spec for spec in specs}.values()
    done = [spec for spec in unique if store.has(spec)]
    with ExitStack() as stack:
        if scheduler is not None:  # first, so that a wrong address is all that is said
            executor = stack.enter_context(dask_executor(scheduler))
        here = executor is None
        if here:
            compile_kernels(parts_of(todo), workers=workers, show=progress)
        width = workers if here else None
        bar = stack.enter_context(
            SweepProgress(todo, done, width=width, slowness=None if here else 1.0, show=progress)
        )
        if executor is None:
            if progress:
                bar.calibrate(slowness_of(todo))
            outcomes = local_outcomes(todo, cache, workers=workers)
        else:
            outcomes = executor_outcomes(todo, executor)
        for outcome in stack.enter_context(closing(outcomes)):
            if outcome is None:
                bar.tick()
                continue
            store.note(outcome)
            bar.advance(outcome)
            heard(outcome.key)


def executor_outcomes(
    specs: Sequence[RunSpec], executor: Executor
) -> Generator[Outcome | None, None, None]:
    """Do runs by an executor; yield each outcome, and None now and then while none ends.

    Raises:
        SweepError: the executor broke down.
    """
    waiting: dict[Future[Outcome], RunSpec] = {}
    try:
        for spec in specs:
            waiting[executor.submit(run_anywhere, spec)] = spec
        while waiting:
            done, _ = wait(waiting, timeout=TICK, return_when=FIRST_COMPLETED)
            if not done:
                yield None
            for future in sorted(done, key=_is_given_up):  # first what finished, to be kept
                yield _outcome_of(future, waiting.pop(future))
    except (BrokenExecutor, CancelledError) as error:
        raise SweepError(
            f"the executor gave up {len(waiting) + 1} runs ({type(error).__name__}); what finished "
            "is kept, so start the sweep again with an executor that works"
        ) from error
    finally:
        for future in waiting:
            future.cancel()


def _is_given_up(future: Future[Outcome]) -> bool:
    return future.cancelled() or isinstance(future.exception(), BrokenExecutor)


def _outcome_of(future: Future[Outcome], spec: RunSpec) -> Outcome:
    try:
        return future.result()
    except (BrokenExecutor, CancelledError):
        raise
    except Exception as error:  # of the way there and back: a killed worker, say
        failure = Failure.of(spec.key, spec.label, spec, error)
        return Outcome(spec.key, 0.0, failure=failure)
