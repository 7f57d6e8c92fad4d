"""How long to wait before a session is opened."""

from __future__ import annotations

import pytest

from worker.lcm.pacing import ReconnectPace


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


def test_where_nobody_listens_the_delay_stays_the_first() -> None:
    """A closed port may be tried often, and what comes up behind it finds a delay that starts anew."""
    pace = ReconnectPace(1, 30)
    for _ in range(4):
        pace.failed(pace.attempt)
    assert pace.delay(ceiling) == 8
    for _ in range(100):
        pace.failed(pace.attempt, nobody_listens=True)
        assert pace.delay(ceiling) == 1
    delays = []
    for _ in range(3):
        pace.failed(pace.attempt)
        delays.append(pace.delay(ceiling))
    assert delays == [1, 2, 4]


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


def test_a_pause_that_lcm_asked_for_is_kept() -> None:
    """It comes before the backoff, which spreads the workers, until something else happens."""
    pace = ReconnectPace(1, 30)
    first, second = pace.attempt, pace.attempt
    pace.failed(first, pause=120)
    pace.failed(second)
    assert pace.delay(ceiling) == 121
    pace.failed(pace.attempt)
    assert pace.delay(ceiling) == 2
    pace.failed(pace.attempt, pause=120)
    pace.good_exchange()
    assert pace.delay(ceiling) == 0
