"""The columns of the history at an evaluation: measured ones, and those that callbacks add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.data import Dataset
from lgn_analysis.gates.relaxations import CAGE
from lgn_analysis.metrics import Evaluation, evaluate, gate_usage
from lgn_analysis.network import LogicNetwork
from lgn_analysis.training.preflight import SPLITS, Callback


class Measurement(NamedTuple):
    """An evaluation of a network in training.

    Attributes:
        rows: the history's columns, a row for each of :data:`SPLITS`.
        chosen: the evaluation on the first of them, which picks the best step.
    """

    rows: list[dict[str, Any]]
    chosen: Evaluation


def measure(
    model: LogicNetwork,
    data: Dataset,
    known: Mapping[str, Any],
    *,
    noise_draws: int,
    scheduled: bool,
) -> Measurement:
    """Evaluate a network on every split.

    Args:
        model: the network.
        data: validation and test data.
        known: columns that are known already: step, seconds, loss.
        noise_draws: noise draws of the noisy accuracy.
        scheduled: whether the gate temperature moves, so that it is a column.
    """
    usage = gate_usage(model)
    weights = usage["n_gates"] / usage["n_gates"].sum()
    of_gates = {
        "unused": float((usage["unused"] * weights).sum()),
        "entropy": float((usage["entropy"] * weights).sum()),
        **_temperatures(model, scheduled),
    }
    evaluations = [evaluate(model, data, split=split, noise_draws=noise_draws) for split in SPLITS]
    rows = []
    for split, evaluation in zip(SPLITS, evaluations, strict=True):
        columns = asdict(evaluation)
        del columns["split"], columns["noise_draws"]
        rows.append({"step": known["step"], "split": split, **dict(known), **columns, **of_gates})
    return Measurement(rows, evaluations[0])


def _temperatures(model: LogicNetwork, scheduled: bool) -> dict[str, float]:
    """Return the columns of a run whose temperature moves."""
    relaxation = model.relaxation
    if isinstance(relaxation, CAGE):
        confidences = torch.stack(model.confidences)
        return {"backward_tau": float(relaxation.backward_tau(confidences).mean())}
    return {"tau": relaxation.tau} if scheduled else {}


def call_back(
    callbacks: Sequence[Callback],
    step: int,
    model: LogicNetwork,
    measured: Mapping[str, Any],
    check: Callable[[], None],
) -> dict[str, Any]:
    """Call the callbacks, ``check`` after each, and return the columns that they add.

    Raises:
        InvalidInputError: a callback writes a column that is measured.
    """
    row = dict(measured)
    for callback in callbacks:
        callback(step, model, row)
        check()
    for column, value in measured.items():
        if column not in row or row[column] is not value:
            raise InvalidInputError(f"a callback writes the column {column!r}; rename it")
    return {column: value for column, value in row.items() if column not in measured}
