"""When a run first reached an accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import real


@dataclass(frozen=True)
class Convergence:
    """When a run first reached an accuracy; ``reached`` False is a censored run.

    Attributes:
        step: first evaluated step at or above the accuracy; the last step of a censored run.
        seconds: training time there, evaluation apart.
    """

    accuracy: float
    reached: bool
    step: int
    seconds: float


def convergence(
    history: pd.DataFrame,
    accuracy: float,
    *,
    split: str = "val",
    column: str = "discrete_accuracy",
) -> Convergence:
    """Return when ``column`` first reached ``accuracy`` in a training history.

    Raises:
        InvalidInputError: the history has no such split or column, or it is no fraction.
    """
    if not isinstance(history, pd.DataFrame):
        raise InvalidInputError(
            f"a history is a DataFrame, such as lgn.train(…).history, got {type(history).__name__}"
        )
    for name in (column, "split", "step", "seconds"):
        if name not in history.columns:
            raise InvalidInputError(
                f"the history has no column {name!r}; it has {[*history.columns]}"
            )
    accuracy = real("accuracy", accuracy)
    if math.isnan(accuracy) or (column.endswith("accuracy") and not 0 <= accuracy <= 1):
        raise InvalidInputError(f"accuracy must be a fraction in 0..1, got {accuracy}")
    rows = history[history["split"] == split].sort_values("step")
    if rows.empty:
        raise InvalidInputError(
            f"the history has no split {split!r}; it has {sorted(history['split'].unique())}"
        )
    above = rows[rows[column] >= accuracy]
    row = rows.iloc[-1] if above.empty else above.iloc[0]
    return Convergence(accuracy, not above.empty, int(row["step"]), float(row["seconds"]))
