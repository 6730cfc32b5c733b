"""Training: Adam, evaluation on a schedule, and a run directory that can be resumed.

Batches and noise are functions of (seed, step), so a run is determined by its configuration and a
resumed one continues to the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from lgn_analysis.base import distributed
from lgn_analysis.base.errors import CheckpointError, InvalidInputError
from lgn_analysis.base.validation import usable_device, whole
from lgn_analysis.data import Dataset
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training.config import DataConfig, NetworkConfig, RunConfig, TrainingConfig
from lgn_analysis.training.loop import Runner, exclusive
from lgn_analysis.training.preflight import Callback
from lgn_analysis.training.run_directory import RunDirectory


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        history: a row an evaluation and split: step, split, seconds (training alone), loss (mean
            training loss since the row before), the accuracies, losses and gaps of
            :class:`lgn_analysis.metrics.Evaluation`, ``unused`` and ``entropy`` of the gates; with
            a schedule ``tau`` of this evaluation, and with CAGE ``backward_tau``, the mean over
            layers of the gradient's temperature as their confidence now has it.
        best_step: the evaluated step with the highest discrete accuracy on the validation split.
        best_accuracy: that accuracy.
        seconds: time spent in training steps.
        out: the run directory, if one was written.
        config: everything that is needed to run it again.
    """

    history: pd.DataFrame
    best_step: int
    best_accuracy: float
    seconds: float
    out: Path | None
    config: RunConfig

    def to_frame(self) -> pd.DataFrame:
        """Return the history."""
        return self.history

    def __repr__(self) -> str:
        last = self.history[self.history["split"] == "test"].iloc[-1]
        return (
            f"TrainResult({self.config.training.steps} steps in {self.seconds:.1f} s; test: "
            f"soft {last['soft_accuracy']:.2%}, discrete {last['discrete_accuracy']:.2%}, "
            f"gap {100 * last['gap']:+.2f} pp, unused gates {last['unused']:.1%}; "
            f"best val discrete {self.best_accuracy:.2%} at step {self.best_step})"
        )


def train(
    model: LogicNetwork,
    data: Dataset,
    *,
    steps: int = 20_000,
    batch_size: int = 128,
    lr: float = 0.01,
    seed: int = 0,
    eval_every: int | None = None,
    noise_draws: int = 1,
    tau_schedule: str | None = None,
    tau_end: float | None = None,
    tau_steps: int | None = None,
    eps: float = 1e-8,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    lr_schedule: str = "constant",
    warmup_steps: int | None = None,
    cosine_steps: int | None = None,
    draws_per_step: int = 1,
    eval_spacing: str = "linear",
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train ``model`` in place by AdamW on the cross-entropy of its training forward.

    Args:
        model: trained in place; its train/eval mode is restored afterwards.
        data: validation data picks the best step, test data are only reported.
        steps: optimiser steps.
        batch_size: samples a step, at most the training split; an epoch's last short batch is
            dropped, and its order is a function of ``seed`` and the epoch. Ranks of a process group
            share each batch equally, and rank 0 writes ``out``.
        lr: Adam's learning rate.
        seed: draws data order and noise (the model's own seed drew wiring and logits).
        eval_every: steps between evaluations; None is a fiftieth of ``steps``.
        noise_draws: noise draws of the noisy accuracy at each evaluation.
        tau_schedule: ``"linear"``, ``"exponential"`` or ``"cosine"`` moves the gate temperature from
            the model's to ``tau_end``; None or ``"constant"`` leaves it. Step t is trained at tau(t),
            an evaluation after t steps is made at tau(t), that of the step to come, and so is what a
            checkpoint or a callback sees there: soft mode is always the network that is being
            trained. The trained model keeps ``tau_end``. CAGE finds its temperature itself and takes
            no schedule.
        tau_end: gate temperature at the end, given exactly where there is a schedule.
        tau_steps: steps that the schedule takes, after which tau stays ``tau_end``; None is all of
            ``steps``. A run that is resumed for more steps keeps its schedule.
        eps: Adam's epsilon. A logit whose gradients g lie far below it moves by some lr · g / eps a
            step, not by lr: in deep networks at 1e-8 most layers stand still. Below 1e-8 gradients and
            eps are multiplied by one power of two, so that their squares stay normal float32; no step
            depends on it, and the moments in checkpoints are those of the multiplied gradient.
        betas: decay of Adam's first and second moment, each in [0, 1).
        weight_decay: decoupled: each step first multiplies the logits by ``1 - lr · weight_decay``.
        lr_schedule: ``"cosine"`` takes ``lr`` to zero after the warm-up, ``lr (1 + cos(π t / cosine_steps)) /
            2`` in its step t; ``"constant"`` stays at ``lr``, and ``"warmup"`` is its old name where there
            are ``warmup_steps``.
        warmup_steps: steps in which the learning rate first rises, ``lr · (t + 1) / warmup_steps`` at step t.
        cosine_steps: steps that the cosine takes after the warm-up, after which the learning rate is zero;
            None is all that remain. A run that is resumed for more steps keeps its schedule.
        draws_per_step: independent noise draws of a step on one batch; the step is taken on the mean of
            their losses. Step t has the draws ``t · draws_per_step`` and the following of ``seed``.
            A relaxation without noise takes one.
        eval_spacing: ``"log"`` evaluates also at steps 10, 13, 18, 24, 32, 42, 56, 75, 100, 130, …, which
            are ``10 · 10^(k/8)`` to two digits, as far as they lie before the first ``eval_every``.
            Evaluations cost time and change no step.
        out: run directory for config.toml, history.csv, last.safetensors and best.safetensors;
            None writes nothing.
        progress: show a progress bar.
        callbacks: called at each evaluation; see :data:`Callback`.

    Raises:
        InvalidInputError: data, model and sizes do not fit, ``out`` holds a run already, another
            process is training there, or another thread is training ``model``.
        TrainingError: the loss or the logits are no longer finite; it names the step, the layer and
            the last good checkpoint.
        StorageError: a checkpoint cannot be written; the one before it is intact.
        TrainingInterrupted: Ctrl-C, with ``out`` given: a checkpoint of that very step is written,
            and :func:`resume` goes on from it to the same bits.
    """
    training = TrainingConfig(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        eval_every=eval_every,
        noise_draws=noise_draws,
        tau_schedule=tau_schedule,
        tau_end=tau_end,
        tau_steps=tau_steps,
        eps=eps,
        betas=betas,
        weight_decay=weight_decay,
        lr_schedule=lr_schedule,
        warmup_steps=warmup_steps,
        cosine_steps=cosine_steps,
        draws_per_step=draws_per_step,
        eval_spacing=eval_spacing,
    )
    _check_data(data)
    config = RunConfig(
        data=DataConfig.of(data),
        network=NetworkConfig.of(model),
        training=training,
    )
    directory = None if out is None else RunDirectory(Path(out))
    if directory is not None:
        directory.refuse_used()
    run = Runner(model, data, config, directory, callbacks)
    distributed.wait_for_all()
    with exclusive(model), _held(directory):
        if directory is not None and distributed.world()[0] == 0:
            directory.refuse_used()  # again: now no other process can begin here
            directory.write_config(config)
        run.finish(progress)
    return _result(run)


def resume(
    out: str | os.PathLike[str],
    *,
    data: Dataset | None = None,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> tuple[LogicNetwork, TrainResult]:
    """Continue the run in directory ``out`` from its last checkpoint to the same bits.

    Args:
        out: a run directory.
        data: the data of the run; None loads them by the name in its configuration.
        steps: a new number of steps, to train on; None keeps the configured one.
        device: where to train on; the bits are the same only where the device is.
        progress: show a progress bar.
        callbacks: as in :func:`train`; they are not stored.

    Returns:
        The model and the result of the whole run.

    Raises:
        CheckpointError: there is nothing to resume, it is damaged, or it is of other data.
        InvalidInputError: another process is training there.
        TrainingError, StorageError, TrainingInterrupted: as in :func:`train`.
    """
    directory = RunDirectory(Path(out))
    directory.require()
    device = usable_device(device)
    if data is not None:
        _check_data(data)
    with _held(directory):
        model, run = _restored(directory, data, steps, device, callbacks)
        distributed.wait_for_all()
        if distributed.world()[0] == 0:
            directory.write_config(run.config)
        run.finish(progress)
    return model, _result(run)


def _restored(
    directory: RunDirectory,
    data: Dataset | None,
    steps: int | None,
    device: torch.device | str,
    callbacks: Sequence[Callback],
) -> tuple[LogicNetwork, Runner]:
    checkpoint, history = directory.read()
    config = RunConfig.from_dict(checkpoint.info["run"], source=str(directory.last))
    if steps is not None:
        if whole("steps", steps) < (done := int(checkpoint.info["step"])):
            raise InvalidInputError(
                f"{directory.path} holds {done} steps already; give steps={done} or more"
            )
        config = replace(config, training=config.training.resumed(steps))
    if data is None:
        data = config.data.load()
    if data.fingerprint != config.data.fingerprint:
        raise CheckpointError(
            f"{directory.path} was trained on other data than this {data.name!r} (the fingerprints "
            "differ); pass the original data"
        )
    model = checkpoint.model.to(device)
    model.set_backend(checkpoint.info["backend"])
    model.gradient_dtype = getattr(torch, checkpoint.info["gradient_dtype"])
    run = Runner(model, data, config, directory, callbacks)
    run.restore(checkpoint, history)
    if distributed.world()[0] == 0:
        directory.write_copies(checkpoint, history)
    return model, run


def _check_data(data: object) -> None:
    if not isinstance(data, Dataset):
        raise InvalidInputError(
            f"training needs a Dataset, got {type(data).__name__}; load_dataset and "
            "Dataset.from_arrays make one"
        )


def _held(directory: RunDirectory | None) -> AbstractContextManager[None]:
    """Lock a directory for this process, or for its ranks, of which only the first writes."""
    if directory is None or distributed.world()[0] > 0:
        return nullcontext()
    return directory.held()


def _result(run: Runner) -> TrainResult:
    return TrainResult(
        history=pd.DataFrame(run.rows),
        best_step=run.best_step,
        best_accuracy=run.best[0],
        seconds=run.seconds,
        out=None if run.directory is None else run.directory.path,
        config=run.config,
    )
