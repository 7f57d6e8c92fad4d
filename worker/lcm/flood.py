"""How much a peer may send of its own accord: limits, and a counter per time. Pure: `now` comes in."""

from __future__ import annotations

MOST_UNSOLICITED = 1000
"""Messages, and likewise pings and pongs, that a session takes within FLOOD_SECONDS without having asked for them."""

FLOOD_SECONDS = 10.0

MOST_UNSENT = 1024 * 1024
"""Bytes that wait for a peer that does not read: the worker's own requests are far smaller."""

MOST_FRAGMENTS = 4096
"""Frames that one message may come in, or all within FLOOD_SECONDS that nobody asked for: each costs its time and its
object, however few bytes it brings."""


class FloodCounter:
    """Counts events in windows of FLOOD_SECONDS, in which there may be so many at most."""

    def __init__(self, most: int = MOST_UNSOLICITED) -> None:
        self._most = most
        self._began = float("-inf")
        self._count = 0

    def exceeded(self, now: float) -> bool:
        """Count an event at `now`; return whether there were too many in this window."""
        if now - self._began >= FLOOD_SECONDS:
            self._began, self._count = now, 0
        self._count += 1
        return self._count > self._most

    def restart(self) -> None:
        """Begin another window with the next event."""
        self._began = float("-inf")
