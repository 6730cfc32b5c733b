"""A plan counts what is done, missing and failed, and touches nothing."""

import importlib

import pytest

from lgn_analysis import report
from lgn_analysis.experiments.sweep.cache import RunCache
from lgn_analysis.experiments.sweep.costs import duration
from lgn_analysis.experiments.sweep.failures import Failure

pytestmark = pytest.mark.xdist_group("smoke")

planning = importlib.import_module("lgn_analysis.report.plan")  # its function has the same name


def test_of_an_empty_cache_everything_is_missing(tmp_path):
    plan = report.plan("smoke", cache=tmp_path / "none", workers=2)
    shares = {share.experiment: share for share in plan.shares}
    assert set(shares) == set(report.experiment_names())
    assert all(len(share.missing) == share.runs for share in plan.shares)
    assert len(plan.missing) == plan.runs < sum(share.runs for share in plan.shares)
    assert plan.estimate.seconds == pytest.approx(sum(plan.estimate.runs["seconds"]))
    assert f"{plan.runs} runs, 0 done, {plan.runs} missing on cpu" in plan.total
    assert not (tmp_path / "none").exists()


def test_finished_and_failed_runs_are_counted(made, tmp_path):
    assert report.plan("smoke", claims=["C2"], cache=made.cache).total.endswith("nothing to run")
    plan = report.plan("smoke", claims=["C2"], cache=tmp_path)
    spec = plan.missing[0]
    Failure.of(spec.key, spec.label, spec, "lost").write(tmp_path)
    (tmp_path / plan.missing[1].key).mkdir()
    again = report.plan("smoke", claims=["C2"], cache=tmp_path)
    assert len(again.missing) == plan.runs - 1
    assert [share.failed for share in again.shares] == [1]
    assert f"{plan.runs - 1} (1 failed before)" in str(again)
    assert not RunCache(tmp_path).has(spec)


def test_more_workers_take_less_time_and_more_memory(tmp_path):
    one, two = (
        report.plan("quick", claims=["C1"], workers=count, cache=tmp_path) for count in (1, 2)
    )
    assert one.estimate.wall(1) > two.estimate.wall(2)
    assert "with 1 at once" in one.total
    assert "with 2 at once" in two.total


def test_a_plan_for_this_machine_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "slowness_of", lambda specs: 3.0)
    here = report.plan("quick", claims=["C11"], cache=tmp_path, measure=True)
    assert here.slowness == 3.0
    row = here.shares[0].to_row(3.0)
    assert row["one worker"] == duration(3 * here.shares[0].estimate.seconds)
    assert row["one worker"] in str(here)
    assert f"on this machine, about {duration(3 * here.estimate.wall(2))} with 2 at" in here.total
    assert "on this machine" not in report.plan("quick", claims=["C11"], cache=tmp_path).total


def test_the_paper_s_sizes_are_planned_without_a_gpu_or_data(tmp_path):
    plan = report.plan("paper", cache=tmp_path)
    assert "on cuda" in plan.total
    assert plan.estimate.bytes > 2**30
