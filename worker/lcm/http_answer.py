"""LCM's HTTP answer to the handshake: its status, and how long it asks to be left alone. Pure: `now` comes in.

Read from the bytes as they come, since the body of an answer may never end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_HEAD = 64 * 1024
LONGEST_PAUSE = 600.0
"""Seconds: a peer that asks for more, by mistake perhaps, is not heard for the rest."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
# Without alternatives between blanks: a hostile peer could make such a pattern take seconds.
_RETRY_AFTER = re.compile(rb"\r\nretry-after:([^\r\n]*)\r\n", re.IGNORECASE)
_BUSY = frozenset({429, 503})
_SWITCHING = 101


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that opens no websocket."""

    status: int
    retry_after: str = ""

    @property
    def is_busy(self) -> bool:
        """Whether it says that it is asked too much, for now."""
        return self.status in _BUSY

    def pause(self, now: datetime) -> float:
        """Return for how many seconds it asks to be left alone."""
        if not (self.is_busy and self.retry_after):
            return 0.0
        if self.retry_after.isdecimal():
            return float(self.retry_after[:12])
        try:
            until = parsedate_to_datetime(self.retry_after)
        except (ValueError, OverflowError):
            return 0.0
        aware = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(0.0, (aware - now).total_seconds())

    def told(self, now: datetime) -> tuple[str, float]:
        """Say what it answered, and return the pause that is kept."""
        asked = self.pause(now)
        kept = min(asked, LONGEST_PAUSE)
        text = f"answered HTTP {self.status}"
        if asked:
            text += f", asking for a pause of {asked:.0f} s (Retry-After)"
        if kept < asked:
            text += f", of which {kept:.0f} s are kept"
        return text, kept


def read_answer(head: bytes) -> Answer | None:
    """Read as much of an answer as has come; None where its status has not, or opens a websocket."""
    status = _STATUS.match(head)
    if status is None or (code := int(status[1])) == _SWITCHING:
        return None
    after = _RETRY_AFTER.search(head.partition(b"\r\n\r\n")[0] + b"\r\n")
    return Answer(code, after[1].decode("latin-1").strip() if after else "")
