"""The training loop: steps, evaluations on a schedule, checkpoints, and when to stop."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final
from weakref import WeakSet

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from lgn_analysis.base import distributed
from lgn_analysis.base.errors import (
    InvalidInputError,
    StorageError,
    TrainingError,
    TrainingInterrupted,
)
from lgn_analysis.base.signals import postponed
from lgn_analysis.checkpoints import Checkpoint
from lgn_analysis.data import Dataset
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training.config import RunConfig
from lgn_analysis.training.diagnostics import bad_logits, where_it_fails
from lgn_analysis.training.measurement import call_back, measure
from lgn_analysis.training.preflight import Callback, check_run
from lgn_analysis.training.run_directory import RunDirectory
from lgn_analysis.training.stepper import Steps, warm_up

_IN_TRAINING: Final[WeakSet[LogicNetwork]] = WeakSet()
_LOCK: Final = threading.Lock()


@contextmanager
def exclusive(model: LogicNetwork) -> Iterator[None]:
    """Allow one run at a time on a model: steps write its logits in place.

    Raises:
        InvalidInputError: a run that has not ended is training it.
    """
    with _LOCK:
        if model in _IN_TRAINING:
            raise InvalidInputError(
                "this model is being trained already, by another thread or around this callback; "
                "wait until that run ends, or train copy.deepcopy(model)"
            )
        _IN_TRAINING.add(model)
    try:
        yield
    finally:
        _IN_TRAINING.discard(model)


class Runner:
    """The state of a run, and the loop over it.

    Args:
        model: trained in place.
        data: what it is trained and evaluated on.
        config: the run.
        directory: where it is written; None writes nothing.
        callbacks: called at each evaluation.

    Attributes:
        rows: the history.
        step: steps taken.
        seconds: time spent in them.
        best_step: the evaluated step with the best validation accuracy.
        best: its discrete accuracy and the negative discrete loss.
    """

    def __init__(
        self,
        model: LogicNetwork,
        data: Dataset,
        config: RunConfig,
        directory: RunDirectory | None,
        callbacks: Sequence[Callback],
    ) -> None:
        schedule = check_run(model, data, config, directory, callbacks)
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
            eps=config.training.eps,
            betas=config.training.betas,
            weight_decay=config.training.weight_decay,
            learning_rates=config.training.learning_rates,
            draws=config.training.draws_per_step,
        )
        self.rows: list[dict[str, Any]] = []
        self.step = 0
        self.seconds = 0.0
        self.best_step = 0
        self.best: tuple[float, float] = (-1.0, 0.0)
        self._evaluated = 0  # the last step that was, and the losses since
        self._loss = 0.0
        self._kept = -1  # the step of the last checkpoint

    def restore(self, checkpoint: Checkpoint, history: pd.DataFrame) -> None:
        """Take up the state of a checkpoint."""
        info = checkpoint.info
        self.step = self._kept = int(info["step"])
        self.seconds = float(info["seconds"])
        self.best_step = int(info["best_step"])
        self.best = (float(info["best"][0]), float(info["best"][1]))
        self._evaluated = int(info["evaluated"])
        self._loss = float(info["loss"])
        rows = history.to_dict("records")
        self.rows = [{str(column): value for column, value in row.items()} for row in rows]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in checkpoint.tensors.items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
        optimiser = self.steps.optimiser
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})

    def finish(self, progress: bool) -> None:
        """Run to the last step, evaluating on the schedule.

        Raises:
            TrainingError: a loss or logits are no longer finite.
            StorageError: a checkpoint cannot be written.
            TrainingInterrupted: Ctrl-C was pressed, and a checkpoint of this very step written.
        """
        training = self.config.training
        was_training = self.model.training
        self.model.train()
        warm_up(
            self.model, scheduled=self.steps.schedule is not None, draws=training.draws_per_step
        )
        bar = tqdm(
            total=training.steps,
            initial=self.step,
            desc=f"{self.model.relaxation.name} {self.model.depth}x{self.model.width}",
            unit="step",
            disable=not progress or distributed.world()[0] > 0,
        )
        try:
            with self._interruptible() as stopped:
                if self.step == 0 and not self.rows:
                    self._evaluate(float("nan"), bar)
                while self.step < training.steps and not stopped():
                    self._advance(training.next_evaluation(self.step), bar, stopped)
                if stopped():
                    self._stop_at_step()
        finally:
            bar.close()
            self.model.train(was_training)

    def _interruptible(self) -> AbstractContextManager[Callable[[], bool]]:
        # Ranks would have to agree on the step; without a directory there is nothing to write.
        if self.directory is None or distributed.world()[1] > 1:
            return nullcontext(lambda: False)
        return postponed("stopping with a checkpoint; press Ctrl-C again to stop at once")

    def _stop_at_step(self) -> None:
        """Commit this step, evaluated or not, and stop."""
        assert self.directory is not None
        if self._kept != self.step:
            self._commit(improved=False)
        raise TrainingInterrupted(
            f"stopped at step {self.step} of {self.config.training.steps}; go on with "
            f"lgn-analysis train --resume {self.directory.path}"
        )

    def _advance(self, until: int, bar: Any, stopped: Callable[[], bool]) -> None:
        """Train up to step ``until`` and evaluate there, unless something stops it before."""
        start = time.perf_counter()
        losses = self.steps.advance(self.step, until, bar.update, stopped)
        self.step += len(losses)
        self.seconds += time.perf_counter() - start
        for loss in losses:  # one by one: wherever a run was cut, the sum is the same
            self._loss += loss
        if losses and not math.isfinite(losses[-1]):
            reason = self._where_it_fails() or "logits, gates and class scores are finite"
            raise TrainingError(
                f"the loss of step {self.step - 1} is {losses[-1]}: {reason}. {self._way_out()}"
            )
        if self.step == until:
            mean = self._loss / (self.step - self._evaluated)
            self._evaluated, self._loss = self.step, 0.0
            self._evaluate(mean, bar)

    def _where_it_fails(self) -> str:
        samples = self.data.x_train[: self.config.training.batch_size]
        return where_it_fails(self.model, samples.to(self.model.device))

    def _require_finite_logits(self) -> None:
        reason = bad_logits(self.model)
        if not reason:
            return
        when = f"between steps {self._kept} and {self.step}"
        if self.step == 0:
            when = "before the first step"
        elif self.directory is not None and distributed.world()[1] == 1:
            when, reason = self._find_bad_step(self.directory) or (f"at step {self.step}", reason)
        raise TrainingError(f"{when}, {reason}. {self._way_out()}")

    def _find_bad_step(self, directory: RunDirectory) -> tuple[str, str] | None:
        """Train again from the last checkpoint, a step at a time, up to the first with bad logits.

        None is returned where no step has them: then a callback has changed the model.
        """
        checkpoint, history = directory.read()
        model = checkpoint.model.to(self.model.device)
        again = Runner(model, self.data, self.config, None, ())
        again.restore(checkpoint, history)
        while again.step < self.step:
            again.steps.advance(again.step, again.step + 1, lambda n: None)
            if reason := bad_logits(model):
                return f"after step {again.step}", reason
            again.step += 1
        return None

    def _way_out(self) -> str:
        kept = "Nothing was written, as out is not given"
        if self.directory is not None:
            kept = "No checkpoint was written before"
            if self._kept >= 0:
                kept = f"The last good checkpoint, {self.directory.last}, holds step {self._kept}"
        return f"{kept}. Lower lr ({self.config.training.lr}), or raise tau or group_tau"

    def _evaluate(self, loss: float, bar: Any) -> None:
        """Evaluate, add the rows to the history, and write a checkpoint."""
        self._require_finite_logits()
        try:
            measured = measure(
                self.model,
                self.data,
                {"step": self.step, "seconds": self.seconds, "loss": loss},
                noise_draws=self.config.training.noise_draws,
                scheduled=self.steps.schedule is not None,
            )
        except InvalidInputError as error:
            if reason := self._where_it_fails():
                raise TrainingError(f"at step {self.step}, {reason}. {self._way_out()}") from error
            raise
        added = call_back(
            self.callbacks, self.step, self.model, measured.rows[0], self._require_finite_logits
        )
        self.rows += [{**row, **added} for row in measured.rows]
        chosen = measured.chosen
        better = (chosen.discrete_accuracy, -chosen.discrete_loss)
        improved = better > self.best
        if improved:
            self.best, self.best_step = better, self.step
        bar.set_postfix(
            loss=f"{loss:.3f}",
            soft=f"{chosen.soft_accuracy:.1%}",
            discrete=f"{chosen.discrete_accuracy:.1%}",
        )
        if self.directory is not None and distributed.world()[0] == 0:
            self._commit(improved)

    def _commit(self, improved: bool) -> None:
        """Write this step as the last checkpoint."""
        assert self.directory is not None
        info = {
            "run": self.config.to_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best_step": self.best_step,
            "best": list(self.best),
            "evaluated": self._evaluated,
            "loss": self._loss,
            "backend": self.model.backend,
            "gradient_dtype": str(self.model.gradient_dtype).removeprefix("torch."),
        }
        tensors = {
            f"{index}/{key}": tensor
            for index, values in self.steps.optimiser.state_dict()["state"].items()
            for key, tensor in values.items()
        }
        history = pd.DataFrame(self.rows)
        try:
            self.directory.commit(self.model, history, tensors, info, best=improved)
        except StorageError as error:
            kept = f"step {self._kept} is kept" if self._kept >= 0 else "no checkpoint is kept yet"
            raise StorageError(
                f"{error}; {kept}. Make room, and resume the run: "
                f"lgn-analysis train --resume {self.directory.path}"
            ) from error
        self._kept = self.step
