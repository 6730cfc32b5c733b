"""A run that is killed at any instant, while it writes too, goes on to the bits of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import pytest

from lgn_analysis.checkpoints import read_checkpoint
from tests.training.killed_program import STEPS
from tests.training.test_resume import assert_same_run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")

PROGRAM = Path(__file__).parent / "killed_program.py"
LONGEST = 0.15
"""Seconds after which a run is killed at the latest; a whole one takes a little longer."""


class Lives:
    """A program that begins a life of a run a line, and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def begin(self, *words: object) -> int:
        """Begin one and return its process."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def ended(self) -> int:
        """Wait for the end and return the status: 0, or the number of the signal."""
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@contextmanager
def program() -> Iterator[Lives]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parents[1])}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield Lives(process)
        assert process.stdin is not None
        process.stdin.close()


def require_whole(run: Path) -> None:
    """Assert that every file of a run that is there can be read, and the history to its last row."""
    for name in ("last.safetensors", "best.safetensors"):
        if (run / name).exists():
            read_checkpoint(run / name)
    if (run / "history.csv").exists():
        history = pd.read_csv(run / "history.csv")
        assert len(history) % 2 == 0, "a row a split"
        assert history["entropy"].notna().all()


def kill_until(
    n_kills: int, tmp_path: Path, backend: str, relaxation: str, seed: int
) -> tuple[int, int]:
    """Kill runs at random moments until ``n_kills`` have died; compare each that came to its end.

    The last is left to end by itself, so one ends on the slowest machine.

    Returns:
        How many came to their end, and after how many kills a half-written file lay about.
    """
    chance = random.Random(seed)
    killed = finished = met_writing = 0
    with program() as lives:
        lives.begin(tmp_path / "whole", backend, relaxation)
        assert lives.ended() == 0
        status = signal.SIGKILL
        while killed < n_kills or status != 0:
            run = tmp_path / f"run{finished}"
            child = lives.begin(run, backend, relaxation)
            if killed < n_kills:
                time.sleep(chance.uniform(0, LONGEST))
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            status = lives.ended()
            require_whole(run)
            if status == 0:
                assert read_checkpoint(run / "last.safetensors").info["step"] == STEPS
                assert_same_run(tmp_path / "whole", run)
                finished += 1
            else:
                assert status == signal.SIGKILL
                killed += 1
                met_writing += any(run.glob(".*.tmp"))
    return finished, met_writing


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, backend: str) -> None:
    finished, _ = kill_until(5, tmp_path, backend, "gumbel-st", seed=1)
    assert finished > 0


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", ["gumbel-st", "soft", "cage"])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_runs_killed_fifty_times_go_on_to_the_same_bits(
    tmp_path: Path, backend: str, relaxation: str
) -> None:
    """Some of the kills meet a file half-written, or the test would say nothing of that."""
    finished, met_writing = kill_until(50, tmp_path, backend, relaxation, seed=2)
    assert finished > 0
    assert met_writing > 0
