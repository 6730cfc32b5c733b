"""The CSVs and the figure of an experiment, as soon as its last run has ended."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import pandas as pd
from tqdm.auto import tqdm

from lgn_analysis.base.files import replacing
from lgn_analysis.experiments import Preset, Records, RunSpec
from lgn_analysis.experiments.sweep.cache import RunCache
from lgn_analysis.experiments.sweep.costs import cost
from lgn_analysis.experiments.sweep.failures import Failure
from lgn_analysis.report.catalogue import experiment, numbers_of
from lgn_analysis.report.drawing import draw
from lgn_analysis.report.provenance import write_facts


def run_order(names: Sequence[str], preset: Preset, store: RunCache) -> list[RunSpec]:
    """Return the runs of experiments, one experiment after the other.

    The experiment whose missing runs cost least comes next, so that the first figure is there soon;
    within an experiment the longest run begins first, so that workers end together.
    """
    specs = {name: {spec.key: spec for spec in experiment(name).specs(preset)} for name in names}
    wanted = {
        name: {spec.key: cost(spec) for spec in store.missing(runs.values())}
        for name, runs in specs.items()
    }
    ordered: dict[str, RunSpec] = {}
    while wanted:
        name = min(
            wanted, key=lambda name: sum(t for k, t in wanted[name].items() if k not in ordered)
        )
        del wanted[name]
        ordered |= dict(sorted(specs[name].items(), key=lambda item: cost(item[1]), reverse=True))
    return list(ordered.values())


class IncrementalFigures:
    """Writes CSVs and draws figures in a thread, while the runs of other experiments go on.

    Nothing is written before the first run has ended, or there is none to make.

    Args:
        names: the experiments.
        preset: what they run.
        store: the finished runs.
        folder: for CSVs, JSONs and figures.
        verbose: print a line for every figure.
    """

    def __init__(
        self, names: Sequence[str], preset: Preset, store: RunCache, folder: Path, *, verbose: bool
    ) -> None:
        self._preset = preset
        self._store = store
        self._folder = folder
        self._verbose = verbose
        self._failures: dict[str, Failure] = {}
        self._pool = ThreadPoolExecutor(1)  # Matplotlib has one state for all threads
        self._drawn: list[Future[None]] = []
        self._waiting = {
            name: {spec.key for spec in store.missing(experiment(name).specs(preset))}
            for name in names
        }

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The runs that failed, of the experiments that are written."""
        return tuple(self._failures.values())

    def __enter__(self) -> IncrementalFigures:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:  # what is waiting still lacks runs that failed before, and stay failed
            self._waiting = {name: set() for name in self._waiting}
            self._begin()
        self._pool.shutdown(cancel_futures=error is not None)
        if error is None:
            for future in self._drawn:
                future.result()

    def run_ended(self, key: str) -> None:
        """Take note of a run that has ended."""
        for keys in self._waiting.values():
            keys.discard(key)
        self._begin()

    def _begin(self) -> None:
        """Begin with every experiment that waits for no run any more."""
        for name in [name for name, keys in self._waiting.items() if not keys]:
            del self._waiting[name]
            self._drawn.append(self._pool.submit(self._write, name))

    def _write(self, name: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        records = self._store.records(experiment(name).specs(self._preset))
        self._failures |= {failure.key: failure for failure in records.failures}
        if not write_tables(name, records, self._preset, self._folder):
            return
        draw(name, self._folder)
        if self._verbose:
            claims = ", ".join(numbers_of(name)) or "beside the claims"
            tqdm.write(f"{claims}: {self._folder / name}.png is drawn", file=sys.stderr)


def write_tables(name: str, records: Records, preset: Preset, folder: Path) -> bool:
    """Write an experiment's frame, effects and facts, and return whether there is a frame to draw.

    Without a frame an older one is removed.
    """
    module = experiment(name)
    specs = module.specs(preset)
    incomplete = bool(records.failures)
    try:
        frame = module.frame(records, preset)
        effects = module.effects(frame) if module.CLAIMS else None
        module.verdicts(frame)
    except Exception:
        if not incomplete:
            raise
        frame = pd.DataFrame()
    if frame.empty:
        for suffix in ("csv", "effects.csv", "png", "pdf"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    if not (frame.empty and incomplete):
        _write(frame, folder / f"{name}.csv")
        if effects is not None:
            _write(effects, folder / f"{name}.effects.csv")
    write_facts(folder, name, specs, preset, records.failures)
    return not frame.empty


def _write(frame: pd.DataFrame, path: Path) -> None:
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False)
