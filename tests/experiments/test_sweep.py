"""Finished runs are kept, failed ones are recorded, and records carry what distinguishes them."""

from dataclasses import replace

import pytest

from lgn_analysis.experiments import sweep
from lgn_analysis.experiments.presets import SMOKE
from lgn_analysis.experiments.sweep import ProbePlan, execute, run_sweep


@pytest.fixture
def spec():
    tiny = SMOKE.pair("gumbel-st")[0]
    training = replace(tiny.training, steps=2, eval_every=1)
    return replace(tiny, training=training, probes=ProbePlan())


def forbidden(spec, cache):
    raise AssertionError("a finished run was made again")


class Serial:
    """An executor that runs at once, in this process."""

    def submit(self, function, *args):
        from concurrent.futures import Future

        future = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def test_a_finished_run_is_not_made_again(spec, tmp_path, monkeypatch):
    first = run_sweep([spec], cache=tmp_path, executor=Serial(), progress=False)
    monkeypatch.setattr(sweep, "execute", forbidden)
    second = run_sweep([spec, spec], cache=tmp_path, executor=Serial(), progress=False)
    assert first.tables["history"].equals(second.tables["history"])
    assert set(first.tables["history"]["step"]) == {0, 1, 2}


def test_the_key_of_a_run_follows_its_content(spec):
    assert spec.key == replace(spec).key
    other = replace(spec, network=replace(spec.network, tau=0.5))
    assert other.key != spec.key


def test_a_run_that_is_killed_midway_leaves_no_record(spec, tmp_path, monkeypatch):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "gate_usage", killed)
    with pytest.raises(KeyboardInterrupt):
        execute(spec, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_run_is_recorded_and_does_not_stop_the_others(spec, tmp_path):
    broken = replace(spec, network=replace(spec.network, width=501))
    records = run_sweep([broken, spec], cache=tmp_path, executor=Serial(), progress=False)
    assert list(records.failures) == [broken.label]
    assert "not divisible" in records.failures[broken.label]
    assert set(records.tables["history"]["run"]) == {spec.key}


def test_records_carry_the_columns_of_their_run(spec, tmp_path):
    records = run_sweep([spec], cache=tmp_path, executor=Serial(), progress=False)
    history = records.of([spec], "history")
    assert set(history["relaxation"]) == {"gumbel-st"}
    assert set(history["seed"]) == {spec.training.seed}
    assert records.of([], "history").empty


def test_seeds_pair_the_methods(tmp_path):
    soft, noisy = SMOKE.pair("soft"), SMOKE.pair("gumbel-st")
    for left, right in zip(soft, noisy, strict=True):
        assert replace(left.network, relaxation="gumbel-st") == right.network
        assert left.training == right.training
