"""One bar for a whole sweep, in estimated work, with the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from tqdm.auto import tqdm

from lgn_analysis.experiments.specs import RunSpec
from lgn_analysis.experiments.sweep.costs import cost, duration
from lgn_analysis.experiments.sweep.workers import Outcome

_MEASURED: Final = 0.05
"""How much the measured speed of the machine weighs, in parts of the whole sweep: the first runs also
load what the others find loaded."""


class SweepProgress:
    """The bar of a sweep: it starts where an earlier call left off.

    The estimate of every run is scaled by what the finished ones took, so that a slow machine
    is noticed with its first run.

    Args:
        todo: the runs to make.
        done: runs that the cache holds already.
        width: how many run at once; None where only the executor knows.
        slowness: of this machine, before a run has ended: what runs take over what is estimated;
            None until :meth:`calibrate` says it.
        show: draw the bar.
        clock: seconds, from any origin.
    """

    def __init__(
        self,
        todo: Sequence[RunSpec],
        done: Sequence[RunSpec] = (),
        *,
        width: int | None = None,
        slowness: float | None = 1.0,
        show: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._costs = {spec.key: cost(spec) for spec in todo}
        self._labels = {spec.key: spec.label for spec in todo}
        self._width = None if width is None else min(width, max(1, len(todo)))
        self._slowness = slowness
        self._weight = 0.0
        self._clock = clock
        self._start = clock()
        self._expected = 0.0
        self._taken = 0.0
        self._failed = 0
        self._ended = 0
        finished = sum(cost(spec) for spec in done)
        self._bar = tqdm(
            total=finished + sum(self._costs.values()),
            initial=finished,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
            disable=not show or not todo,
        )
        self._describe()

    def __enter__(self) -> SweepProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def calibrate(self, slowness: float | None) -> None:
        """Say how slow this machine is; None where that is not known."""
        self._slowness = 1.0 if slowness is None else slowness
        if slowness is not None:
            self._weight = _MEASURED * sum(self._costs.values())
        self._start = self._clock()
        self.tick()

    def advance(self, outcome: Outcome) -> None:
        """Count a run that has ended."""
        self._ended += 1
        self._taken += outcome.seconds
        self._expected += self._costs[outcome.key]
        self._failed += outcome.failure is not None
        self._bar.update(self._costs[outcome.key])
        self._describe(self._labels[outcome.key])

    def tick(self) -> None:
        """Let the clock go on while no run ends."""
        self._describe()
        self._bar.refresh()

    def remaining(self) -> float | None:
        """Return the seconds that are left, as far as they can be known; None before that."""
        elapsed = self._clock() - self._start
        width = self._width
        if width is None:
            if not self._ended:
                return None
            width = max(1, round(self._taken / max(elapsed, 1e-9)))
        slowness = self._slowness
        if slowness is None:
            return None
        if self._expected and self._taken:
            slowness = (self._taken + self._weight * slowness) / (self._expected + self._weight)
        return max(0.0, slowness * sum(self._costs.values()) / width - elapsed)

    def _describe(self, label: str = "") -> None:
        self._bar.set_description_str(f"{self._ended} of {len(self._costs)} runs", refresh=False)
        left = self.remaining()
        parts = []
        if self._ended == len(self._costs):
            parts.append("done")
        elif self._slowness is None:
            parts.append("measuring this machine")
        elif left is None:
            parts.append("time left unknown")
        elif left == 0:
            parts.append("longer than estimated")
        else:
            parts.append(f"about {duration(left)} left")
        if self._failed:
            parts.append(f"{self._failed} failed")
        if label:
            parts.append(label)
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
