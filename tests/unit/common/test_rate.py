"""What may happen so many times per second is spaced evenly."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.common.rate import Rate


def test_without_a_rate_nothing_waits() -> None:
    """0 is no limit."""
    rate = Rate(0)
    assert [rate.reserve(5.0) for _ in range(3)] == [0, 0, 0]


def test_places_are_spaced_evenly() -> None:
    """At four per second, each place is a quarter of a second after the one before."""
    rate = Rate(4)
    assert [rate.reserve(10.0) for _ in range(4)] == [0, 0.25, 0.5, 0.75]
    assert rate.reserve(10.5) == 0.5


def test_time_that_nobody_used_is_not_saved_up() -> None:
    """After a pause the next places are spaced as ever: there is no burst."""
    rate = Rate(4)
    rate.reserve(0.0)
    assert [rate.reserve(100.0) for _ in range(3)] == [0, 0.25, 0.5]


def test_an_event_that_is_late_is_followed_by_none_at_once() -> None:
    """Its successors keep their distance from when it took place, but for what timers are late ordinarily."""
    rate = Rate(4)
    assert [rate.reserve(10.0), rate.reserve(10.0)] == [0, 0.25]
    rate.begin(10.252)
    assert rate.reserve(10.252) == pytest.approx(0.248)
    rate.begin(12.0)
    assert rate.reserve(12.0) == pytest.approx(0.245)


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 2), min_size=2, max_size=50))
def test_the_rate_is_never_passed(per_second: float, pauses: list[float]) -> None:
    """Whenever places are asked for, no two of them are closer than the rate allows, and none is in the past."""
    rate, now, starts = Rate(per_second), 0.0, []
    for pause in pauses:
        now += pause
        wait = rate.reserve(now)
        assert wait >= 0
        starts.append(now + wait)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert min(gaps) >= 1 / per_second - 1e-9
