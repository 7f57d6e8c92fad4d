"""A rate limit by even spacing, which may change. Pure: `now` comes in."""

from __future__ import annotations

_TIMERS_ARE_LATE = 0.005  # seconds


class Rate:
    """Spaces events evenly, at most `per_second` of them; 0 is no limit."""

    def __init__(self, per_second: float) -> None:
        self._next = 0.0
        self.set(per_second)

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return bool(self._interval)

    def set(self, per_second: float) -> None:
        """Space events so from the next one on."""
        self._interval = 1 / per_second if per_second else 0.0

    def begin(self, now: float) -> None:
        """Take note of when the event of the last place begins.

        One that is late, since the machine was busy, delays those after it: they would follow at once. What timers are
        late ordinarily is made up for, or a high rate would not be reached.
        """
        self._next = max(self._next, now + self._interval - _TIMERS_ARE_LATE)

    def reserve(self, now: float) -> float:
        """Take the next place and return the seconds to wait for it."""
        if not self._interval:
            return 0.0
        place = max(now, self._next)
        self._next = place + self._interval
        return place - now
