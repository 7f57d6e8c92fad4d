"""How long to wait between two tries, and which of them are told."""

from __future__ import annotations

from worker.common.backoff import Telling, backoff, is_told


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


def test_what_is_new_or_slow_is_told_each_time() -> None:
    """Only failures that are tried again fast, and that say the same, are told ever less often."""
    telling = Telling()
    said = [("away", 1, True), ("away", 2, True), ("away", 3, True), ("HTTP 503", 3, True), ("away", 5, True)]
    assert [telling.tells(why, failures, fast=fast) for why, failures, fast in said] == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert [telling.tells("away", failures, fast=False) for failures in range(5, 9)] == [True] * 4
    assert [telling.tells("away", failures, fast=True) for failures in (9, 32, 33)] == [False, True, False]
