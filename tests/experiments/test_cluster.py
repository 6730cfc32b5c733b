"""A sweep on a Dask cluster gives what a local one gives, and shares no file system with it."""

import sys

import pytest
from distributed import Client, LocalCluster

from lgn_analysis.base.errors import InvalidInputError, MissingDependencyError
from lgn_analysis.experiments.sweep import cluster as dask_cluster
from lgn_analysis.experiments.sweep.cluster import dask_executor
from lgn_analysis.experiments.sweep.costs import cost
from lgn_analysis.experiments.sweep.scheduling import run_sweep
from tests.experiments.serial import Serial
from tests.experiments.sweep_program import tiny_specs

pytestmark = pytest.mark.xdist_group(__name__)  # a fixture for all of them, made once


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread, in this process."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as local:
        yield local


def assert_equal_records(left, right):
    assert left.failures == right.failures == ()
    for name, table in left.tables.items():
        drop = ["seconds"] if "seconds" in table else []
        assert table.drop(columns=drop).equals(right.tables[name].drop(columns=drop)), name


def test_a_cluster_gives_the_records_of_a_local_sweep(cluster, tmp_path):
    specs = tiny_specs(3)
    far = run_sweep(
        specs, cache=tmp_path / "far", scheduler=cluster.scheduler_address, progress=False
    )
    near = run_sweep(specs, cache=tmp_path / "near", executor=Serial(), progress=False)
    assert_equal_records(far, near)


def test_the_record_comes_back_without_a_shared_folder(cluster, tmp_path, monkeypatch):
    """No task that goes to the cluster names the cache."""
    sent = []
    submit = Client.submit

    def watched(self, function, *args, **kwargs):
        sent.append((function.__name__, args))
        return submit(self, function, *args, **kwargs)

    monkeypatch.setattr(Client, "submit", watched)
    specs = tiny_specs(2)
    run_sweep(specs, cache=tmp_path, scheduler=cluster.scheduler_address, progress=False)
    assert sent == [("run_anywhere", (spec,)) for spec in sorted(specs, key=cost, reverse=True)]
    assert {path.name for path in tmp_path.iterdir()} == {spec.key for spec in specs}


def test_a_failing_run_on_a_cluster_is_a_failure_here(cluster, tmp_path):
    specs = [*tiny_specs(1, width=501), *tiny_specs(1)]
    records = run_sweep(specs, cache=tmp_path, scheduler=cluster.scheduler_address, progress=False)
    assert ["width 501 is not divisible" in failure.error for failure in records.failures] == [True]
    assert set(records.tables["history"]["run"]) == {specs[1].key}


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_cluster, "_TIMEOUT", "0.2s")
    with pytest.raises(
        InvalidInputError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"
    ):
        run_sweep(tiny_specs(1), cache=tmp_path, scheduler="tcp://127.0.0.1:9", progress=False)


def test_workers_of_another_version_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(dask_cluster, "installed_version", iter(["1.0", "0.9", "0.9"]).__next__)
    with (
        pytest.raises(InvalidInputError, match=r"cannot do the runs.*install\s+lgn_analysis 1\.0"),
        dask_executor(cluster.scheduler_address),
    ):
        pass


def test_without_dask_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lgn_analysis\[cluster\]'"):
        run_sweep(tiny_specs(1), cache=tmp_path, scheduler="tcp://x:1", progress=False)


@pytest.mark.slow
def test_worker_processes_give_the_same(tmp_path):
    specs = tiny_specs(2)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local:
        far = run_sweep(
            specs, cache=tmp_path / "far", scheduler=local.scheduler_address, progress=False
        )
    near = run_sweep(specs, cache=tmp_path / "near", executor=Serial(), progress=False)
    assert_equal_records(far, near)
