"""What a long run is at, on a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
import time

_CLEAR = "\r\x1b[K"


class Progress:
    """One line of standard error that is written anew; `doing` says what is measured now."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._began = time.monotonic()

    def doing(self, what: str) -> None:
        if self._shown:
            minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
            self._write(f"{_CLEAR}{minutes:2}:{seconds:02}  {what}")

    def done(self) -> None:
        if self._shown:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
