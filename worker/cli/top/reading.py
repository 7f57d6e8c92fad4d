"""From the bytes of a log to its events. Pure.

What isn't a line of a worker's JSON log is skipped and counted: text that another program wrote, a line that was
cut, or one that is too long to be held.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

LONGEST_LINE = 1 << 20


class Event(msgspec.Struct, gc=False):
    """A line of the log: what every line has, and of the others' fields what is counted or shown.

    Without an offset, the timestamp is UTC, as are all of the log.
    """

    timestamp: datetime
    level: str
    event: str
    worker: str
    duration_ms: float | None = None
    lcm_ms: float | None = None
    queue_ms: float | None = None
    publish_ms: float | None = None
    error: str | None = None
    reason: str | None = None
    said: str | None = None
    remedy: str | None = None
    message: str | None = None
    exception: str | None = None
    role: str | None = None
    still_paused: list[str] | None = None
    seconds: float | None = None
    in_flight: int = 0
    busy: int = 0
    idle: int = 0
    opening: int = 0
    waiting: int = 0


_decode = msgspec.json.Decoder(Event).decode


def event_of(line: bytes) -> Event | None:
    """Return the event of a line, None where it is none; what stands before the first brace is taken for a prefix."""
    start = line.find(b"{")
    if start < 0:
        return None
    try:
        return _decode(line[start:] if start else line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Reader:
    """Is fed a log in pieces, as they come, and gives its events; holds a line at most."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self.lines = 0
        self.skipped = 0
        self._longest = longest
        self._begun = b""
        self._passing_over = False

    def feed(self, data: bytes) -> list[Event]:
        """Take the next piece; return the events whose lines are complete."""
        lines = (self._begun + data).split(b"\n")
        self._begun = lines.pop()
        if lines and (self._passing_over or len(lines[0]) > self._longest):
            del lines[0]
            self._passed_over()
        if self._passing_over or len(self._begun) > self._longest:
            self._begun = b""
            self._passing_over = True
        return self._events(lines)

    def end(self) -> list[Event]:
        """Take note that no more comes; return the event of a last line without a line break, if it is one."""
        if self._passing_over:
            self._passed_over()
        last, self._begun = self._begun, b""
        return self._events([last])

    def _passed_over(self) -> None:
        self._passing_over = False
        self.lines += 1
        self.skipped += 1

    def _events(self, lines: list[bytes]) -> list[Event]:
        lines = [line for line in lines if line and not line.isspace()]
        events = [event for event in map(event_of, lines) if event is not None]
        self.lines += len(lines)
        self.skipped += len(lines) - len(events)
        return events
