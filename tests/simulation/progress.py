"""How far a long run has come: shown on a terminal, not in a pipe."""

from __future__ import annotations

import sys
import time
from typing import Self

_EVERY = 0.5


class Progress:
    """Shows a line that is written over and over, and in the end stays."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._shown_at = self._began = time.monotonic()
        self._shows = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shows:
            self._show()
            sys.stderr.write("\n")

    def add(self, done: int) -> None:
        self._done += done
        if self._shows and time.monotonic() - self._shown_at >= _EVERY:
            self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        rate = self._done / max(self._shown_at - self._began, 0.001)
        sys.stderr.write(f"\r{self._done:,} of {self._total:,} schedules, {rate:,.0f} per second ")
        sys.stderr.flush()
