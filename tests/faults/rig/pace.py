"""How often somebody connected: counted over every window, and compared with what a backoff allows. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import count

# Event loops round their timers to a millisecond.
_EARLY = 0.01


def most_in_any(window: float, times: Sequence[float]) -> int:
    """Return the largest number of these times, in order, that lie within `window` seconds of each other."""
    return max((bisect_right(times, time + window) - at for at, time in enumerate(times)), default=0)


def shortest_wait(tries: int, first: float, longest: float) -> float:
    """Return the least that a backoff waits after so many tries: half of a doubling, but for what timers round."""
    return float(min(longest, first * 2**tries) / 2 - _EARLY)


def most_tries(seconds: float, first: float, longest: float) -> int:
    """Return how many tries such a backoff makes at most in so many seconds, one wait before each."""
    left = seconds
    for tries in count():
        left -= shortest_wait(tries, first, longest)
        if left < 0:
            return tries
    raise AssertionError  # a count has no end
