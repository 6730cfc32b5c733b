"""A reproduction killed at any time and started again ends in the same ledger."""

import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

COMMAND = [sys.executable, "-m", "lgn_analysis.cli", "reproduce", "--preset", "smoke"]
PATIENCE = 300


def start(out, cache):
    return subprocess.Popen(
        [*COMMAND, "--claims", "C2,C3,C7", "--no-progress", "--out", out, "--cache", cache],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def finished(cache):
    """Return when each record in a cache was written, by its key."""
    folders = [path for path in cache.glob("*") if path.is_dir() and path.name[0] != "."]
    return {path.name: (path / "spec.json").stat().st_mtime_ns for path in folders}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_reproduction_ends_in_the_same_ledger(tmp_path):
    """Killed soon after each of three records has appeared; the moment is random, with a seed."""
    chance = random.Random(5)
    whole, out, cache = tmp_path / "whole", tmp_path / "out", tmp_path / "cache"
    before = {}
    for _ in range(3):
        running = start(out, cache)
        deadline = time.monotonic() + PATIENCE
        while len(finished(cache)) <= len(before) and running.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.2))
        running.send_signal(signal.SIGKILL)
        running.wait(PATIENCE)
        now = finished(cache)
        assert before.items() <= now.items(), "a finished run was made again"
        before = now
    assert start(out, cache).wait(PATIENCE) == 0
    assert before.items() <= finished(cache).items()
    assert start(whole, tmp_path / "other").wait(PATIENCE) == 0
    left, right = (pd.read_csv(folder / "claims.csv") for folder in (out, whole))
    pd.testing.assert_frame_equal(left, right)
    for name in ("gap.png", "unused_gates.png", "temperature.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
