"""What is not finite stops a run, and says which step, which layer, and what is kept."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from lgn_analysis.base.errors import TrainingError
from lgn_analysis.checkpoints import read_checkpoint
from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import GumbelST, HardST, Relaxation, Soft
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training import Callback, read_history, resume, train
from lgn_analysis.training.stepper import Steps
from tests.tiny import fresh, short

BACKENDS = pytest.mark.parametrize("backend", ["reference", "cpu"])


def broken_at(step: int, value: float = math.nan) -> Callback:
    """Return a callback that puts a value among the logits of layer 1."""

    def callback(now: int, model: LogicNetwork, row: dict[str, float]) -> None:
        if now == step:
            model.layers[1].logits.data[3, 0] = value

    return callback


@BACKENDS
def test_what_a_callback_breaks_is_never_written(
    separable_data: Dataset, tmp_path: Path, backend: str
) -> None:
    model = fresh(Soft(), backend=backend).eval()
    message = (
        "at step 14, layer 1 has logits that are not finite (in 1 of 30 gates, the first of them "
        f"gate 3). The last good checkpoint, {tmp_path / 'run' / 'last.safetensors'}, "
        "holds step 7. Lower lr (0.05), or raise tau or group_tau"
    )
    with pytest.raises(TrainingError, match=re.escape(message)):
        short(model, separable_data, out=tmp_path / "run", callbacks=[broken_at(14)])
    assert not model.training, "the mode is restored all the same"


@pytest.mark.parametrize("value", [math.nan, math.inf])
@BACKENDS
def test_logits_that_are_not_finite_never_begin_a_run(
    separable_data: Dataset, backend: str, value: float
) -> None:
    for relaxation in (Soft(), GumbelST()):
        model = fresh(relaxation, backend=backend)
        model.layers[1].logits.data[3, 5] = value
        with pytest.raises(
            TrainingError,
            match=r"before the first step, layer 1 has logits that are not finite \(in 1 of 30 gates"
            r", the first of them gate 3\)\. Nothing was written, as out is not given\. Lower lr",
        ):
            short(model, separable_data)


def close_to_overflow(relaxation: Relaxation, backend: str) -> LogicNetwork:
    """Steps of 4.5e34 take some logits of gate 4 in layer 1 beyond float32, one after the other."""
    model = fresh(relaxation, backend=backend)
    model.layers[1].logits.data[4] = 3.402e38
    return model


@BACKENDS
@pytest.mark.parametrize("relaxation", [Soft(), HardST()], ids=lambda relaxation: relaxation.name)
def test_the_step_that_broke_the_logits_is_named(
    separable_data: Dataset, tmp_path: Path, relaxation: Relaxation, backend: str
) -> None:
    """Without a loss the next step stops; compiled hard gates go on, and only their logits tell."""
    with pytest.raises(TrainingError) as caught:
        short(
            close_to_overflow(relaxation, backend),
            separable_data,
            lr=4.5e34,
            eval_every=30,
            out=tmp_path / "run",
        )
    model = close_to_overflow(relaxation, backend)
    x, y = separable_data.x_train, separable_data.y_train
    steps = Steps(model, x, y, batch_size=20, lr=4.5e34, seed=0)
    for step in range(30):
        (loss,) = steps.advance(step, step + 1, lambda n: None)
        if not (math.isfinite(loss) and model.layers[1].logits.isfinite().all()):
            break
    assert 0 < step < 29
    said = str(caught.value)
    if relaxation.hard and backend == "cpu":
        assert said.startswith(f"after step {step}, layer 1 has logits that are not finite")
    else:  # an infinite logit still chooses a gate, once
        later = step + 1 + (relaxation.hard and backend == "reference")
        assert said.startswith(f"the loss of step {later} is nan: layer 1 has logits that are not")
    assert "(in 1 of 30 gates, the first of them gate 4)" in said
    assert "holds step 0. Lower lr (4.5e+34), or raise tau or group_tau" in said


def test_class_scores_that_overflow_are_told_from_broken_layers(separable_data: Dataset) -> None:
    model = fresh(Soft(), group_tau=1e-38)
    with pytest.raises(TrainingError, match="at step 0, the class scores overflow, which are sums"):
        short(model, separable_data)


@BACKENDS
def test_a_step_whose_loss_is_not_finite_moves_nothing(
    separable_data: Dataset, backend: str
) -> None:
    model = fresh(Soft(), backend=backend)
    steps = Steps(
        model, separable_data.x_train, separable_data.y_train, batch_size=20, lr=0.1, seed=0
    )
    steps.advance(0, 3, lambda n: None)
    model.layers[0].logits.data[2, 2] = math.nan
    before = [layer.logits.detach().clone() for layer in model.layers]
    taken: list[int] = []
    losses = steps.advance(3, 30, taken.append)
    assert len(losses) == 1
    assert math.isnan(losses[0])
    for layer, kept in zip(model.layers, before, strict=True):
        torch.testing.assert_close(layer.logits.detach(), kept, rtol=0, atol=0, equal_nan=True)


def test_the_last_good_checkpoint_can_be_trained_on(
    separable_data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError):
        short(fresh(), separable_data, out=tmp_path / "run", callbacks=[broken_at(21)])
    assert read_checkpoint(tmp_path / "run" / "last.safetensors").info["step"] == 14
    assert read_history(tmp_path / "run")["step"].max() == 14
    model, _ = resume(tmp_path / "run", data=separable_data, progress=False)
    whole = fresh()
    train(whole, separable_data, steps=30, batch_size=20, eval_every=7, lr=0.05, progress=False)
    assert all(
        torch.equal(a.logits, b.logits) for a, b in zip(model.layers, whole.layers, strict=True)
    )
