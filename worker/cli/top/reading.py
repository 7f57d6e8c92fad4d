"""Parses the bytes of a log into events. Pure.

What is not a line of a worker's JSON log is skipped and counted: the output of other programs, an incomplete line,
one that is too long to be kept in memory, one of a year that no clock shows, or one with a number beyond all measure.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

LONGEST_LINE = 1 << 20
# Beyond them, offsets and ends of time slots lead out of the years that dates can have.
_YEARS = range(1970, 3000)
# In milliseconds 3,000 years: an odd clock, or a job without a date, is no reason to skip a line.
Quantity = Annotated[float, msgspec.Meta(ge=-1e14, le=1e14)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class Event(msgspec.Struct, gc=False):
    """A line of the log: the fields that all lines have, and those of the others that are counted or shown.

    A timestamp without an offset is UTC.
    """

    timestamp: datetime
    level: str
    event: str
    worker: str
    duration_ms: Quantity | None = None
    lcm_ms: Quantity | None = None
    queue_ms: Quantity | None = None
    publish_ms: Quantity | None = None
    error: str | None = None
    reason: str | None = None
    said: str | None = None
    remedy: str | None = None
    message: str | None = None
    exception: str | None = None
    role: str | None = None
    still_paused: list[str] | None = None
    seconds: Quantity | None = None
    stats_interval: Quantity | None = None
    in_flight: Count = 0
    busy: Count = 0
    idle: Count = 0
    opening: Count = 0
    waiting: Count = 0
    fleet_workers: Count | None = None
    fleet_sessions: Count | None = None


_decode = msgspec.json.Decoder(Event).decode


def event_of(line: bytes) -> Event | None:
    """Return the event of a line, None where it is none. Text before the first brace is ignored as a prefix."""
    start = line.find(b"{")
    if start < 0:
        return None
    try:
        event = _decode(line[start:] if start else line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event if event.timestamp.year in _YEARS else None


class Reader:
    """Parses a log that comes in pieces. Keeps at most one line in memory."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self.lines = 0
        self.skipped = 0
        self._longest = longest
        self._unfinished = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[Event]:
        """Parse the next piece; return the events of the lines that are complete with it."""
        lines = (self._unfinished + data).split(b"\n")
        self._unfinished = lines.pop()
        if lines and (self._skipping or len(lines[0]) > self._longest):
            del lines[0]
            self._end_skipping()
        if self._skipping or len(self._unfinished) > self._longest:
            self._unfinished = b""
            self._skipping = True
        return self._events(lines)

    def end(self) -> list[Event]:
        """End the log; return the event of a last line without a line break, if it is one."""
        if self._skipping:
            self._end_skipping()
        last, self._unfinished = self._unfinished, b""
        return self._events([last])

    def _end_skipping(self) -> None:
        self._skipping = False
        self.lines += 1
        self.skipped += 1

    def _events(self, lines: list[bytes]) -> list[Event]:
        lines = [line for line in lines if line and not line.isspace()]
        events = [event for event in map(event_of, lines) if event is not None]
        self.lines += len(lines)
        self.skipped += len(lines) - len(events)
        return events
