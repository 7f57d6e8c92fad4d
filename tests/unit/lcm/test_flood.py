"""How many messages a peer may send of its own accord."""

from __future__ import annotations

from worker.lcm.flood import FLOOD_SECONDS, MOST_UNSOLICITED, FloodCounter


def test_so_many_in_a_window_are_taken_and_one_more_is_not() -> None:
    """The last one of the window is no flood, the next one is."""
    counter = FloodCounter()
    assert not any(counter.exceeded(100 + number / 1000) for number in range(MOST_UNSOLICITED))
    assert counter.exceeded(100 + FLOOD_SECONDS / 2)


def test_each_window_has_its_own_count() -> None:
    """As many again are taken once the window is over, however long that goes on."""
    counter = FloodCounter()
    for window in range(5):
        start = window * FLOOD_SECONDS
        assert not any(counter.exceeded(start + number / 1000) for number in range(MOST_UNSOLICITED))
