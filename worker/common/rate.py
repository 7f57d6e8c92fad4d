"""A rate limit by even spacing. Pure: `now` comes in."""

from __future__ import annotations


class Rate:
    """Spaces events evenly, at most `per_second` of them; 0 is no limit."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = 0.0

    def reserve(self, now: float) -> float:
        """Take the next place and return the seconds to wait for it."""
        if not self._interval:
            return 0.0
        place = max(now, self._next)
        self._next = place + self._interval
        return place - now
