"""Training: what it learns, that it is determined, what it writes and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.checkpoints import load, read_checkpoint
from lgn_analysis.data import Dataset
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import CAGE, GumbelSoft, GumbelST, HardST, Relaxation, Soft
from lgn_analysis.metrics import evaluate, gate_usage
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training import read_history, train
from lgn_analysis.training.config_files import read_config
from tests.tiny import EVALUATED, assert_same_weights, fresh, short, timeless


@pytest.mark.parametrize(
    "relaxation", [Soft(), GumbelSoft(0.5), GumbelST(), HardST(), CAGE()], ids=lambda r: r.name
)
def test_each_relaxation_learns_a_separable_problem(
    separable_data: Dataset, relaxation: Relaxation
) -> None:
    model = fresh(relaxation, width=60)
    before = evaluate(model, separable_data).discrete_accuracy
    result = short(model, separable_data, steps=400, eval_every=100)
    after = evaluate(model, separable_data)
    assert after.discrete_accuracy > 0.85 > before
    assert result.best_accuracy >= 0.85
    last = result.history.query("split == 'val'").iloc[-1]
    assert last["loss"] < result.history["loss"].dropna().iloc[0]


def test_history_has_a_row_an_evaluation_and_split(separable_data: Dataset) -> None:
    model = fresh()
    result = short(model, separable_data)
    history = result.history
    assert [*zip(history["step"], history["split"], strict=True)] == [
        (step, split) for step in EVALUATED for split in ("val", "test")
    ]
    assert history["loss"].isna().tolist() == [True] * 2 + [False] * 10
    seconds = history["seconds"].tolist()
    assert seconds == sorted(seconds)
    assert (seconds[0], seconds[-1]) == (0.0, result.seconds)
    last = history.iloc[-1]
    expected = evaluate(model, separable_data, noise_draws=1)
    for column in (
        "n",
        "soft_accuracy",
        "noisy_loss",
        "discrete_loss",
        "gap",
        "flips",
        "flips_train",
    ):
        assert last[column] == getattr(expected, column)
    assert last["unused"] == pytest.approx(gate_usage(model)["unused"].mean())
    assert last["entropy"] == pytest.approx(gate_usage(model)["entropy"].mean())
    assert result.to_frame() is history


def test_noise_free_runs_report_no_noisy_figures(separable_data: Dataset) -> None:
    history = short(fresh(Soft()), separable_data).history
    assert history["noisy_accuracy"].isna().all()
    assert history["soft_accuracy"].notna().all()


@contextmanager
def recorded_batches(model: LogicNetwork) -> Iterator[list[Tensor]]:
    """Collect the inputs of every training step."""
    batches: list[Tensor] = []

    def record(module: LogicNetwork, args: tuple[Tensor], kwargs: dict[str, Any]) -> None:
        if kwargs.get("mode") is None:
            batches.append(args[0].clone())

    handle = model.register_forward_pre_hook(record, with_kwargs=True)
    yield batches
    handle.remove()


def numbers(batch: Tensor) -> list[int]:
    return (batch.long() << torch.arange(6)).sum(-1).tolist()


def test_an_epoch_visits_every_sample_at_most_once(numbered_data: Dataset) -> None:
    model = LogicNetwork(6, width=6, depth=1, n_classes=3, group_tau=1.0)
    with recorded_batches(model) as batches:
        train(model, numbered_data, steps=12, batch_size=12, progress=False)
    assert [len(batch) for batch in batches] == [12] * 12
    epochs = [numbers(torch.cat(batches[k : k + 4])) for k in (0, 4, 8)]
    for epoch in epochs:
        assert len({*epoch}) == 48
    assert epochs[0] != epochs[1] != epochs[2], "each epoch has an order of its own"
    assert len({*epochs[0]} | {*epochs[1]} | {*epochs[2]}) == 50, "and drops other samples"


def test_a_run_is_adam_on_the_cross_entropy_of_the_training_forward(
    separable_data: Dataset, relaxation: Relaxation
) -> None:
    model, twin = fresh(relaxation), fresh(relaxation)
    label_of = {
        tuple(x): y
        for x, y in zip(
            separable_data.x_train.tolist(), separable_data.y_train.tolist(), strict=True
        )
    }
    with recorded_batches(model) as batches:
        history = short(model, separable_data, seed=4, eval_every=30).history
    optimiser, losses = torch.optim.Adam(twin.parameters(), lr=0.05), []
    for step, x in enumerate(batches):
        y = torch.tensor([label_of[tuple(row)] for row in x.tolist()])
        loss = functional.cross_entropy(twin(x, draw=NoiseKey(4, Purpose.TRAINING, step)), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert_same_weights(model, twin)
    assert history["loss"].iloc[-1] == pytest.approx(sum(losses) / 30, rel=1e-12)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    separable_data: Dataset, relaxation: Relaxation
) -> None:
    models = [fresh(relaxation) for _ in range(3)]
    runs = [
        short(model, separable_data, seed=seed)
        for model, seed in zip(models, (3, 3, 4), strict=True)
    ]
    assert_same_weights(models[0], models[1])
    pd.testing.assert_frame_equal(
        timeless(runs[0].history), timeless(runs[1].history), check_exact=True
    )
    assert not torch.equal(models[0].layers[0].logits, models[2].layers[0].logits)


def test_how_often_a_run_is_evaluated_does_not_change_its_weights(separable_data: Dataset) -> None:
    often, once = fresh(), fresh()
    short(often, separable_data, eval_every=1, noise_draws=3)
    short(once, separable_data, eval_every=30)
    assert_same_weights(often, once)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_evaluations_on_a_log_scale_are_in_the_history_and_change_no_weight(
    backend: str | None, separable_data: Dataset
) -> None:
    often, once = fresh(backend=backend), fresh(backend=backend)
    result = short(often, separable_data, steps=60, eval_every=20, eval_spacing="log")
    short(once, separable_data, steps=60, eval_every=60)
    assert [*result.history["step"][::2]] == [0, 10, 13, 18, 20, 40, 60]
    assert_same_weights(often, once)


def test_training_leaves_the_random_state_of_torch_alone(separable_data: Dataset) -> None:
    state = torch.get_rng_state()
    short(fresh(), separable_data)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_of_the_model_is_restored(separable_data: Dataset, mode: bool) -> None:
    model = fresh().train(mode)
    short(model, separable_data)
    assert model.training is mode


def test_best_is_the_first_best_validation_step(separable_data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = short(fresh(), separable_data, out=out)
    rows = result.history.query("split == 'val'")
    order = rows.sort_values(
        ["discrete_accuracy", "discrete_loss", "step"], ascending=[False, True, True]
    )
    assert result.best_step == order["step"].iloc[0]
    assert result.best_accuracy == order["discrete_accuracy"].iloc[0]
    best = read_checkpoint(out / "best.safetensors")
    assert best.info["step"] == result.best_step
    accuracy = evaluate(best.model, separable_data, split="val").discrete_accuracy
    assert accuracy == result.best_accuracy


def test_of_equal_steps_the_first_is_best(separable_data: Dataset) -> None:
    result = short(fresh(), separable_data, lr=1e-12)
    assert result.history["discrete_loss"].nunique() == 2, "one a split: nothing has changed"
    assert result.best_step == 0


def test_test_data_never_influence_the_choice(separable_data: Dataset, tmp_path: Path) -> None:
    x, y = separable_data.split("test")
    parts = [separable_data.x_train, separable_data.y_train]
    parts += [separable_data.x_val, separable_data.y_val]
    other = Dataset.from_arrays(*parts, ~x[:9], y[:9], name="other")
    runs = [
        short(fresh(), data, out=tmp_path / data.name, seed=2) for data in (separable_data, other)
    ]
    assert runs[0].best_step == runs[1].best_step
    assert runs[0].best_accuracy == runs[1].best_accuracy
    validation = [timeless(run.history.query("split == 'val'")) for run in runs]
    pd.testing.assert_frame_equal(*validation, check_exact=True)
    tests = [run.history.query("split == 'test'") for run in runs]
    assert not tests[0]["soft_accuracy"].equals(tests[1]["soft_accuracy"])
    for name in ("best.safetensors", "last.safetensors"):
        assert_same_weights(load(tmp_path / "separable" / name), load(tmp_path / "other" / name))


def test_a_run_directory_holds_everything(separable_data: Dataset, tmp_path: Path) -> None:
    out, model = tmp_path / "deep" / "run", fresh()
    result = short(model, separable_data, out=out)
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "config.toml",
        "history.csv",
        "best.safetensors",
        "last.safetensors",
    }
    assert result.out == out
    assert read_config(out / "config.toml") == (result.config, [])
    pd.testing.assert_frame_equal(read_history(out), result.history, check_exact=True)
    assert_same_weights(load(out / "last.safetensors"), model)


def test_without_a_directory_nothing_is_written(
    separable_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert short(fresh(), separable_data).out is None
    assert [*tmp_path.iterdir()] == []


def test_a_directory_that_holds_something_is_refused(
    separable_data: Dataset, tmp_path: Path
) -> None:
    for path in (tmp_path / "folder" / "note", tmp_path / "file"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for out in (tmp_path / "folder", tmp_path / "file"):
        with pytest.raises(InvalidInputError, match="exists and is not empty; resume it"):
            short(fresh(), separable_data, out=out)
    assert (tmp_path / "folder" / "note").read_text() == "mine"
    (tmp_path / "new").mkdir()
    short(fresh(), separable_data, out=tmp_path / "new")


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((12, 3), {"batch_size": 91}, "batch_size 91 exceeds the 90 training samples of 'sep"),
        ((13, 3), {}, "the network reads 13 features and 'separable' has 12"),
        ((12, 2), {}, r"labels must lie in 0\.\.1, got 0\.\.2"),
        ((12, 3), {"steps": 0}, "steps must be at least 1, got 0"),
        ((12, 3), {"lr": -0.1}, "lr must be finite and above zero"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    separable_data: Dataset,
    tmp_path: Path,
    shape: tuple[int, int],
    arguments: dict[str, Any],
    message: str,
) -> None:
    model = LogicNetwork(shape[0], width=30, depth=1, n_classes=shape[1], group_tau=1.0)
    with pytest.raises(InvalidInputError, match=message):
        short(model, separable_data, out=tmp_path / "run", **arguments)
    assert not (tmp_path / "run" / "config.toml").exists()


def test_a_callback_adds_columns(separable_data: Dataset, tmp_path: Path) -> None:
    seen = []

    def callback(step: int, model: LogicNetwork, row: dict[str, float]) -> None:
        seen.append(step)
        row["largest"] = model.layers[0].logits.max().item()

    model = fresh()
    history = short(model, separable_data, callbacks=[callback], out=tmp_path / "run").history
    assert seen == EVALUATED
    assert history["largest"].iloc[-1] == model.layers[0].logits.max().item()
    assert history["largest"].nunique() > 1
    assert "largest" in read_history(tmp_path / "run").columns


def test_a_callback_may_leave_the_model_in_eval_mode(separable_data: Dataset) -> None:
    plain, disturbed = fresh(), fresh()
    short(plain, separable_data)
    short(disturbed, separable_data, callbacks=[lambda step, model, row: model.eval()])
    assert_same_weights(plain, disturbed)


def test_a_callback_is_given_what_was_just_measured(separable_data: Dataset) -> None:
    rows: list[dict[str, object]] = []
    model = fresh()
    result = short(model, separable_data, callbacks=[lambda step, model, row: rows.append({**row})])
    measured = result.history[result.history["split"] == "val"].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.DataFrame(rows), measured)


@pytest.mark.parametrize("column", ["loss", "step", "split", "gap"])
def test_a_callback_may_not_overwrite_a_column(separable_data: Dataset, column: str) -> None:
    with pytest.raises(InvalidInputError, match=f"a callback writes the column '{column}'"):
        short(
            fresh(),
            separable_data,
            callbacks=[lambda step, model, row: row.update({column: 1.0})],
        )


def test_a_result_says_what_was_reached(separable_data: Dataset) -> None:
    result = short(fresh(), separable_data)
    assert repr(result).startswith("TrainResult(30 steps in ")
    assert f"at step {result.best_step})" in repr(result)


def test_progress_is_shown_when_asked_for(
    separable_data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    short(fresh(), separable_data)
    assert capsys.readouterr().err == ""
    train(fresh(), separable_data, steps=2, batch_size=20, progress=True)
    assert "gumbel-st 2x30" in capsys.readouterr().err
