"""A deadline that is set and lifted thousands of times for each time that it passes, on one timer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from worker.common.callbacks import ignore


class Deadline:
    """Makes a call once the deadline that was set last has passed: never before, and no later than a timer of its own.

    A timer that is armed stays so when the deadline is lifted, or set to a later time: having fired early, it is armed
    anew for what is left, if anything is.
    """

    def __init__(self) -> None:
        self._on_passed: Callable[[], object] = ignore
        self._loop = asyncio.get_running_loop()
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf

    def set(self, seconds: float, on_passed: Callable[[], object]) -> None:
        """Let so many seconds from now be the deadline, and this the call, in place of those before."""
        self._on_passed = on_passed
        self._at = self._loop.time() + seconds
        if self._at < self._fires_at:
            self._arm()

    def lift(self) -> None:
        """Have no deadline."""
        self._at = math.inf
        # Nor a hold on who waited, who may hold this: such a circle has to be collected.
        self._on_passed = ignore

    def stop(self) -> None:
        """Have no deadline, and no timer that would hold on to this for a while."""
        self.lift()
        self._fires_at = math.inf
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
        on_passed = self._on_passed
        self.lift()
        on_passed()
