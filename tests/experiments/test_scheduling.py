"""A run is made once, whoever makes it; one that fails is kept, shown, and made again."""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from lgn_analysis.base.errors import InvalidInputError, SweepError
from lgn_analysis.experiments.sweep import execution
from lgn_analysis.experiments.sweep.scheduling import run_sweep
from tests.experiments.serial import Serial
from tests.experiments.sweep_program import tiny_specs


def forbidden(spec, cache):
    raise AssertionError("a finished run was made again")


def test_a_finished_run_is_not_made_again(tmp_path, monkeypatch):
    specs = tiny_specs(1)
    first = run_sweep(specs, cache=tmp_path, executor=Serial(), progress=False)
    monkeypatch.setattr(execution, "execute", forbidden)
    second = run_sweep(specs * 2, cache=tmp_path, executor=Serial(), progress=False)
    assert first.tables["history"].equals(second.tables["history"])
    assert set(first.tables["history"]["step"]) == {0, 1, 2}
    assert second.failures == ()


def test_equal_specs_are_made_once(tmp_path):
    executor = Serial()
    run_sweep(tiny_specs(2) * 3, cache=tmp_path, executor=executor, progress=False)
    assert executor.submitted == 2


def test_an_executor_of_threads_gives_what_a_serial_one_gives(tmp_path):
    specs = tiny_specs(3)
    serial = run_sweep(specs, cache=tmp_path / "a", executor=Serial(), progress=False)
    with ThreadPoolExecutor(2) as pool:
        threads = run_sweep(specs, cache=tmp_path / "b", executor=pool, progress=False)
    left, right = (
        records.tables["history"].drop(columns="seconds") for records in (serial, threads)
    )
    assert left.equals(right)


def test_a_failing_run_is_kept_with_its_traceback_and_stops_no_other(tmp_path):
    (broken,) = tiny_specs(1, width=501)
    specs = [broken, *tiny_specs(1)]
    records = run_sweep(specs, cache=tmp_path, executor=Serial(), progress=False)
    (failure,) = records.failures
    assert failure.label == broken.label
    assert "InvalidInputError: width 501 is not divisible" in failure.error
    assert set(records.tables["history"]["run"]) == {specs[1].key}
    kept = json.loads((tmp_path / f"{broken.key}.failure.json").read_text())
    assert kept["spec"]["network"]["width"] == 501
    assert "Traceback" in kept["traceback"]
    assert kept["when"].startswith("20")


def test_a_failed_run_is_made_again_unless_told_not_to(tmp_path, monkeypatch):
    specs = tiny_specs(1)
    with monkeypatch.context() as patch:
        patch.setattr(execution, "execute", forbidden)
        run_sweep(specs, cache=tmp_path, executor=Serial(), progress=False)
    executor = Serial()
    left = run_sweep(specs, cache=tmp_path, executor=executor, retry=False, progress=False)
    assert executor.submitted == 0
    assert "AssertionError" in left.failures[0].error
    again = run_sweep(specs, cache=tmp_path, executor=executor, progress=False)
    assert again.failures == ()
    assert {path.name for path in tmp_path.iterdir()} == {specs[0].key}


def test_an_interrupt_stops_the_sweep_and_keeps_what_is_finished(tmp_path, monkeypatch):
    specs = tiny_specs(4)
    execute = execution.execute
    begun = []

    def interrupted(spec, cache):
        begun.append(spec.key)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return execute(spec, cache)

    class Lazy(Serial):
        """Runs a task when its result is asked for, as a pool that is slower than the sweep."""

        def submit(self, function, /, *args):
            future = Future()
            future.set_running_or_notify_cancel()
            future.set_result(None)
            future.result = lambda: function(*args)
            return future

    monkeypatch.setattr(execution, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(specs, cache=tmp_path, executor=Lazy(), progress=False)
    finished = set(begun[:2])
    assert {path.name for path in tmp_path.iterdir()} == finished
    run_sweep(specs, cache=tmp_path, executor=Serial(), progress=False)
    assert [key for key in begun[3:] if key in finished] == []
    assert len(begun) == 3 + 2


def test_a_broken_executor_is_named_and_blames_no_run(tmp_path):
    class Broken(Serial):
        def submit(self, function, /, *args):
            if self.submitted:
                future = Future()
                future.set_exception(BrokenProcessPool("gone"))
                return future
            return super().submit(function, *args)

    with pytest.raises(SweepError, match=r"gave up 2 runs \(BrokenProcessPool\)"):
        run_sweep(tiny_specs(3), cache=tmp_path, executor=Broken(), progress=False)
    assert [path.suffix for path in tmp_path.iterdir()] == [""]


def test_an_exception_on_the_way_back_is_the_failure_of_its_run(tmp_path):
    class Lossy(Serial):
        def submit(self, function, /, *args):
            future = Future()
            future.set_exception(ConnectionError("lost on the way"))
            return future

    records = run_sweep(tiny_specs(1), cache=tmp_path, executor=Lossy(), progress=False)
    assert records.failures[0].error == "ConnectionError: lost on the way"


def test_contradicting_arguments_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="not both"):
        run_sweep([], cache=tmp_path, executor=Serial(), scheduler="tcp://127.0.0.1:1")
    with pytest.raises(InvalidInputError, match="workers must be at least 1, got 0"):
        run_sweep([], cache=tmp_path, workers=0)
