"""A record is in the cache whole or not at all; what is half-written goes, once it is nobody's."""

import os
import time

import pandas as pd
import pytest

from lgn_analysis.base.errors import DamagedFileError
from lgn_analysis.experiments.sweep.cache import RunCache
from lgn_analysis.experiments.sweep.execution import TABLES
from lgn_analysis.experiments.sweep.failures import Failure, read_failure
from lgn_analysis.experiments.sweep.record import install, write_record
from lgn_analysis.experiments.sweep.workers import Outcome, run_anywhere
from tests.experiments.sweep_program import tiny_specs


def sealed(folder):
    """Return the files of a record of one row."""
    write_record(folder, {"history": pd.DataFrame({"step": [0], "loss": [1.5]})}, {})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_record_that_comes_as_bytes_is_kept_and_clears_the_failure(tmp_path, tmp_path_factory):
    store = RunCache(tmp_path)
    (spec,) = tiny_specs(1)
    store.add(Outcome(spec.key, 0.0, failure=Failure.of(spec.key, spec.label, spec, "lost")))
    assert store.failure(spec).error == "lost"
    assert not store.has(spec)
    store.add(Outcome(spec.key, 1.0, files=sealed(tmp_path_factory.mktemp("made"))))
    assert store.has(spec)
    assert store.failure(spec) is None
    assert {path.name for path in tmp_path.iterdir()} == {spec.key}
    history = store.records([spec]).tables["history"]
    assert history[["run", "seed", "step", "loss"]].to_dict("records") == [
        {"run": spec.key, "seed": 0, "step": 0, "loss": 1.5}
    ]


def test_the_bytes_of_a_run_are_the_files_of_its_record():
    (spec,) = tiny_specs(1)
    outcome = run_anywhere(spec)
    assert outcome.failure is None
    assert {"history.csv", "usage.csv", "spec.json"} <= set(outcome.files)
    assert outcome.seconds > 0


def test_a_record_that_is_there_stays(tmp_path):
    store = RunCache(tmp_path)
    for content in (b"step\n1\n", b"step\n2\n"):
        store.add(Outcome("k", 0.0, files={"history.csv": content}))
    assert (tmp_path / "k" / "history.csv").read_bytes() == b"step\n1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_place_that_cannot_be_taken_is_an_error(tmp_path):
    made, place = tmp_path / "made", tmp_path / "place"
    made.mkdir()
    place.write_text("a file is in the way")
    with pytest.raises(OSError, match="directory"):
        install(made, place)


def test_only_what_was_abandoned_long_ago_is_tidied_away(tmp_path):
    store = RunCache(tmp_path / "cache")
    store.prepare()
    now = time.time()
    for name, age in ((".old.x", 7200), (".new.x", 60), ("finished", 10**6)):
        folder = store.folder / name
        folder.mkdir()
        (folder / "history.csv").touch()
        os.utime(folder, (now - age, now - age))
    store.prepare()
    assert {path.name for path in store.folder.iterdir()} == {".new.x", "finished"}


def test_failed_runs_are_missing_unless_they_are_not_to_be_retried(tmp_path, tmp_path_factory):
    store = RunCache(tmp_path)
    done, failed, new = tiny_specs(3)
    store.add(Outcome(done.key, 0.0, files=sealed(tmp_path_factory.mktemp("made"))))
    store.add(Outcome(failed.key, 0.0, failure=Failure.of(failed.key, "x", failed, "lost")))
    specs = [done, failed, new, new]
    assert store.missing(specs) == [failed, new]
    assert store.missing(specs, retry=False) == [new]
    records = store.records(specs)
    assert [failure.key for failure in records.failures] == [failed.key]
    assert set(records.tables) == set(TABLES)


def flip(path):
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a changed table": lambda folder: flip(folder / "history.csv"),
    "a changed spec": lambda folder: flip(folder / "spec.json"),
    "a lost table": lambda folder: (folder / "history.csv").unlink(),
    "a lost spec": lambda folder: (folder / "spec.json").unlink(),
    "a torn table": lambda folder: (folder / "history.csv").write_bytes(b"step,lo"),
    "a spec of another kind": lambda folder: (folder / "spec.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_no_result(tmp_path, tmp_path_factory, damage):
    store = RunCache(tmp_path)
    (spec,) = tiny_specs(1)
    store.add(Outcome(spec.key, 0.0, files=sealed(tmp_path_factory.mktemp("made"))))
    damage(tmp_path / spec.key)
    with pytest.raises(DamagedFileError, match=r"is damaged .*; delete the folder, and the run is"):
        store.records([spec])


def test_a_failure_is_read_back_as_it_was(tmp_path):
    (spec,) = tiny_specs(1)
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        failure = Failure.of(spec.key, spec.label, spec, error)
    assert failure.error == "ValueError: two lines"
    failure.write(tmp_path)
    back = read_failure(tmp_path, spec.key)
    assert back.to_row() == failure.to_row()
    assert "raise ValueError" in back.traceback
    assert back.spec["network"]["width"] == 500
