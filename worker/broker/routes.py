"""Which routes take no messages at present, and when each may be tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PAUSE = 30.0
LONGEST_PAUSE = 600.0
_MOST = 1000
"""How many routes are remembered; producers choose their names, so their number has no bound of its own."""


@dataclass(slots=True)
class Trouble:
    """A route that takes nothing: why, since when, when it may be tried next, and how many messages met it.

    `refused` where the broker refused, rather than returned or ignored, a message. Times are in seconds.
    """

    reason: str
    refused: bool
    since: float
    next_try: float
    pause: float
    kept: int = 0


class Routes:
    """The routes that take no messages. One message at a time, the canary, tries whether a route takes them again.

    A canary goes after `first_pause` seconds; the pause doubles up to `longest_pause` while none gets through.
    """

    def __init__(self, first_pause: float = FIRST_PAUSE, longest_pause: float = LONGEST_PAUSE) -> None:
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._troubles: dict[str, Trouble] = {}

    def __contains__(self, route: str) -> bool:
        return route in self._troubles

    def __getitem__(self, route: str) -> Trouble:
        return self._troubles[route]

    def admits(self, route: str, now: float) -> bool:
        """Tell whether a message may be sent; where the route takes nothing, to one canary each time it is due."""
        trouble = self._troubles.get(route)
        if trouble is None:
            return True
        if now < trouble.next_try:
            return False
        trouble.pause = min(2 * trouble.pause, self._longest_pause)
        trouble.next_try = now + trouble.pause
        return True

    def not_taken(self, route: str, reason: str, now: float, *, refused: bool) -> bool:
        """Take note that a message was not taken; return whether the route took messages until now."""
        trouble = self._troubles.get(route)
        if trouble is not None:
            trouble.reason, trouble.refused = reason, refused or trouble.refused
            return False
        if len(self._troubles) >= _MOST:
            del self._troubles[next(iter(self._troubles))]
        self._troubles[route] = Trouble(reason, refused, now, now + self._first_pause, self._first_pause)
        return True

    def taken(self, route: str) -> Trouble | None:
        """Take note that a message was taken; return the trouble that is over, None where there was none."""
        return self._troubles.pop(route, None) if self._troubles else None

    def next_try(self) -> float | None:
        """Return when the next canary is due; None where every route takes messages."""
        return min((trouble.next_try for trouble in self._troubles.values()), default=None)
