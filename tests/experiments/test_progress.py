"""The time that is left is the estimate, scaled by what the finished runs took."""

import pytest

from lgn_analysis.experiments.sweep import progress
from lgn_analysis.experiments.sweep.failures import Failure
from lgn_analysis.experiments.sweep.progress import SweepProgress
from lgn_analysis.experiments.sweep.workers import Outcome
from tests.experiments.sweep_program import tiny_specs


@pytest.fixture
def now(monkeypatch):
    """Four runs that are estimated at ten seconds each, and a clock that the test moves."""
    monkeypatch.setattr(progress, "cost", lambda spec: 10.0)
    return [100.0]


def bar_of(now, *, width, **options):
    return SweepProgress(tiny_specs(4), width=width, show=False, clock=lambda: now[0], **options)


def test_before_the_first_run_ends_the_estimate_is_all_there_is(now):
    with bar_of(now, width=2) as bar:
        assert bar.remaining() == 20.0
        now[0] += 5
        assert bar.remaining() == 15.0


def test_a_machine_half_as_fast_doubles_what_is_left(now):
    first, *_ = tiny_specs(4)
    with bar_of(now, width=2) as bar:
        now[0] += 20
        bar.advance(Outcome(first.key, seconds=20.0))
        assert bar.remaining() == 2 * 40 / 2 - 20


def test_what_was_measured_counts_most_until_many_runs_have_ended(now):
    """It weighs as much as a twentieth of the sweep, 2 of 40 seconds."""
    first, *_ = tiny_specs(4)
    with bar_of(now, width=2, slowness=None) as bar:
        assert bar.remaining() is None
        now[0] += 3
        bar.calibrate(3.0)
        assert bar.remaining() == 60.0
        now[0] += 20
        bar.advance(Outcome(first.key, seconds=20.0))
        assert bar.remaining() == pytest.approx((20 + 3 * 2) / (10 + 2) * 40 / 2 - 20)


def test_no_time_is_said_while_the_machine_is_measured(now, capsys):
    with SweepProgress(tiny_specs(4), width=2, slowness=None, clock=lambda: now[0]) as bar:
        bar.tick()
        before = capsys.readouterr().err
        bar.calibrate(None)
    assert "measuring this machine" in before
    assert "left" not in before
    assert "about 20 s left" in capsys.readouterr().err


def test_how_many_run_at_once_is_seen_from_the_finished_runs(now):
    specs = tiny_specs(4)
    with bar_of(now, width=None) as bar:
        assert bar.remaining() is None
        now[0] += 10
        for spec in specs[:2]:
            bar.advance(Outcome(spec.key, seconds=10.0))
        assert bar.remaining() == 10.0


def test_the_bar_says_how_far_it_is_and_what_failed(now, capsys):
    done, failed, *_ = specs = tiny_specs(4)
    with SweepProgress(specs[1:], [done], width=1, clock=lambda: now[0]) as bar:
        now[0] += 4
        bar.tick()
        failure = Failure.of(failed.key, failed.label, failed, "lost")
        bar.advance(Outcome(failed.key, seconds=10.0, failure=failure))
        bar.tick()
        now[0] += 60
        bar.tick()
    said = capsys.readouterr().err
    assert "0 of 3 runs  25%" in said
    assert "about 26 s left" in said
    assert "1 of 3 runs  50%" in said
    assert "1 failed" in said
    assert "longer than estimated" in said
