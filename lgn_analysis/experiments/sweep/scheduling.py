"""Sweeps: many runs, each made once, on whatever processes there are.

Local processes by default; any ``concurrent.futures`` executor; a Dask cluster by its scheduler's
address. Local processes write into the cache themselves; everywhere else a record comes back as
bytes, so that no shared file system is needed. A sweep can be stopped or killed at any time: what
is finished is in the cache, and the next call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.cache import RunCache
from lgn_analysis.experiments.sweep.cluster import dask_executor
from lgn_analysis.experiments.sweep.compilation import compile_kernels, parts_of
from lgn_analysis.experiments.sweep.costs import cost, slowness_of
from lgn_analysis.experiments.sweep.execution import Records
from lgn_analysis.experiments.sweep.local import LocalPool
from lgn_analysis.experiments.sweep.pools import ExecutorPool, Pool, outcomes
from lgn_analysis.experiments.sweep.progress import SweepProgress


@dataclass(frozen=True)
class SweepOptions:
    """Where runs are made and kept.

    Attributes:
        cache: folder of the records; several sweeps may share it.
        workers: local processes, one torch thread each; used when neither of the next is given.
        executor: anything with the interface of ``concurrent.futures``; it stays open.
        scheduler: address of a Dask scheduler.
        retry: make runs again that failed in an earlier call; else they stay failures.
        progress: show one progress bar for the whole.

    Raises:
        InvalidInputError: contradicting options.
    """

    cache: Path
    workers: int = 1
    executor: Executor | None = None
    scheduler: str | None = None
    retry: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        if self.executor is not None and self.scheduler is not None:
            raise InvalidInputError("give an executor or the address of a scheduler, not both")
        if self.workers < 1:
            raise InvalidInputError(f"workers must be at least 1, got {self.workers}")


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

    The longest runs begin first, so that no worker is left alone with one at the end.

    Args:
        specs: the runs.
        cache, workers, executor, scheduler, retry, progress: see :class:`SweepOptions`.

    Raises:
        InvalidInputError: contradicting options, or a scheduler that cannot be used.
        SweepError: the executor broke down; finished runs are kept.
    """
    sweep = SweepOptions(cache, workers, executor, scheduler, retry, progress)
    make_runs(sorted(specs, key=cost, reverse=True), sweep)
    return RunCache(sweep.cache).records(specs)


def make_runs(
    specs: Sequence[RunSpec],
    sweep: SweepOptions,
    *,
    on_ended: Callable[[str], object] = lambda key: None,
) -> None:
    """Make the runs that the cache lacks.

    A run that raises is kept as a failure in the cache, and the others go on. Ctrl-C stops local
    processes at once; another executor drops what waits and finishes what it has begun. Local
    processes begin when their kernels are compiled.

    Args:
        specs: the runs, in the order in which they begin; equal ones are made once.
        sweep: where and how.
        on_ended: called with the key of every run that has ended, and is in the cache.

    Raises:
        InvalidInputError: a scheduler that cannot be used.
        SweepError: the executor broke down; finished runs are kept.
    """
    cache = RunCache(sweep.cache)
    cache.prepare()
    todo = cache.missing(specs, retry=sweep.retry)
    if not todo:
        return
    done = [spec for spec in {spec.key: spec for spec in specs}.values() if cache.has(spec)]
    with ExitStack() as stack:
        executor = sweep.executor
        if (
            sweep.scheduler is not None
        ):  # first: a wrong address is refused before anything else is done
            executor = stack.enter_context(dask_executor(sweep.scheduler))
        if executor is None:
            compile_kernels(parts_of(todo), workers=sweep.workers, show=sweep.progress)
            pool: Pool = stack.enter_context(LocalPool(sweep.cache, min(sweep.workers, len(todo))))
            width, slowness = sweep.workers, None
        else:
            pool, width, slowness = ExecutorPool(executor), None, 1.0
        bar = stack.enter_context(
            SweepProgress(todo, done, width=width, slowness=slowness, show=sweep.progress)
        )
        if executor is None and sweep.progress:
            bar.calibrate(slowness_of(todo))
        for outcome in stack.enter_context(closing(outcomes(todo, pool))):
            if outcome is None:
                bar.tick()
                continue
            cache.add(outcome)
            bar.advance(outcome)
            on_ended(outcome.key)
