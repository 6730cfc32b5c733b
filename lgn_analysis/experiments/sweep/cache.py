"""The folder of finished runs: a folder a record, named by its key, and a file a failure.

A record appears in it by one rename, so that a sweep killed at any instant leaves whole records
only, and two sweeps that fill one cache at once are in each other's way at most by doing a run
twice.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.execution import TABLES, Records
from lgn_analysis.experiments.sweep.failures import Failure, forget_failure, read_failure
from lgn_analysis.experiments.sweep.record import new_record, read_record
from lgn_analysis.experiments.sweep.workers import Outcome

_STALE: Final = 3600.0
"""Seconds after which a half-written record is taken for a killed sweep's: writing takes far less."""


class RunCache:
    """Finished and failed runs in a folder.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, spec: RunSpec) -> bool:
        """Return whether the run is finished."""
        return (self.folder / spec.key).is_dir()

    def failure(self, spec: RunSpec) -> Failure | None:
        """Return why the run has no record, if it was tried and failed."""
        return None if self.has(spec) else read_failure(self.folder, spec.key)

    def missing(self, specs: Iterable[RunSpec], *, retry: bool = True) -> list[RunSpec]:
        """Return the specs that are to be run, each once; with ``retry`` also those that failed."""
        unique = {spec.key: spec for spec in specs}.values()
        return [
            spec for spec in unique if not self.has(spec) and (retry or self.failure(spec) is None)
        ]

    def add(self, outcome: Outcome) -> None:
        """Store what a run left: its record, where it was made elsewhere, or its failure."""
        if outcome.failure is not None:
            outcome.failure.write(self.folder)
            return
        if outcome.files is not None:
            with new_record(self.folder, outcome.key) as made:
                for name, content in outcome.files.items():
                    (made / name).write_bytes(content)
        forget_failure(self.folder, outcome.key)

    def prepare(self) -> None:
        """Make the folder, and remove what killed sweeps left half-written in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(".*"):
            try:
                stale = time.time() - path.stat().st_mtime > _STALE
            except FileNotFoundError:  # its sweep has just finished it
                continue
            if stale:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def records(self, specs: Sequence[RunSpec]) -> Records:
        """Return the tables of the finished ones among ``specs``, and the failures of the others.

        Raises:
            DamagedFileError: a record is not what was written.
        """
        unique = list({spec.key: spec for spec in specs}.values())
        done = [(spec, read_record(self.folder / spec.key)) for spec in unique if self.has(spec)]
        failed = [self.failure(spec) for spec in unique]
        return Records(
            tables={name: _gather(done, name) for name in TABLES},
            failures=tuple(failure for failure in failed if failure is not None),
        )


def _gather(records: Sequence[tuple[RunSpec, dict[str, pd.DataFrame]]], table: str) -> pd.DataFrame:
    """Return one table of all records, with the columns that distinguish the runs in front."""
    frames = []
    for spec, tables in records:
        if table not in tables:
            continue
        frame = tables[table]
        for position, (column, value) in enumerate(spec.columns.items()):
            # A table's own tau is the run's, and its own width would be too.
            if column in frame:
                frame = frame.drop(columns=column)
            frame.insert(position, column, value)
        frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=["run"])
    return pd.concat(frames, ignore_index=True)
