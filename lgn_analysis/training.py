"""Training: Adam, evaluation on a schedule, and a run directory that can be resumed.

Batches and noise are functions of (seed, step), so a run is determined by its configuration and a
resumed one continues to the same bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lgn_analysis import ranks
from lgn_analysis.checkpoints import Checkpoint, read_checkpoint, replacing, write_checkpoint
from lgn_analysis.data import Dataset, load_dataset
from lgn_analysis.errors import CheckpointError, InvalidInputError, TrainingError
from lgn_analysis.metrics import Evaluation, check_labels, evaluate, gate_usage
from lgn_analysis.network import LogicNetwork
from lgn_analysis.relaxations import CAGE
from lgn_analysis.runs import DataConfig, NetworkConfig, RunConfig, TrainingConfig, write_config
from lgn_analysis.steps import Steps, warm_up

CONFIG_FILE: Final = "config.toml"
HISTORY_FILE: Final = "history.csv"
LAST_FILE: Final = "last.safetensors"
BEST_FILE: Final = "best.safetensors"
SPLITS: Final = ("val", "test")

Callback = Callable[[int, LogicNetwork, dict[str, float]], None]
"""Called as ``callback(step, model, row)`` at each evaluation; what it puts into ``row`` becomes
columns of the history."""


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
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train ``model`` in place by Adam on the cross-entropy of its training forward.

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
        out: run directory for config.toml, history.csv, last.safetensors and best.safetensors;
            None writes nothing.
        progress: show a progress bar.
        callbacks: called at each evaluation; see :data:`Callback`.

    Raises:
        InvalidInputError: data, model and sizes do not fit, or ``out`` holds a run already.
        TrainingError: the loss is no longer finite.
    """
    training = TrainingConfig(
        steps,
        batch_size,
        lr,
        seed,
        eval_every,
        noise_draws,
        tau_schedule=tau_schedule,
        tau_end=tau_end,
        tau_steps=tau_steps,
    )
    config = RunConfig(
        data=DataConfig(data.name, data.thresholds, data.fingerprint),
        network=NetworkConfig.of(model),
        training=training,
    )
    directory = None if out is None else Path(out)
    if directory is not None:
        _refuse_used(directory)
    run = _Run(model, data, config, directory, callbacks)
    ranks.wait_for_all()
    if directory is not None and ranks.world()[0] == 0:
        directory.mkdir(parents=True, exist_ok=True)
        write_config(config, directory / CONFIG_FILE)
    return run.finish(progress)


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
        CheckpointError: there is nothing to resume, or it is of other data.
    """
    directory = Path(out)
    if not directory.is_dir():
        raise CheckpointError(f"there is no run directory at {directory}")
    checkpoint = read_checkpoint(directory / LAST_FILE)
    if "run" not in checkpoint.info:
        raise CheckpointError(f"{directory / LAST_FILE} holds a model and no training state")
    config = RunConfig.from_dict(checkpoint.info["run"], source=str(directory / LAST_FILE))
    if steps is not None:
        if steps < (done := int(checkpoint.info["step"])):
            raise InvalidInputError(
                f"{directory} holds {done} steps already; give steps={done} or more"
            )
        # Both schedules were fixed when the run began: more steps move no evaluation and no tau.
        before = config.training
        tau_steps = None if before.tau_schedule is None else before.tau_steps or before.steps
        training = replace(before, steps=steps, eval_every=before.interval, tau_steps=tau_steps)
        config = replace(config, training=training)
    if data is None:
        data = load_dataset(config.data.name, config.data.thresholds)
    if data.fingerprint != config.data.fingerprint:
        raise CheckpointError(
            f"{directory} was trained on other data than this {data.name!r} (the fingerprints "
            "differ); pass the original data"
        )
    run = _Run(checkpoint.model.to(device), data, config, directory, callbacks)
    run.restore(checkpoint)
    ranks.wait_for_all()
    if ranks.world()[0] == 0:
        write_config(config, directory / CONFIG_FILE)
    return checkpoint.model, run.finish(progress)


class _Run:
    """The state of a run, and the loop over it."""

    def __init__(
        self,
        model: LogicNetwork,
        data: Dataset,
        config: RunConfig,
        directory: Path | None,
        callbacks: Sequence[Callback],
    ) -> None:
        n_train = len(data.y_train)
        if data.n_features != model.n_features:
            raise InvalidInputError(
                f"the network reads {model.n_features} features and {data.name!r} has "
                f"{data.n_features}"
            )
        check_labels(data.y_train, model.n_classes)
        if config.training.batch_size > n_train:
            raise InvalidInputError(
                f"batch_size {config.training.batch_size} exceeds the {n_train} training samples "
                f"of {data.name!r}; use at most {n_train}"
            )
        # The configured tau is the one that the run began with, the model's may have moved since.
        schedule = config.training.schedule(config.network.tau)
        if schedule is not None and model.relaxation.adaptive:
            raise InvalidInputError(
                f"{type(model.relaxation).__name__} adapts its temperature by itself; leave "
                "tau_schedule out, or train HardST"
            )
        self.model = model
        self.data = data
        self.config = config
        self.directory = directory
        self.callbacks = callbacks
        self.steps = Steps(
            model,
            data.x_train,
            data.y_train,
            batch_size=config.training.batch_size,
            lr=config.training.lr,
            seed=config.training.seed,
            schedule=schedule,
        )
        self.rows: list[dict[str, Any]] = []
        self.step = 0
        self.seconds = 0.0
        self.best_step = 0
        self.best: tuple[float, float] = (-1.0, 0.0)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state of a checkpoint; rows that were written after it are dropped."""
        info = checkpoint.info
        self.step = int(info["step"])
        self.seconds = float(info["seconds"])
        self.best_step = int(info["best_step"])
        self.best = (float(info["best"][0]), float(info["best"][1]))
        assert self.directory is not None
        history = read_history(self.directory)
        rows = history[history["step"] <= self.step].to_dict("records")
        self.rows = [{str(column): value for column, value in row.items()} for row in rows]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in checkpoint.tensors.items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
        if self.best_step == self.step and ranks.world()[0] == 0:
            write_checkpoint(self.directory / BEST_FILE, self.model, info=info)
        optimiser = self.steps.optimiser
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})

    def finish(self, progress: bool) -> TrainResult:
        """Run to the last step, evaluating on the schedule, and return the result."""
        training = self.config.training
        was_training = self.model.training
        self.model.train()
        warm_up(self.model, scheduled=self.steps.schedule is not None)
        bar = tqdm(
            total=training.steps,
            initial=self.step,
            desc=f"{self.model.relaxation.name} {self.model.depth}x{self.model.width}",
            unit="step",
            disable=not progress or ranks.world()[0] > 0,
        )
        try:
            if self.step == 0 and not self.rows:
                self._evaluate(float("nan"), bar)
            while self.step < training.steps:
                until = (self.step // training.interval + 1) * training.interval
                loss = self._advance(min(until, training.steps), bar)
                self._evaluate(loss, bar)
        finally:
            bar.close()
            self.model.train(was_training)
        return TrainResult(
            history=pd.DataFrame(self.rows),
            best_step=self.best_step,
            best_accuracy=self.best[0],
            seconds=self.seconds,
            out=self.directory,
            config=self.config,
        )

    def _advance(self, until: int, bar: Any) -> float:
        """Train up to step ``until`` and return the mean loss."""
        start, first = time.perf_counter(), self.step
        mean = self.steps.advance(first, until, bar.update) / (until - first)
        self.step = until
        self.seconds += time.perf_counter() - start
        if not mean < float("inf"):
            raise TrainingError(
                f"the loss is {mean} between steps {first} and {until}; the last checkpoint holds "
                f"step {first}. Lower lr ({self.config.training.lr}), or raise tau or group_tau"
            )
        return mean

    def _evaluate(self, loss: float, bar: Any) -> None:
        usage = gate_usage(self.model)
        weights = usage["n_gates"] / usage["n_gates"].sum()
        extra: dict[str, float] = {}
        own = self._temperatures()
        for callback in self.callbacks:
            callback(self.step, self.model, extra)
        if taken := sorted((_RESERVED | set(own)) & set(extra)):
            raise InvalidInputError(f"a callback writes the column {taken[0]!r}; rename it")
        for split in SPLITS:
            evaluation = evaluate(
                self.model,
                self.data,
                split=split,
                noise_draws=self.config.training.noise_draws,
            )
            self.rows.append(
                {
                    "step": self.step,
                    "split": split,
                    "seconds": self.seconds,
                    "loss": loss,
                    **_columns(evaluation),
                    "unused": float((usage["unused"] * weights).sum()),
                    "entropy": float((usage["entropy"] * weights).sum()),
                    **own,
                    **extra,
                }
            )
            if split == "val":
                chosen = evaluation
        better = (chosen.discrete_accuracy, -chosen.discrete_loss)
        improved = better > self.best
        if improved:
            self.best, self.best_step = better, self.step
        bar.set_postfix(
            loss=f"{loss:.3f}",
            soft=f"{chosen.soft_accuracy:.1%}",
            discrete=f"{chosen.discrete_accuracy:.1%}",
        )
        if self.directory is not None and ranks.world()[0] == 0:
            self._write(self.directory, improved)

    def _temperatures(self) -> dict[str, float]:
        """Return the columns of a run whose temperature moves."""
        relaxation = self.model.relaxation
        if isinstance(relaxation, CAGE):
            confidences = torch.stack(self.model.as_pass().confidences)
            return {"backward_tau": float(relaxation.backward_tau(confidences).mean())}
        return {} if self.steps.schedule is None else {"tau": relaxation.tau}

    def _write(self, directory: Path, improved: bool) -> None:
        """Commit this evaluation: the history first, so that no checkpoint lacks its rows.

        The best model follows the checkpoint that names it; :meth:`restore` writes it again where
        the run was killed in between.
        """
        with replacing(directory / HISTORY_FILE) as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)
        info = {
            "run": self.config.to_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best_step": self.best_step,
            "best": list(self.best),
        }
        tensors = {
            f"{index}/{key}": tensor
            for index, values in self.steps.optimiser.state_dict()["state"].items()
            for key, tensor in values.items()
        }
        write_checkpoint(directory / LAST_FILE, self.model, tensors=tensors, info=info)
        if improved:
            write_checkpoint(directory / BEST_FILE, self.model, info=info)


def read_history(directory: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the history of a run directory, floats exactly as they were."""
    path = Path(directory) / HISTORY_FILE
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read the history {path}: {error}") from error


_RESERVED: Final = frozenset(
    {item.name for item in fields(Evaluation)} | {"step", "seconds", "loss", "unused", "entropy"}
)


def _columns(evaluation: Evaluation) -> dict[str, Any]:
    return {
        key: value
        for key, value in asdict(evaluation).items()
        if key not in ("split", "noise_draws")
    }


def _refuse_used(path: Path) -> None:
    # A run that was stopped before its first checkpoint left no more than these, and no training.
    begun = {CONFIG_FILE, HISTORY_FILE}
    if path.exists() and not (path.is_dir() and {item.name for item in path.iterdir()} <= begun):
        raise InvalidInputError(
            f"{path} exists and is not empty; resume it (lgn-analysis train --resume {path}), "
            "or choose another directory"
        )
