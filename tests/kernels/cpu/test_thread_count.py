"""How many threads are chosen, by pretended times of calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lgn_analysis.kernels.cpu.runtime import thread_count
from lgn_analysis.kernels.cpu.runtime.thread_count import ThreadCount

SHARE = thread_count.TRIAL_SHARE


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch, small_work_is_shared_out: None) -> None:
    """Other tests here want all threads in every call."""
    monkeypatch.setattr(thread_count, "TRIAL_SHARE", SHARE)


def play(count: ThreadCount, seconds: Callable[[int], float], n_calls: int) -> dict[int, float]:
    """Make calls that take ``seconds(n_threads)`` and return how long those of each number took."""
    spent: dict[int, float] = {}
    for _ in range(n_calls):
        n = count.choose()
        spent[n] = spent.get(n, 0.0) + seconds(n)
        count.note(n, seconds(n))
    return spent


def undisturbed(n: int) -> float:
    return 1.0 / n


def disturbed(n: int) -> float:
    return 1.0 if n == 1 else 6.0


def test_the_first_call_has_all_threads() -> None:
    assert ThreadCount(3).choose() == 3


def test_an_undisturbed_machine_keeps_all_threads_and_loses_little_by_trials() -> None:
    count = ThreadCount(2)
    spent = play(count, undisturbed, 1000)
    assert count.best == 2
    assert spent[1] <= SHARE * spent[2] + 1.0


def test_a_disturbed_machine_has_one_and_tries_two_no_longer_than_their_share() -> None:
    count = ThreadCount(2)
    spent = play(count, disturbed, 1000)
    assert count.best == 1
    assert spent[2] <= SHARE * spent[1] + 2 * 6.0


def test_threads_come_back_when_the_neighbour_has_gone() -> None:
    count = ThreadCount(2)
    play(count, disturbed, 100)
    assert count.best == 1
    spent = play(count, undisturbed, 300)
    assert count.best == 2
    assert spent[1] < spent[2]


@pytest.mark.parametrize("best", [1, 2, 4, 8])
def test_a_number_in_between_is_found_by_halving_and_doubling(best: int) -> None:
    count = ThreadCount(8)
    play(count, lambda n: 1.0 + abs(n - 1), 500)
    assert count.best == 1
    play(count, lambda n: 1.0 + abs(n - best), 1000)
    assert count.best == best


def test_without_a_share_for_trials_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_count, "TRIAL_SHARE", 0.0)
    assert play(ThreadCount(2), disturbed, 100).keys() == {2}
