"""Why no deliveries are taken at present, and what the log tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from worker.contract.intake import PauseReason
from worker.observability.log import Log


class Pauses:
    """The reasons for a pause, each begun and ended by itself.

    Of those that it begins with it tells nothing, unless one is given again as a reason before it has ended.
    """

    def __init__(self, reasons: Iterable[PauseReason], log: Log) -> None:
        self._reasons = set(reasons)
        self._untold = set(self._reasons)
        self._log = log
        self.over = asyncio.Event()
        """Is set once the last reason has ended."""

    @property
    def reasons(self) -> frozenset[PauseReason]:
        return frozenset(self._reasons)

    def begin(self, reason: PauseReason) -> bool:
        """Pause for this reason; return whether that is news."""
        if reason in self._reasons and reason not in self._untold:
            return False
        self._reasons.add(reason)
        self._untold.discard(reason)
        self.over.clear()
        self._log.warning("worker.paused", reason=reason.value)
        return True

    def end(self, reason: PauseReason) -> bool:
        """Pause no longer for this reason; return whether that is news."""
        if reason not in self._reasons:
            return False
        self._reasons.remove(reason)
        if not self._reasons:
            self.over.set()
        if reason in self._untold:
            self._untold.remove(reason)
        else:
            still_paused = sorted(other.value for other in self._reasons)
            self._log.info("worker.resumed", reason=reason.value, still_paused=still_paused)
        return True
