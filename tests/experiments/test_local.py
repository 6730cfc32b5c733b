"""Local processes: stopped, killed and dying at any moment, no finished run is made twice."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from lgn_analysis.experiments.sweep.scheduling import run_sweep
from tests.experiments import sweep_program
from tests.experiments.serial import Serial
from tests.experiments.sweep_program import tiny_specs

PATIENCE = 120
"""Seconds for what takes a few on an idle machine."""


class Program:
    """The sweep of ``sweep_program.py`` over and over, on one cache."""

    def __init__(self, folder):
        self.cache, self.log = folder / "cache", folder / "log"
        self.log.touch()

    def start(self):
        return subprocess.Popen(
            [sys.executable, sweep_program.__file__, self.cache, self.log],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where tests run in a shell's background, Ctrl-C is ignored, and a child inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def events(self, kind):
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(key, int(process)) for event, key, process in lines if event == kind]

    def wait_for(self, ended):
        """Wait until so many runs have ended, over all starts."""
        deadline = time.monotonic() + PATIENCE
        while len(self.events("ended")) < ended:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def finish(self):
        running = self.start()
        _, said = running.communicate(timeout=PATIENCE)
        assert running.returncode == 0, said
        return said


def assert_all_gone(processes):
    """Every process ends by itself within seconds; a zombie that nobody reaps has ended."""

    def alive(process):
        try:
            return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + PATIENCE
    while left := [process for process in processes if alive(process)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_sweep_that_is_stopped_and_killed_goes_on_where_it_was(tmp_path):
    """Ctrl-C after two runs, SIGKILL after two more, and then to the end."""
    program = Program(tmp_path)
    stopped = program.start()
    program.wait_for(2)
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does
    _, said = stopped.communicate(timeout=PATIENCE)
    assert stopped.returncode == 130
    assert "Traceback" not in said
    assert "leaked" not in said

    killed = program.start()
    program.wait_for(len(program.events("ended")) + 2)
    killed.kill()
    killed.communicate(timeout=PATIENCE)
    assert_all_gone({process for _, process in program.events("begun")})

    finished = {path.name for path in program.cache.iterdir() if not path.name.startswith(".")}
    begun = len(program.events("begun"))
    assert 4 <= len(finished) < 8
    program.finish()
    assert not finished & {key for key, _ in program.events("begun")[begun:]}
    assert set(Counter(key for key, _ in program.events("ended")).values()) == {1}

    specs = tiny_specs(8)
    after = run_sweep(specs, cache=program.cache, executor=Serial(), progress=False)
    whole = run_sweep(specs, cache=tmp_path / "whole", executor=Serial(), progress=False)
    for name, table in whole.tables.items():
        drop = ["seconds"] if "seconds" in table else []
        assert table.drop(columns=drop).equals(after.tables[name].drop(columns=drop)), name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_run_that_kills_its_process_is_a_failure_and_the_others_go_on(tmp_path):
    program = Program(tmp_path)
    deadly = tiny_specs(8)[3]
    program.log.with_suffix(".deadly").write_text(deadly.key)
    said = program.finish()
    assert "1 failed" in said
    made = {path.name for path in program.cache.iterdir()}
    assert made == {
        f"{spec.key}.failure.json" if spec == deadly else spec.key for spec in tiny_specs(8)
    }
    failure = (program.cache / f"{deadly.key}.failure.json").read_text()
    assert "the process that did the run died" in failure
    assert Counter(key for key, _ in program.events("begun"))[deadly.key] == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_two_sweeps_at_once_fill_one_cache(tmp_path):
    program = Program(tmp_path)
    both = [program.start(), program.start()]
    for running in both:
        _, said = running.communicate(timeout=PATIENCE)
        assert running.returncode == 0, said
    assert {path.name for path in program.cache.iterdir()} == {spec.key for spec in tiny_specs(8)}
    records = run_sweep(tiny_specs(8), cache=program.cache, executor=Serial(), progress=False)
    assert records.tables["history"].groupby("run").size().nunique() == 1
    assert Path(program.log).read_text().count("ended") >= 8
