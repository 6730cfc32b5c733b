"""Ctrl-C writes a checkpoint of the very step, and the run goes on from it to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgn_analysis.base.errors import InvalidInputError, TrainingInterrupted
from lgn_analysis.base.signals import postponed
from lgn_analysis.checkpoints import read_checkpoint
from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import Relaxation
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training import resume, train
from lgn_analysis.training.stepper import Steps
from tests.tiny import fresh, short
from tests.training.test_resume import assert_same_run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C does what Python has it do, also where tests run in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_after(n_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process the signal of Ctrl-C once so many steps have been taken, one at a time."""
    advance, taken = Steps.advance, []

    def counted(self: Steps, first: int, until: int, *arguments: object) -> list[float]:
        losses: list[float] = []
        stopped = arguments[1]
        while first + len(losses) < until and not stopped():  # type: ignore[operator]
            step = first + len(losses)
            losses += advance(self, step, step + 1, *arguments)  # type: ignore[arg-type]
            taken.append(step)
            if len(taken) == n_steps:
                os.kill(os.getpid(), signal.SIGINT)
        return losses

    monkeypatch.setattr(Steps, "advance", counted)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("at", [1, 10, 14])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    separable_data: Dataset,
    tmp_path: Path,
    relaxation: Relaxation,
    backend: str,
    at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between evaluations too: the mean loss since the last one must not show where it was cut."""
    short(fresh(relaxation, backend=backend), separable_data, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        press_after(at, patch)
        with pytest.raises(TrainingInterrupted) as caught:
            short(fresh(relaxation, backend=backend), separable_data, out=tmp_path / "run")
    assert str(caught.value) == (
        f"stopped at step {at} of 30; go on with lgn-analysis train --resume {tmp_path / 'run'}"
    )
    assert read_checkpoint(tmp_path / "run" / "last.safetensors").info["step"] == at
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resume(tmp_path / "run", data=separable_data, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_without_a_directory_ctrl_c_does_what_it_always_did(
    separable_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    press_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt) as caught:
        short(fresh(), separable_data)
    assert type(caught.value) is KeyboardInterrupt


def test_a_second_ctrl_c_stops_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with postponed("stopping soon") as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        assert capsys.readouterr().err == "\nstopping soon\n"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_stays() -> None:
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with postponed("stopping soon") as stopped:
            os.kill(os.getpid(), signal.SIGINT)
            assert heard == [1]
            assert not stopped()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_can_train_though_it_hears_no_signal(
    separable_data: Dataset, tmp_path: Path
) -> None:
    def run() -> None:
        short(fresh(), separable_data, out=tmp_path / "thread")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    short(fresh(), separable_data, out=tmp_path / "main")
    assert_same_run(tmp_path / "thread", tmp_path / "main")


def test_a_second_run_in_a_directory_is_refused(separable_data: Dataset, tmp_path: Path) -> None:
    refusals = []

    def intrude(step: int, model: LogicNetwork, row: dict[str, float]) -> None:
        if step != 14:
            return
        for begin in (
            lambda: train(fresh(), separable_data, steps=1, batch_size=20, out=tmp_path / "run"),
            lambda: resume(tmp_path / "run", data=separable_data, progress=False),
        ):
            with pytest.raises(InvalidInputError) as caught:
                begin()
            refusals.append(str(caught.value))

    short(fresh(), separable_data, out=tmp_path / "run", callbacks=[intrude])
    short(fresh(), separable_data, out=tmp_path / "alone")
    assert refusals[0].startswith(f"{tmp_path / 'run'} exists and is not empty; resume it")
    assert refusals[1].startswith(f"another process is training in {tmp_path / 'run'}; wait until")
    assert_same_run(tmp_path / "alone", tmp_path / "run")


def test_the_command_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "lgn_analysis.cli", "train", "--width", "500", "--depth", "2"]
    command += ["--steps", "500000", "--eval-every", "500000", "--no-progress", "--out", str(out)]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not (out / "best.safetensors").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    step = read_checkpoint(out / "last.safetensors").info["step"]
    assert 0 < step < 500_000
    assert "stopping with a checkpoint; press Ctrl-C again to stop at once" in said
    assert f"stopped at step {step} of 500000; go on with lgn-analysis train --resume {out}" in said
