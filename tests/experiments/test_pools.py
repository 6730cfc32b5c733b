"""The loop of a sweep: no more runs in flight than there are slots, and none lost with a pool."""

import math
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from lgn_analysis.experiments.sweep.pools import outcomes
from lgn_analysis.experiments.sweep.workers import Outcome
from tests.experiments.sweep_program import tiny_specs

SPECS = tiny_specs(5)
KEYS = sorted(spec.key for spec in SPECS)


class Pool:
    """Ends a run when it is full; breaks down with the runs in ``deadly``, once each."""

    def __init__(self, slots, deadly=(), error=BrokenProcessPool):
        self.slots, self.deadly, self.error = slots, {spec.key for spec in deadly}, error
        self.running, self.most, self.recovered = [], 0, []

    def submit(self, spec):
        future = Future()
        self.running.append((future, spec))
        self.most = max(self.most, len(self.running))
        if len(self.running) == min(self.slots, len(SPECS)) or spec is SPECS[-1]:
            for running, ended in self.running:
                if ended.key in self.deadly and self.error is CancelledError:
                    running.cancel()
                    running.set_running_or_notify_cancel()
                elif ended.key in self.deadly:
                    running.set_exception(self.error("gone"))
                else:
                    running.set_result(Outcome(ended.key, 1.0))
            self.running = []
        return future

    def recover(self, lost, error):
        assert isinstance(error, self.error)
        self.recovered += [spec.key for spec in lost]
        for spec in lost:
            yield Outcome(spec.key, 2.0)


@pytest.mark.parametrize("slots", [1, 2, math.inf])
def test_every_run_ends_once_and_slots_are_kept(slots):
    pool = Pool(slots)
    assert sorted(outcome.key for outcome in outcomes(SPECS, pool)) == KEYS
    assert pool.most == min(slots, len(SPECS))


@pytest.mark.parametrize("error", [BrokenProcessPool, CancelledError])
def test_what_finished_beside_a_break_is_kept_and_the_rest_is_recovered(error):
    pool = Pool(2, deadly=[SPECS[2]], error=error)
    found = {outcome.key: outcome.seconds for outcome in outcomes(SPECS, pool)}
    assert pool.recovered == [SPECS[2].key]
    assert found == {spec.key: 2.0 if spec is SPECS[2] else 1.0 for spec in SPECS}


def test_a_pool_that_breaks_while_a_run_is_submitted_loses_it_not():
    pool = Pool(1)
    submit, refused = pool.submit, []

    def breaking(spec):
        if spec is SPECS[1] and not refused:
            refused.append(spec)
            raise BrokenProcessPool("gone")
        return submit(spec)

    pool.submit = breaking
    assert sorted(outcome.key for outcome in outcomes(SPECS, pool)) == KEYS
    assert pool.recovered == []


def test_a_loop_that_is_closed_cancels_what_waits():
    class Slow(Pool):
        def submit(self, spec):
            self.running.append(Future())
            if len(self.running) == 1:
                self.running[0].set_result(Outcome(spec.key, 1.0))
            return self.running[-1]

    pool = Slow(3)
    loop = outcomes(SPECS, pool)
    next(loop)
    loop.close()
    assert [future.cancelled() for future in pool.running] == [False, True, True]
