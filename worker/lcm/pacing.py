"""When the next session may be opened, and when the next exchange may start. Pure: `now` comes in."""

from __future__ import annotations

import math

from worker.backoff import Jitter, backoff


class ReconnectPace:
    """How long to wait before opening a session, from how the last ones fared.

    A session that opens proves nothing: a peer that accepts and closes would be called upon thousands of times
    a second. So only a good exchange ends the waiting. Sessions that fail together count once: `attempt` is
    taken when an opening starts, and handed back when it failed.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0
        self._refused = False

    @property
    def failing(self) -> bool:
        return self._failures > 0

    @property
    def attempt(self) -> int:
        return self._failures

    def delay(self, jitter: Jitter) -> float:
        """Return the seconds to wait now: none while all is well, else between half and all of a doubling."""
        if not self._failures:
            return 0.0
        # A peer that says 401 or shows a wrong certificate locks out those who insist.
        doublings = math.inf if self._refused else self._failures - 1
        return backoff(self._first, self._longest, doublings, jitter)

    def failed(self, attempt: int, *, refused: bool = False) -> bool:
        """Take note of a failure; return whether it counts, as the first of those that fail together does."""
        counts = attempt == self._failures
        self._failures += counts
        self._refused = refused
        return counts

    def good_exchange(self) -> None:
        self._failures = 0
        self._refused = False


class ExchangeRate:
    """Spaces exchanges evenly, at most `per_second` of them; 0 is no limit."""

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
