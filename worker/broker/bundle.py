"""Frames of one connection that are written close to each other go out in one write.

A write costs a system call, and what it sends wakes whoever reads it. A busy worker would make several in each
millisecond, for acks and publishes; a few milliseconds' worth of them is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

APART = 0.002
"""Seconds between two writes: what is added meanwhile waits that long for the others."""


class Bundle:
    """Writes what is added: at once, but where the last write was less than `APART` seconds ago."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._written_at = 0.0

    def add(self, frames: bytes) -> None:
        """Write whole frames, soon."""
        self._waiting.append(frames)
        if self._timer is None:
            due = self._written_at + APART
            if self._loop.time() >= due:
                self.flush()
            else:
                self._timer = self._loop.call_at(due, self.flush)

    def flush(self) -> None:
        """Write what waits; to be called before anything else is written to the connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            frames = b"".join(self._waiting)
            self._waiting.clear()
            self._written_at = self._loop.time()
            self._write(frames)
