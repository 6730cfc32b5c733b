"""Checks before a run begins or resumes; nothing is compiled or written before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import shown
from lgn_analysis.data import Dataset
from lgn_analysis.gates.footprint import require_training_memory
from lgn_analysis.gates.parametrisations import get_parametrisation
from lgn_analysis.gates.schedules import TauSchedule
from lgn_analysis.metrics import check_labels
from lgn_analysis.network import LogicNetwork, require_plain
from lgn_analysis.training.config import RunConfig
from lgn_analysis.training.run_directory import RunDirectory

SPLITS: Final = ("val", "test")

Callback = Callable[[int, LogicNetwork, dict[str, Any]], None]
"""Called as ``callback(step, model, row)`` at each evaluation. ``row`` holds what was just measured on
the validation split, by the history's columns; what is put into it under other names becomes columns
of the history, the same in the rows of every split."""


def check_run(
    model: LogicNetwork,
    data: Dataset,
    config: RunConfig,
    directory: RunDirectory | None,
    callbacks: Sequence[Callback],
) -> TauSchedule | None:
    """Return the schedule of the gate temperature, None where it stays.

    Raises:
        InvalidInputError: model, data and configuration do not fit, or memory does not suffice.
    """
    n_train = len(data.y_train)
    if data.n_features != model.n_features:
        raise InvalidInputError(
            f"the network reads {model.n_features} features and {data.name!r} has {data.n_features}"
        )
    check_labels(data.y_train, model.n_classes)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidInputError(
            "no logits of this network require gradients, so there is nothing to train; call "
            "model.requires_grad_()"
        )
    for callback in callbacks:
        if not callable(callback):
            raise InvalidInputError(
                f"callbacks must be functions (step, model, row), got {shown(callback)}"
            )
    if config.training.batch_size > n_train:
        raise InvalidInputError(
            f"batch_size {config.training.batch_size} exceeds the {n_train} training samples "
            f"of {data.name!r}; use at most {n_train}"
        )
    if directory is not None:
        require_plain(model, "a run directory", hooks=False, any_parametrisation=True)
    draws = config.training.draws_per_step
    if draws > 1 and not model.relaxation.noisy:
        raise InvalidInputError(
            f"{type(model.relaxation).__name__} draws no noise, so draws_per_step must be 1, got "
            f"{draws}; train GumbelST or GumbelSoft"
        )
    require_training_memory(
        model,
        batch_size=config.training.batch_size,
        sizes=(n_train, *(len(data.split(split)[1]) for split in SPLITS)),
        draws=draws,
    )
    # The configured tau is the one that the run began with, the model's may have moved since.
    schedule = config.training.schedule(config.network.tau)
    if schedule is not None and model.relaxation.adaptive:
        raise InvalidInputError(
            f"{type(model.relaxation).__name__} adapts its temperature by itself; leave "
            "tau_schedule out, or train HardST"
        )
    if schedule is not None:  # a parametrisation may have no temperature but 1
        law = get_parametrisation(model.parametrisation)
        for step in (0, schedule.steps):
            law.check(replace(model.relaxation, tau=schedule.at(step)))
    return schedule
