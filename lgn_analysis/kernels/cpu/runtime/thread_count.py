"""How many threads a kernel is given: those that take the least time, other programs being there."""

from __future__ import annotations

import math
from typing import Final

TRIAL_SHARE: Final = 0.04
"""The fraction of the time that another number of threads than the best one may take."""
_MEMORY: Final = 4
"""Calls over which the time of the best number is averaged."""


class ThreadCount:
    """The number of threads for one kind of work, which every call repeats.

    Threads that wait for each other go at the pace of the slowest: where another program has one of
    their cores, fewer can take less time. So half as many and twice as many are tried in turns, and
    kept where a call took less time than calls did lately. No result depends on the number.

    Args:
        most: threads at most; the first call has them all.
    """

    def __init__(self, most: int) -> None:
        self.best = most
        self._most = most
        self._seconds = math.inf  # of a call with the best number, lately
        self._since_trial = 0.0
        self._trial = 0.0
        self._tries_more = False

    def choose(self) -> int:
        """Return how many threads the next call is to have."""
        is_due = self._since_trial * TRIAL_SHARE > self._trial
        if not is_due:
            return self.best
        fewer, more = max(1, self.best // 2), min(self._most, 2 * self.best)
        self._tries_more = more > self.best and (not self._tries_more or fewer == self.best)
        return more if self._tries_more else fewer

    def note(self, n_threads: int, seconds: float) -> None:
        """Take into account how long a call took."""
        if n_threads == self.best:
            lately = seconds if self._seconds == math.inf else self._seconds
            self._seconds = lately + (seconds - lately) / _MEMORY
            self._since_trial += seconds
            return
        self._trial, self._since_trial = seconds, 0.0
        if seconds < self._seconds:
            self.best, self._seconds = n_threads, seconds
