"""A deadline that is set and lifted thousands of times for each time that it passes, on one timer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Calls `on_passed` once a deadline that was set has passed: never before, and no later than a timer of its own.

    A timer that is armed stays so when the deadline is lifted, or set to a later time: having fired early, it is armed
    anew for what is left, if anything is.
    """

    def __init__(self, on_passed: Callable[[], object]) -> None:
        self._on_passed = on_passed
        self._loop = asyncio.get_running_loop()
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf

    def set(self, seconds: float) -> None:
        """Let so many seconds from now be the deadline, in place of an earlier one."""
        self._at = self._loop.time() + seconds
        if self._at < self._fires_at:
            self._arm()

    def lift(self) -> None:
        """Have no deadline."""
        self._at = math.inf

    def stop(self) -> None:
        """Have no deadline, and no timer that would hold on to this for a while."""
        self._at = self._fires_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = self._at
        self._timer = self._loop.call_at(self._at, self._fire)

    def _fire(self) -> None:
        self._timer, self._fires_at = None, math.inf
        if self._at > self._loop.time():
            if self._at < math.inf:
                self._arm()
            return
        self._at = math.inf
        self._on_passed()
