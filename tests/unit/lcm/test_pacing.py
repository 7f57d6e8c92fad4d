"""How long to wait before a session is opened, and before an exchange starts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.lcm.pacing import ExchangeRate, ReconnectPace


def ceiling(_low: float, high: float) -> float:
    """Draw the longest delay that may be drawn."""
    return high


def test_nothing_is_waited_for_while_all_is_well() -> None:
    """Without a failure sessions open at once."""
    pace = ReconnectPace(1, 30)
    assert (pace.delay(ceiling), pace.failing) == (0.0, False)


def test_delays_double_up_to_the_longest() -> None:
    """Each failure doubles the delay, until it is as long as allowed, however many more follow."""
    pace = ReconnectPace(1, 30)
    delays = []
    for _ in range(2000):
        pace.failed(pace.attempt)
        delays.append(pace.delay(ceiling))
    assert delays[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert set(delays[7:]) == {30}


def test_delays_are_drawn_from_the_upper_half() -> None:
    """The jitter's bounds are half the delay and all of it, so that workers don't come back together."""
    pace = ReconnectPace(4, 30)
    pace.failed(pace.attempt)
    drawn: list[tuple[float, float]] = []

    def lowest(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    assert pace.delay(lowest) == 2
    assert drawn == [(2, 4)]


def test_openings_that_fail_together_count_once() -> None:
    """Thirty-two openings that began at the same time and failed are one failure."""
    pace = ReconnectPace(1, 30)
    attempts = [pace.attempt for _ in range(32)]
    for attempt in attempts:
        pace.failed(attempt)
    assert pace.delay(ceiling) == 1


def test_a_refusal_waits_the_longest_until_something_else_happens() -> None:
    """After a 401 the longest delay holds from the first, so that nobody is locked out."""
    pace = ReconnectPace(1, 30)
    pace.failed(pace.attempt, refused=True)
    assert pace.delay(ceiling) == 30
    pace.failed(pace.attempt)
    assert pace.delay(ceiling) == 2


@pytest.mark.parametrize("refused", [False, True])
def test_a_good_exchange_ends_the_waiting(refused: bool) -> None:
    """Only a good exchange proves that LCM is well; then it starts from the beginning."""
    pace = ReconnectPace(1, 30)
    for _ in range(4):
        pace.failed(pace.attempt, refused=refused)
    pace.good_exchange()
    assert (pace.delay(ceiling), pace.failing) == (0.0, False)
    pace.failed(pace.attempt)
    assert pace.delay(ceiling) == 1


def test_without_a_rate_nothing_waits() -> None:
    """0 is no limit."""
    rate = ExchangeRate(0)
    assert [rate.reserve(5.0) for _ in range(3)] == [0, 0, 0]


def test_exchanges_are_spaced_evenly() -> None:
    """At four per second, each place is a quarter of a second after the one before."""
    rate = ExchangeRate(4)
    assert [rate.reserve(10.0) for _ in range(4)] == [0, 0.25, 0.5, 0.75]
    assert rate.reserve(10.5) == 0.5


def test_time_that_nobody_used_is_not_saved_up() -> None:
    """After a pause the next exchanges are spaced as ever: there is no burst."""
    rate = ExchangeRate(4)
    rate.reserve(0.0)
    assert [rate.reserve(100.0) for _ in range(3)] == [0, 0.25, 0.5]


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 2), min_size=2, max_size=50))
def test_the_rate_is_never_passed(per_second: float, pauses: list[float]) -> None:
    """Whenever places are asked for, no two of them are closer than the rate allows, and none is in the past."""
    rate, now, starts = ExchangeRate(per_second), 0.0, []
    for pause in pauses:
        now += pause
        wait = rate.reserve(now)
        assert wait >= 0
        starts.append(now + wait)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert min(gaps) >= 1 / per_second - 1e-9
