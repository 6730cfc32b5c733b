"""Gate temperatures over a run, by their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.schedules import SCHEDULES, TauSchedule
from lgn_analysis.training.config import TrainingConfig

MOVING = SCHEDULES[1:]


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("linear", lambda s: 2.0 - 1.5 * s),
        ("exponential", lambda s: 2.0 * 0.25**s),
        ("cosine", lambda s: 0.5 + 0.75 * (1 + math.cos(math.pi * s))),
    ],
)
def test_a_schedule_follows_its_formula(kind: str, formula: Any) -> None:
    schedule = TauSchedule(kind, 2.0, 0.5, 8)
    values = [schedule.at(step) for step in range(9)]
    assert values == pytest.approx([formula(step / 8) for step in range(9)], rel=1e-14)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("kind", MOVING)
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.1), (0.3, 0.7), (0.1, 0.1)])
def test_the_ends_are_exact_and_the_end_is_kept(kind: str, start: float, end: float) -> None:
    schedule = TauSchedule(kind, start, end, 7)
    assert schedule.at(0) == start
    assert schedule.at(7) == schedule.at(8) == schedule.at(10**9) == end
    assert all(min(start, end) <= schedule.at(t) <= max(start, end) for t in range(8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sine", 1.0, 0.1, 5), "unknown tau_schedule 'sine'; use one of constant, linear"),
        (("linear", 1.0, 0.0, 5), "tau_end must be finite and above zero, got 0.0"),
        (("linear", 1.0, math.inf, 5), "tau_end must be finite and above zero, got inf"),
        (("linear", math.nan, 1.0, 5), "tau must be finite and above zero, got nan"),
        (("linear", 1.0, 0.1, 0), "tau_steps must be at least 1, got 0"),
    ],
)
def test_a_schedule_that_is_none_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TauSchedule(*arguments)


def test_a_training_configuration_names_a_schedule() -> None:
    config = TrainingConfig(steps=100, tau_schedule="linear", tau_end=1)
    assert config.schedule(3.0) == TauSchedule("linear", 3.0, 1.0, 100)
    short = TrainingConfig(steps=100, tau_schedule="cosine", tau_end=0.1, tau_steps=60)
    assert short.schedule(1.0) == TauSchedule("cosine", 1.0, 0.1, 60)
    assert TrainingConfig().schedule(1.0) is None
    assert TrainingConfig(tau_schedule="constant") == TrainingConfig()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau_schedule": "exp", "tau_end": 0.1}, "unknown tau_schedule 'exp'; use one of"),
        ({"tau_schedule": "linear"}, "tau_schedule 'linear' needs tau_end"),
        ({"tau_schedule": "linear", "tau_end": -1.0}, "tau_end must be finite and above zero"),
        ({"tau_schedule": "linear", "tau_end": 0.1, "tau_steps": 0}, "tau_steps must be at least"),
        ({"tau_schedule": "linear", "tau_end": 0.1, "tau_steps": 1.5}, "must be a whole number"),
        ({"tau_end": 0.1}, "tau_end is given and tau stays constant; give tau_schedule linear or"),
        ({"tau_schedule": "constant", "tau_steps": 5}, "tau_steps is given and tau stays constant"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TrainingConfig(**options)
