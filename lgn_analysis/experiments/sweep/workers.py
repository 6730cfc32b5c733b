"""What happens in the process that does a run, wherever it is.

A run never raises here: what it raised comes back as a :class:`Failure`, since an exception may
not survive the way between processes.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from tqdm import tqdm

from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep import execution
from lgn_analysis.experiments.sweep.failures import Failure


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        key: the run's key.
        seconds: how long it took.
        files: the record's files, by name; None where it was written into the cache already, or
            where there is none.
        failure: why there is no record; None where there is one.
    """

    key: str
    seconds: float
    files: Mapping[str, bytes] | None = None
    failure: Failure | None = None


def run_here(spec: RunSpec, folder: Path) -> Outcome:
    """Do a run in a process that shares the cache: its record is kept even if the sweep is gone."""
    started = time.perf_counter()
    failure = None
    try:
        execution.execute(spec, folder)
    except Exception as error:
        failure = Failure.of(spec.key, spec.label, spec, error)
    return Outcome(spec.key, time.perf_counter() - started, failure=failure)


def run_anywhere(spec: RunSpec) -> Outcome:
    """Do a run in a process that shares no file system, and carry its record back as bytes."""
    with tempfile.TemporaryDirectory(prefix="lgn_analysis.") as folder:
        outcome = run_here(spec, Path(folder))
        place = Path(folder) / spec.key
        if outcome.failure is not None:
            return outcome
        files = {path.name: path.read_bytes() for path in place.iterdir()}
    return Outcome(spec.key, outcome.seconds, files=files)


def start_worker(sweep: Connection) -> None:
    """Prepare a local worker: one torch thread, and an end as soon as its sweep ends or is killed.

    Args:
        sweep: a pipe whose other end only the sweep's process holds, and which closes with it.
    """
    torch.set_num_threads(1)
    # tqdm's own lock is one between processes, which a worker that ends at once leaves behind.
    tqdm.set_lock(threading.RLock())
    # Ctrl-C reaches the whole process group; only the sweep is to answer it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after, args=(sweep,), daemon=True).start()


def _exit_after(sweep: Connection) -> None:
    sweep.poll(None)  # returns once the other end is closed
    os._exit(1)
