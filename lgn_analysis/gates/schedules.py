"""How the gate temperature moves over a training run.

A falling temperature drives a soft network towards a discrete one without noise: the classical
alternative to a straight-through forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lgn_analysis.base.errors import InvalidInputError

CONSTANT: Final = "constant"


def _linear(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


def _exponential(start: float, end: float, share: float) -> float:
    return float(start * (end / start) ** share)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


_KINDS: Final[dict[str, Callable[[float, float, float], float]]] = {
    "linear": _linear,
    "exponential": _exponential,
    "cosine": _cosine,
}
SCHEDULES: Final = (CONSTANT, *_KINDS)


@dataclass(frozen=True)
class TauSchedule:
    """tau as a function of the step alone: ``start`` at step 0, ``end`` from step ``steps`` on.

    With s = step / steps in between: ``linear`` is ``start + (end - start) s``, ``exponential``
    ``start (end / start)^s``, ``cosine`` ``end + (start - end) (1 + cos(π s)) / 2``.

    Attributes:
        kind: ``"linear"``, ``"exponential"`` or ``"cosine"``.
        start: gate temperature of step 0.
        end: gate temperature from step ``steps`` on, finite and above zero.
        steps: how many steps it takes, at least 1.

    Raises:
        InvalidInputError: an unknown kind, or a number out of range.

    >>> schedule = TauSchedule("exponential", start=1.0, end=0.01, steps=10)
    >>> schedule.at(0), round(schedule.at(5), 12), schedule.at(10), schedule.at(11)
    (1.0, 0.1, 0.01, 0.01)
    """

    kind: str
    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InvalidInputError(
                f"unknown tau_schedule {self.kind!r}; use one of {', '.join(SCHEDULES)}"
            )
        for name, value in (("tau", self.start), ("tau_end", self.end)):
            if not 0 < value < math.inf:
                raise InvalidInputError(f"{name} must be finite and above zero, got {value}")
        if self.steps < 1:
            raise InvalidInputError(f"tau_steps must be at least 1, got {self.steps}")

    def at(self, step: int) -> float:
        """Return tau of a step, counted from 0."""
        # The ends exactly, whatever rounding makes of the formula.
        if step <= 0:
            return self.start
        if step >= self.steps:
            return self.end
        return _KINDS[self.kind](self.start, self.end, step / self.steps)
