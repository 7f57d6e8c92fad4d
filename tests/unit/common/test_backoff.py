"""How long to wait between two tries, and which of them are told."""

from __future__ import annotations

from worker.common.backoff import backoff, is_told


def test_pauses_double_between_half_and_all_of_a_ceiling() -> None:
    """The ceiling doubles from the first to the longest, however often."""
    drawn = []

    def lowest(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    for doublings in (0, 1, 2, 5, 10_000):
        backoff(0.5, 10, doublings, lowest)
    assert drawn == [(0.25, 0.5), (0.5, 1), (1, 2), (5, 10), (5, 10)]


def test_fast_failures_are_told_ever_less_often_but_never_stop_being_told() -> None:
    """The first ones are told at once, later ones once in 32."""
    told = [number for number in range(1, 200) if is_told(number)]
    assert told == [1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192]
