"""Teams of threads: what goes wrong must not hang, and a fork must not inherit a pool."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lgn_analysis.kernels.cpu.runtime import threads
from lgn_analysis.kernels.cpu.runtime.compiling import entry
from lgn_analysis.kernels.cpu.runtime.threads import run_in_parts, run_together
from lgn_analysis.kernels.cpu.runtime.workers import (
    Worker,
    barrier,
    finish_part,
    shard,
    take_part,
    wait_for_parts,
)


@entry
def count_meetings(worker, n, seen):
    for _ in range(n):
        if not barrier(worker):
            return
        seen[worker.place] += 1


@entry
def add_up_in_turns(worker, values, sums):
    """Each round, every worker reads what all wrote in the round before."""
    first, last = shard(len(values), worker)
    for _ in range(50):
        barrier(worker)
        total = values.sum()
        barrier(worker)
        for place in range(first, last):
            values[place] = (total + place) % 1009
    sums[worker.place] = 1


@pytest.mark.usefixtures("n_threads")
def test_members_see_what_others_wrote_before_a_meeting() -> None:
    values, exclusive = np.arange(64.0), np.arange(64.0)
    run_together(add_up_in_turns, values, np.zeros(8), work=1e9)
    add_up_in_turns(
        Worker(0, 1, np.zeros(32, np.int64), np.zeros(1, np.int64)), exclusive, np.zeros(8)
    )
    assert np.array_equal(values, exclusive)


def test_all_torch_threads_take_part_where_the_work_is_large(n_threads: int) -> None:
    seen = np.zeros(8, dtype=np.int64)
    run_together(count_meetings, 5, seen, work=1e9)
    assert seen.tolist() == [5] * n_threads + [0] * (8 - n_threads)


@entry
def take_all(worker, n_parts, takers):
    part = take_part(worker)
    while part < n_parts:
        takers[part] += 1 + worker.place
        finish_part(worker)
        part = take_part(worker)
    wait_for_parts(worker, n_parts)


@pytest.mark.usefixtures("n_threads")
def test_every_part_is_taken_once_and_done_at_the_end() -> None:
    for n_parts in (1, 2, 1000):
        takers = np.zeros(n_parts, dtype=np.int64)
        run_in_parts(take_all, n_parts, takers, n_parts=n_parts, work=1e9)
        assert (takers > 0).all()
        assert (takers <= 3).all()


def test_nobody_waits_for_a_helper_that_comes_late(n_threads: int) -> None:
    come = threading.Event()

    def kernel(worker: Worker, *arguments: Any) -> None:
        if worker.place > 0:
            come.wait(60)
        take_all(worker, *arguments)

    takers = np.zeros(10, dtype=np.int64)
    run_in_parts(kernel, 10, takers, n_parts=10, work=1e9)
    assert (takers == 1).all()
    come.set()
    run_together(count_meetings, 5, np.zeros(8, dtype=np.int64), work=1e9)
    assert (takers == 1).all()


@pytest.mark.parametrize(("least", "work", "passes"), [(2.0, 1.0, 100), (0.1, 1.0, 2)])
def test_small_work_is_done_alone(
    n_threads: int, least: float, work: float, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MIN_SHARD", least)
    monkeypatch.setattr(threads, "MIN_TOTAL", 3.0)
    seen = np.zeros(8, dtype=np.int64)
    run_together(count_meetings, 5, seen, work=work, passes=passes)
    assert seen.tolist() == [5] + [0] * 7


def test_who_fails_before_the_first_meeting_leaves_nobody_waiting(n_threads: int) -> None:
    def kernel(worker: Worker, *arguments: Any) -> None:
        if worker.place == 0:
            raise KeyboardInterrupt
        count_meetings(worker, *arguments)

    seen = np.zeros(8, dtype=np.int64)
    with pytest.raises(KeyboardInterrupt):
        run_together(kernel, 5, seen, work=1e9)
    assert seen.tolist() == [0] * 8
    run_together(count_meetings, 5, seen, work=1e9)  # the pool is free again
    assert seen[0] == 5


def run_python(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_a_pool_of_its_own() -> None:
    run_python(
        """
        import os, warnings
        import torch
        from lgn_analysis.kernels import cpu
        from lgn_analysis.kernels.cpu.runtime import threads
        from lgn_analysis.gates.noise import NoiseKey, Purpose

        warnings.simplefilter("ignore")
        threads.MIN_SHARD, threads.MIN_TOTAL = 1, 0
        torch.set_num_threads(2)
        key = NoiseKey(1, Purpose.TRAINING)
        before = cpu.gumbel(key, 0, 100)
        child = os.fork()
        same = torch.equal(cpu.gumbel(key, 0, 100), before)
        if child == 0:
            os._exit(0 if same else 1)
        assert same
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """
    )


def test_compiling_is_said_once_and_loading_is_silent(tmp_path: Path) -> None:
    program = """
        import torch
        from lgn_analysis.kernels import cpu

        cpu.unpack_bits(cpu.pack_bits(torch.ones(3, 70, dtype=torch.bool)), 70)
    """
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = run_python(program, **cache), run_python(program, **cache)
    assert first.count("compiling the CPU kernels of lgn_analysis for this machine, once") == 1
    assert "compiling" not in second
