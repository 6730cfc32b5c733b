"""A sweep of tiny runs as a program of its own, so that a test can stop and kill it.

    python sweep_program.py CACHE LOG

LOG gets a line as each run begins and as it ends: what happened, the run's key, the process. A run
whose key stands in LOG.deadly kills its process, as the system does for want of memory.
"""

import os
import signal
import sys
import time
from pathlib import Path

from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep import execution
from lgn_analysis.experiments.sweep.scheduling import run_sweep
from lgn_analysis.training.config import DataConfig, NetworkConfig, TrainingConfig

PAUSE = 0.3
"""Seconds by which a run is longer, so that a kill meets it halfway."""


def tiny_specs(count: int, *, width: int = 500) -> list[RunSpec]:
    """Return runs of two steps that differ in their seed."""
    return [
        RunSpec(
            data=DataConfig("digits"),
            network=NetworkConfig(width=width, depth=2, group_tau=10.0, seed=seed),
            training=TrainingConfig(steps=2, seed=seed, eval_every=1),
        )
        for seed in range(count)
    ]


def logged(spec: RunSpec, cache: Path) -> Path:
    """Do a run, with a line in the log before and after it."""
    log = Path(sys.argv[2])
    note(log, "begun", spec)
    time.sleep(PAUSE)
    deadly = log.with_suffix(".deadly")
    if deadly.is_file() and spec.key in deadly.read_text():
        os.kill(os.getpid(), signal.SIGKILL)
    place = execute(spec, cache)
    note(log, "ended", spec)
    return place


def note(log: Path, event: str, spec: RunSpec) -> None:
    """Append one line at once, so that lines of several processes do not mix."""
    with log.open("a") as file:
        file.write(f"{event} {spec.key} {os.getpid()}\n")


execute = execution.execute
if Path(sys.argv[0]).name == Path(__file__).name:  # here and in the processes of the pool
    execution.execute = logged

if __name__ == "__main__":
    try:
        run_sweep(tiny_specs(8), cache=Path(sys.argv[1]), workers=2)
    except KeyboardInterrupt:
        sys.exit(130)
