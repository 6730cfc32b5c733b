"""Runs whose temperature moves: by a schedule, or by CAGE's confidence; to the bit when resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.checkpoints import load, read_checkpoint
from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import CAGE, GumbelSoft, GumbelST, HardST, Relaxation, Soft
from lgn_analysis.gates.schedules import TauSchedule
from lgn_analysis.metrics import evaluate
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training import read_history, resume
from lgn_analysis.training.config_files import read_config
from lgn_analysis.training.stepper import Steps
from tests.tiny import EVALUATED, assert_same_weights, fresh, short, timeless

FALLING: dict[str, Any] = {"tau_schedule": "exponential", "tau_end": 0.2}
SCHEDULED = pytest.mark.parametrize(
    "relaxation", [Soft(), GumbelSoft(), GumbelST(), HardST()], ids=lambda r: r.name
)


class Stopped(BaseException):
    """As a signal would stop the run: nothing catches it."""


def stop_at(step: int) -> Any:
    def stop(now: int, model: LogicNetwork, row: dict[str, float]) -> None:
        if now == step:
            raise Stopped

    return stop


def assert_same_history(one: pd.DataFrame, two: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(timeless(one), timeless(two), check_exact=True)


@SCHEDULED
def test_evaluations_are_made_at_the_temperature_of_the_step_to_come(
    separable_data: Dataset, relaxation: Relaxation, tmp_path: Path
) -> None:
    seen: list[float] = []
    model = fresh(relaxation)
    result = short(
        model,
        separable_data,
        out=tmp_path / "run",
        callbacks=[lambda step, model, row: seen.append(model.relaxation.tau)],
        **FALLING,
    )
    schedule = TauSchedule("exponential", 1.0, 0.2, 30)
    wanted = [schedule.at(step) for step in EVALUATED]
    assert seen == wanted
    assert result.history["tau"].tolist() == [tau for tau in wanted for _ in range(2)]
    assert model.relaxation == type(relaxation)(0.2)
    assert {layer.relaxation for layer in model.layers} == {model.relaxation}
    assert model.config["tau"] == 0.2
    last = evaluate(model, separable_data, noise_draws=1)
    assert result.history.iloc[-1]["soft_loss"] == last.soft_loss
    best = read_checkpoint(tmp_path / "run" / "best.safetensors")
    assert best.model.relaxation.tau == schedule.at(result.best_step)
    assert load(tmp_path / "run" / "last.safetensors").relaxation.tau == 0.2


def test_a_run_without_a_schedule_has_no_column_of_temperatures(separable_data: Dataset) -> None:
    model = fresh(GumbelST(0.7))
    assert "tau" not in short(model, separable_data, tau_schedule="constant").history
    assert model.relaxation.tau == 0.7
    plain = fresh(GumbelST(0.7))
    short(plain, separable_data)
    assert_same_weights(plain, model)


@SCHEDULED
def test_a_schedule_at_one_temperature_is_no_schedule(
    separable_data: Dataset, relaxation: Relaxation
) -> None:
    still, plain = fresh(relaxation), fresh(relaxation)
    short(still, separable_data, tau_schedule="cosine", tau_end=1.0)
    short(plain, separable_data)
    assert_same_weights(still, plain)


@pytest.mark.parametrize("at", [7, 21, 30])
@pytest.mark.parametrize(
    ("relaxation", "options"),
    [(Soft(), FALLING), (GumbelSoft(), FALLING), (GumbelST(), FALLING), (CAGE(), {})],
    ids=["soft", "gumbel-soft", "gumbel-st", "cage"],
)
def test_a_run_resumed_in_the_middle_has_the_bits_of_an_uninterrupted_one(
    separable_data: Dataset,
    tmp_path: Path,
    relaxation: Relaxation,
    options: dict[str, Any],
    at: int,
) -> None:
    whole = fresh(relaxation)
    short(whole, separable_data, out=tmp_path / "whole", **options)
    broken = fresh(relaxation)
    with pytest.raises(Stopped):
        short(broken, separable_data, out=tmp_path / "run", callbacks=[stop_at(at)], **options)
    model, result = resume(tmp_path / "run", data=separable_data, progress=False)
    assert_same_weights(model, whole)
    assert model.relaxation == whole.relaxation
    assert_same_history(read_history(tmp_path / "run"), read_history(tmp_path / "whole"))
    assert result.config == read_config(tmp_path / "whole" / "config.toml")[0]
    assert result.config.network.tau == 1.0, "the temperature that the run began with"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("relaxation", "options"), [(Soft(), FALLING), (CAGE(), {})], ids=["soft", "cage"]
)
def test_how_often_a_run_is_evaluated_does_not_change_its_weights(
    separable_data: Dataset, relaxation: Relaxation, options: dict[str, Any], dtype: torch.dtype
) -> None:
    often, once = fresh(relaxation, dtype=dtype), fresh(relaxation, dtype=dtype)
    short(often, separable_data, eval_every=1, **options)
    short(once, separable_data, eval_every=30, **options)
    assert_same_weights(often, once)


def test_more_steps_leave_the_schedule_as_it_was(separable_data: Dataset, tmp_path: Path) -> None:
    longer = fresh(Soft())
    expected = short(longer, separable_data, steps=60, tau_steps=30, **FALLING)
    short(fresh(Soft()), separable_data, out=tmp_path / "run", **FALLING)
    model, result = resume(tmp_path / "run", data=separable_data, steps=60, progress=False)
    assert_same_weights(model, longer)
    assert result.config.training.tau_steps == 30
    assert set(result.history["tau"]) == set(expected.history["tau"])


@pytest.mark.parametrize(
    ("relaxation", "schedule"),
    [
        *((kind(), TauSchedule("linear", 1.0, 0.3, 6)) for kind in (Soft, GumbelSoft, GumbelST)),
        (HardST(), TauSchedule("linear", 1.0, 0.3, 6)),
        (CAGE(0.9, decay=0.5), None),
    ],
    ids=["soft", "gumbel-soft", "gumbel-st", "hard-st", "cage"],
)
def test_a_backend_takes_the_steps_that_autograd_takes(
    separable_data: Dataset, relaxation: Relaxation, schedule: TauSchedule | None
) -> None:
    trained = []
    for backend in (None, "reference"):
        model = fresh(relaxation, backend=backend)
        data = (separable_data.x_train, separable_data.y_train)
        steps = Steps(model, *data, batch_size=20, lr=0.02, seed=7, schedule=schedule)
        assert (steps.model.network_backend is None) == (backend == "reference")
        losses = steps.advance(0, 4, lambda n: None) + steps.advance(4, 6, lambda n: None)
        trained.append((model, losses))
    (fast, loss), (slow, expected) = trained
    assert loss == pytest.approx(expected, rel=1e-5)
    assert fast.relaxation == slow.relaxation
    for mine, theirs in zip(fast.layers, slow.layers, strict=True):
        torch.testing.assert_close(mine.logits, theirs.logits, rtol=0, atol=0.05 * 0.02)
        if relaxation.adaptive:
            torch.testing.assert_close(mine.confidence, theirs.confidence, rtol=1e-5, atol=0)


def test_cage_takes_no_schedule(separable_data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="CAGE adapts its temperature by itself; leave"):
        short(fresh(CAGE()), separable_data, out=tmp_path / "run", **FALLING)
    assert not (tmp_path / "run").exists()


def test_a_run_of_cage_says_its_temperature(separable_data: Dataset) -> None:
    model = fresh(CAGE())
    column = short(model, separable_data).history["backward_tau"]
    assert column.iloc[0] == 3.0
    assert column.is_monotonic_decreasing
    c = torch.stack([layer.confidence for layer in model.layers])
    assert column.iloc[-1] == pytest.approx(float((3.0 - 2.5 * (c - 1 / 16) / (15 / 16)).mean()))


@pytest.mark.parametrize(
    ("relaxation", "options", "column"),
    [(Soft(), FALLING, "tau"), (CAGE(), {}, "backward_tau")],
)
def test_a_callback_may_not_overwrite_the_column(
    separable_data: Dataset, relaxation: Relaxation, options: dict[str, Any], column: str
) -> None:
    def write(step: int, model: LogicNetwork, row: dict[str, float]) -> None:
        row[column] = 1.0

    with pytest.raises(InvalidInputError, match=f"a callback writes the column '{column}'"):
        short(fresh(relaxation), separable_data, callbacks=[write], **options)
    other = Soft() if column == "backward_tau" else HardST()
    assert column in short(fresh(other), separable_data, callbacks=[write]).history


def test_cage_with_options_is_complete_in_its_configuration(
    separable_data: Dataset, tmp_path: Path
) -> None:
    relaxation = CAGE(0.8, tau_max=2.0, tau_min=0.4, decay=0.9)
    result = short(fresh(relaxation), separable_data, out=tmp_path / "run")
    config, _ = read_config(tmp_path / "run" / "config.toml")
    assert config == result.config
    assert (config.network.cage_tau_max, config.network.cage_decay) == (2.0, 0.9)
    assert config.network.build(separable_data).relaxation == relaxation
    assert load(tmp_path / "run" / "last.safetensors").relaxation == relaxation
