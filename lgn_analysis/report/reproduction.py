"""From runs to CSVs, figures, ledger and report; and the last three again, from the CSVs alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.experiments import Verdict, find_preset
from lgn_analysis.experiments.sweep.cache import RunCache
from lgn_analysis.experiments.sweep.failures import Failure
from lgn_analysis.experiments.sweep.scheduling import SweepOptions, make_runs
from lgn_analysis.report.catalogue import experiment_names, numbers_of, select
from lgn_analysis.report.drawing import draw, drawable
from lgn_analysis.report.incremental import IncrementalFigures, run_order
from lgn_analysis.report.ledger import verdicts_from, write_ledger
from lgn_analysis.report.page import REPORT, write_report


@dataclass(frozen=True)
class Report:
    """What a reproduction came to.

    Attributes:
        verdicts: on the claims that were asked for, a verdict a claim and measure.
        failures: the runs that failed.
        folder: where figures, ledger and report were written.
    """

    verdicts: list[Verdict]
    failures: tuple[Failure, ...]
    folder: Path

    @property
    def page(self) -> Path:
        """The report, an HTML file."""
        return self.folder / REPORT

    def to_frame(self) -> pd.DataFrame:
        """Return the verdicts as rows."""
        return pd.DataFrame([verdict.to_row() for verdict in self.verdicts])


def reproduce(
    preset: str = "quick",
    *,
    claims: Sequence[str] = (),
    out: Path = Path("figures"),
    cache: Path = Path("runs/cache"),
    workers: int = 2,
    executor: Executor | None = None,
    scheduler: str | None = None,
    retry: bool = True,
    progress: bool = True,
) -> Report:
    """Run the experiments of a preset, write their CSVs, figures, the ledger and the report.

    CSVs and figure of an experiment are written as soon as its last run has ended.
    Ledger and report speak of every CSV in ``out``, so that claims can be run in pieces. A run
    that fails is left out and listed; an experiment that lacks too many for a frame is
    ``not testable here``.

    Args:
        preset: name of the preset.
        claims: run only what decides these (``C1``, ``C8`` …); empty for all.
        out: folder of CSVs, figures, ledger and report.
        cache: folder of finished runs; a run that is there is not made again.
        workers: local processes.
        executor: a ``concurrent.futures`` executor to run on instead.
        scheduler: address of a Dask scheduler to run on instead.
        retry: make runs again that failed in an earlier call.
        progress: show progress bars.

    Raises:
        InvalidInputError: an unknown preset or claim, or a scheduler that cannot be used.
        SweepError: the executor broke down; finished runs are kept.
    """
    chosen = find_preset(preset)
    names = select(claims)
    sweep = SweepOptions(cache, workers, executor, scheduler, retry, progress)
    with IncrementalFigures(names, chosen, RunCache(cache), out, verbose=progress) as figures:
        make_runs(run_order(names, chosen, RunCache(cache)), sweep, on_ended=figures.run_ended)
    others = [name for name in drawable(out) if not (out / f"{name}.png").is_file()]
    verdicts = _conclude(out, others, progress=progress)
    asked = {number for name in names for number in numbers_of(name)} if claims else None
    return Report(
        [v for v in verdicts if asked is None or v.claim.number in asked],
        figures.failures,
        out,
    )


def rebuild(
    folder: Path = Path("figures"), names: Sequence[str] = (), *, progress: bool = False
) -> list[Verdict]:
    """Draw figures and write ledger and report again, from the CSVs of a folder alone.

    Args:
        folder: where the CSVs and their JSONs are and everything goes.
        names: draw only these figures; empty for all. Ledger and report are written in any case.
        progress: show a progress bar.

    Returns:
        The verdict on every claim.

    Raises:
        InvalidInputError: an unknown figure, or a CSV that is missing.
    """
    if not any((folder / f"{name}.json").is_file() for name in experiment_names()):
        raise InvalidInputError(
            f"no experiment has left a CSV in {folder}; `lgn-analysis reproduce` makes them"
        )
    return _conclude(folder, list(names) or drawable(folder), progress=progress)


def _conclude(folder: Path, names: Sequence[str], *, progress: bool) -> list[Verdict]:
    """Draw figures, and write ledger and report of all CSVs in a folder."""
    for name in tqdm(names, desc="figures", disable=not progress or not names):
        draw(name, folder)
    verdicts = verdicts_from(folder)
    write_ledger(verdicts, folder)
    write_report(verdicts, folder)
    return verdicts
