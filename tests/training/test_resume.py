"""A resumed run has the bits of an uninterrupted one, whenever it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lgn_analysis.base.errors import CheckpointError, InvalidInputError
from lgn_analysis.checkpoints import load, read_checkpoint, save
from lgn_analysis.data import Dataset, load_dataset, relabelled
from lgn_analysis.gates.relaxations import GumbelST, Relaxation
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training import read_history, resume, run_directory, train
from lgn_analysis.training.config_files import read_config
from tests.tiny import (
    EVALUATED,
    NetworkFactory,
    assert_same_weights,
    fresh,
    short,
    timeless,
)


class Stopped(BaseException):
    """As a signal would stop the run: nothing catches it."""


def interrupted(
    out: Path,
    data: Dataset,
    relaxation: Relaxation,
    at: int,
    *,
    backend: str | None = None,
    **overrides: Any,
) -> None:
    """Start a run and stop it during its evaluation at step ``at``."""

    def stop(step: int, model: LogicNetwork, row: dict[str, float]) -> None:
        if step == at:
            raise Stopped

    with pytest.raises(Stopped):
        short(fresh(relaxation, backend=backend), data, out=out, callbacks=[stop], **overrides)


def assert_same_run(first: Path, second: Path) -> None:
    """Assert that two run directories agree to the bit, wall-clock columns apart."""
    pd.testing.assert_frame_equal(
        timeless(read_history(first)), timeless(read_history(second)), check_exact=True
    )
    assert read_config(first / "config.toml") == read_config(second / "config.toml")
    for name in ("last.safetensors", "best.safetensors"):
        one, two = read_checkpoint(first / name), read_checkpoint(second / name)
        assert_same_weights(one.model, two.model)
        assert one.tensors.keys() == two.tensors.keys()
        keys = one.tensors.keys() - {"history"}  # compared above, wall-clock columns apart
        assert all(torch.equal(one.tensors[key], two.tensors[key]) for key in keys)
        assert {**one.info, "seconds": 0} == {**two.info, "seconds": 0}


@pytest.mark.parametrize("at", [7, 21, 30])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
    separable_data: Dataset, tmp_path: Path, relaxation: Relaxation, at: int
) -> None:
    whole = fresh(relaxation)
    expected = short(whole, separable_data, out=tmp_path / "whole")
    interrupted(tmp_path / "broken", separable_data, relaxation, at)
    done = EVALUATED[EVALUATED.index(at) - 1]
    assert read_checkpoint(tmp_path / "broken" / "last.safetensors").info["step"] == done
    model, result = resume(tmp_path / "broken", data=separable_data, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    assert_same_weights(model, whole)
    pd.testing.assert_frame_equal(
        timeless(result.history), timeless(expected.history), check_exact=True
    )
    assert (result.best_step, result.best_accuracy) == (expected.best_step, expected.best_accuracy)
    assert result.config == expected.config


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("at", [13, 24, 30])
def test_a_run_evaluated_on_a_log_scale_resumes_to_the_same_bits(
    separable_data: Dataset, tmp_path: Path, at: int, backend: str | None
) -> None:
    options: dict[str, Any] = {"eval_every": 26, "eval_spacing": "log"}
    expected = short(fresh(backend=backend), separable_data, out=tmp_path / "whole", **options)
    assert [*expected.history["step"][::2]] == [0, 10, 13, 18, 24, 26, 30]
    interrupted(tmp_path / "broken", separable_data, GumbelST(), at, backend=backend, **options)
    resume(tmp_path / "broken", data=separable_data, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_resumed_run_keeps_what_it_is_computed_by(
    separable_data: Dataset, tmp_path: Path
) -> None:
    model = fresh(backend="reference", gradient_dtype=torch.bfloat16)
    short(model, separable_data, steps=4, out=tmp_path / "run")
    again, _ = resume(tmp_path / "run", data=separable_data, steps=8, progress=False)
    assert again.network_backend is None
    assert {again.backend, *(layer.backend for layer in again.layers)} == {"reference"}
    assert again.gradient_dtype == torch.bfloat16


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5, 6])
def test_a_run_stopped_between_two_files_resumes_to_the_same_bits(
    separable_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Stopped before each of its next files: what follows the last checkpoint may be behind it."""
    short(fresh(), separable_data, out=tmp_path / "whole")
    write, written = run_directory.write_checkpoint, []

    def stop(*args: Any, **kwargs: Any) -> None:
        if len(written) == kept:
            raise Stopped
        written.append(args[0])
        write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(run_directory, "write_checkpoint", stop)
        with pytest.raises(Stopped):
            short(fresh(), separable_data, out=tmp_path / "broken")
    step = read_checkpoint(tmp_path / "broken" / "last.safetensors").info["step"]
    assert read_history(tmp_path / "broken")["step"].max() == step
    resume(tmp_path / "broken", data=separable_data, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_history_from_before_a_column_was_added_is_continued(
    separable_data: Dataset, tmp_path: Path
) -> None:
    short(fresh(), separable_data, out=tmp_path / "run")
    old = run_directory.RunDirectory(tmp_path / "run")
    checkpoint, history = old.read()
    history = history.drop(columns="flips_train")
    old.commit(checkpoint.model, history, checkpoint.tensors, checkpoint.info, best=False)
    resume(tmp_path / "run", data=separable_data, steps=40, progress=False)
    counted = read_history(tmp_path / "run").set_index("step")["flips_train"].notna()
    assert counted.groupby("step").all().to_dict() == {
        **dict.fromkeys(EVALUATED, False),
        35: True,
        40: True,
    }


def test_resuming_a_finished_run_changes_nothing(separable_data: Dataset, tmp_path: Path) -> None:
    expected = short(fresh(), separable_data, out=tmp_path / "run")
    model, result = resume(tmp_path / "run", data=separable_data, progress=False)
    pd.testing.assert_frame_equal(result.history, expected.history, check_exact=True)
    assert_same_weights(model, load(tmp_path / "run" / "last.safetensors"))
    assert result.seconds == expected.seconds


def test_more_steps_go_on_as_a_longer_run_would_have(
    separable_data: Dataset, tmp_path: Path
) -> None:
    longer = fresh()
    expected = short(longer, separable_data, steps=60)
    short(fresh(), separable_data, out=tmp_path / "run")
    model, result = resume(tmp_path / "run", data=separable_data, steps=60, progress=False)
    assert_same_weights(model, longer)
    assert {*result.history["step"]} == {*expected.history["step"], 30}
    assert read_config(tmp_path / "run" / "config.toml")[0].training.steps == 60
    with pytest.raises(InvalidInputError, match="holds 60 steps already; give steps=60 or more"):
        resume(tmp_path / "run", data=separable_data, steps=59, progress=False)


def test_a_run_on_named_data_finds_them_by_itself(tmp_path: Path) -> None:
    data = load_dataset("digits", 1)
    model = LogicNetwork(data.n_features, 40, 1, data.n_classes, group_tau=2.0)
    train(model, data, steps=2, batch_size=32, out=tmp_path / "run", progress=False)
    longer, _ = resume(tmp_path / "run", steps=4, progress=False)
    whole = LogicNetwork(data.n_features, 40, 1, data.n_classes, group_tau=2.0)
    train(whole, data, steps=4, batch_size=32, progress=False)
    assert_same_weights(longer, whole)


def test_what_cannot_be_resumed_is_refused(
    separable_data: Dataset, numbered_data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="there is no run directory at"):
        resume(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        resume(tmp_path / "empty")
    assert not [*(tmp_path / "empty").iterdir()], "and nothing is left there"
    save(fresh(), tmp_path / "empty" / "last.safetensors")
    with pytest.raises(CheckpointError, match="holds a model and no training state"):
        resume(tmp_path / "empty")
    short(fresh(), separable_data, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="other data than this 'numbered'"):
        resume(tmp_path / "run", data=numbered_data)


def test_a_run_stopped_before_its_first_evaluation_can_be_started_again(
    separable_data: Dataset, tmp_path: Path
) -> None:
    interrupted(tmp_path / "run", separable_data, GumbelST(), 0)
    assert "last.safetensors" not in {path.name for path in (tmp_path / "run").iterdir()}
    short(fresh(), separable_data, out=tmp_path / "run")
    short(fresh(), separable_data, out=tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_copy_that_is_lost_or_changed_is_written_again(
    separable_data: Dataset, tmp_path: Path
) -> None:
    short(fresh(), separable_data, out=tmp_path / "run")
    copy = tmp_path / "run" / "history.csv"
    before = copy.read_bytes()
    for change in (copy.unlink, lambda: copy.write_text("step,loss\n0,nonsense\n")):
        change()
        resume(tmp_path / "run", data=separable_data, progress=False)
        assert copy.read_bytes() == before


def test_a_float64_run_resumes_as_float64(
    separable_data: Dataset, tmp_path: Path, make_network: NetworkFactory
) -> None:
    interrupted(tmp_path / "run", separable_data, GumbelST(), 14)
    model, _ = resume(tmp_path / "run", data=separable_data, progress=False)
    assert model.dtype == torch.float32
    wide = make_network(n_features=12)
    short(wide, separable_data, steps=4, out=tmp_path / "wide")
    again, _ = resume(tmp_path / "wide", data=separable_data, steps=8, progress=False)
    assert again.dtype == torch.float64


@pytest.mark.parametrize("labels", ["permuted", "independent"])
def test_a_run_on_other_labels_is_resumed_by_its_name_on_the_same(
    tmp_path: Path, labels: str
) -> None:
    data = relabelled(load_dataset("monk1"), labels, seed=3)
    shape: dict[str, Any] = {"n_features": 17, "width": 20, "depth": 2, "n_classes": 2}
    for name, steps in (("whole", 14), ("broken", 7)):
        model = LogicNetwork(**shape, group_tau=2.0, relaxation=GumbelST(), seed=1)
        short(model, data, out=tmp_path / name, steps=steps)
    model, result = resume(tmp_path / "broken", steps=14, progress=False)
    assert (result.config.data.labels, result.config.data.fingerprint) == (labels, data.fingerprint)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    plain = load_dataset("monk1")
    with pytest.raises(CheckpointError, match="trained on other data than this 'monk1'"):
        resume(tmp_path / "broken", data=plain, steps=21, progress=False)
