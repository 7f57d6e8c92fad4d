"""Bounds the bytes of the deliveries in hand: over the limit nothing more is read from the broker for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from worker.contract.job import MAX_BODY

_LEAST_LIMIT = 8 * 1024 * 1024
_LONGEST = 15.0  # seconds without reading; heartbeats go unread, and the library gives up after some 50
_PATIENCE = 5.0  # seconds for which `settled` waits


def limit_for(prefetch: int) -> int:
    """Return the bytes above which reading stops: more than `prefetch` jobs of the size that is accepted."""
    return max(_LEAST_LIMIT, prefetch * MAX_BODY)


class BytesInHand:
    """Counts what is in hand, and calls `read` with false where it is over the limit, with true when it no longer is.

    The broker sends up to the prefetch without asking, so bodies that are measured only after they were received could
    fill the memory. They are failed at once, and make room. One more is read after 15 s in any case.
    """

    def __init__(self, read: Callable[[bool], object], limit: int) -> None:
        self._read = read
        self._limit = limit
        self._count = 0
        self._stopped: asyncio.TimerHandle | None = None
        self._enough = asyncio.Event()
        self._enough.set()

    def __repr__(self) -> str:
        return f"<BytesInHand {self._count}, {'reading' if self._stopped is None else 'not reading'}>"

    def took(self, count: int) -> None:
        """Count a delivery that came."""
        self._count += count
        if self._count > self._limit:
            self._enough.clear()
            self._stop()

    def left(self, count: int) -> None:
        """Count a delivery no more."""
        self._count -= count
        if self._count <= self._limit:
            self._enough.set()
            self._go_on()

    async def settled(self) -> None:
        """Wait until what is in hand is within the limit, 5 s at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._enough.wait()

    def _stop(self) -> None:
        self._read(False)  # each time: the connection may be a new one
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().call_later(_LONGEST, self._go_on)

    def _go_on(self) -> None:
        if self._stopped is not None:
            self._stopped.cancel()
            self._stopped = None
            self._read(True)
