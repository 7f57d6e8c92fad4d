"""Exponential backoff with jitter. Pure: the random number comes in.

Used for links, publishes, sessions and probes; `lcm/retry` has full jitter of its own, by tenacity.
"""

from __future__ import annotations

from collections.abc import Callable

Jitter = Callable[[float, float], float]
"""Draws a number between its two arguments, as random.uniform does."""

_MOST_DOUBLINGS = 63
_TOLD_AGAIN = 32


def backoff(first: float, longest: float, doublings: float, jitter: Jitter) -> float:
    """Return the seconds to wait: between half and all of `first`, doubled so often, but at most `longest`."""
    ceiling = min(longest, first * 2.0 ** min(doublings, _MOST_DOUBLINGS))
    return jitter(ceiling / 2, ceiling)


class Telling:
    """Which of the failures in a row the log tells, where it is tried again so fast that all of them would flood it."""

    def __init__(self) -> None:
        self._last = ""

    def tells(self, why: str, failures: int, *, fast: bool) -> bool:
        """Whether it tells this one: what is new, what is not tried again `fast`, and of the others what `is_told`."""
        is_new, self._last = why != self._last, why
        return is_new or not fast or is_told(failures)


def is_told(failures: int) -> bool:
    """Whether the log tells the last of so many failures in a row, of which there is one in each second or more."""
    return failures.bit_count() == 1 or failures % _TOLD_AGAIN == 0
