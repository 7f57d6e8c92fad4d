"""What the proxies of one test saw, in one order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

_ENOUGH = 3_000_000
"""Frames: 20,000 jobs make about 160,000 of them over AMQP, were each done once."""


class Direction(Enum):
    """Which way a frame travels, seen from the worker."""

    FROM_WORKER = "from the worker"
    TO_WORKER = "to the worker"


FROM_WORKER = Direction.FROM_WORKER
TO_WORKER = Direction.TO_WORKER

Match = Callable[[Any], bool]
"""Tells whether a frame is the one that is meant."""


class Seen(NamedTuple):
    """One frame: its place in the order, the connection's number over all proxies, its way, and what it is.

    A frame from the worker counts when the proxy has read it, held or not; one to the worker when it is let
    through. So the order is the one in which the worker can have acted.
    """

    seq: int
    connection: int
    direction: Direction
    frame: Any


class Recorder:
    """Numbers connections and frames. Several proxies may share one, and then one order.

    Past `limit` frames nothing more is kept, and `full` is true: a check of such a record would prove nothing.
    """

    def __init__(self, limit: int = _ENOUGH) -> None:
        self.entries: list[Seen] = []
        self.full = False
        self._limit = limit
        self._connections = 0
        self._waiting: list[tuple[Match, asyncio.Future[Seen]]] = []

    def new_connection(self) -> int:
        self._connections += 1
        return self._connections

    def note(self, connection: int, direction: Direction, frame: Any) -> None:
        seen = Seen(len(self.entries), connection, direction, frame)
        if len(self.entries) < self._limit:
            self.entries.append(seen)
        else:
            self.full = True
        for match, future in self._waiting:
            if not future.done() and match(frame):
                future.set_result(seen)

    def of(self, match: Match, *, since: int = 0) -> list[Seen]:
        """Return the entries from number `since` on that match."""
        return [seen for seen in self.entries[since:] if match(seen.frame)]

    async def first(self, match: Match, *, since: int = 0) -> Seen:
        """Wait for the first frame from number `since` on that matches."""
        if found := self.of(match, since=since):
            return found[0]
        found_later: asyncio.Future[Seen] = asyncio.get_running_loop().create_future()
        waiting = (match, found_later)
        self._waiting.append(waiting)
        try:
            return await found_later
        finally:
            self._waiting.remove(waiting)
