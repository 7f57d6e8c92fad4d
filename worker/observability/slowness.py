"""Notices that LCM is what a backlog waits for: jobs wait longer for a session than LCM takes to answer them."""

from __future__ import annotations

from worker.common.backoff import is_told
from worker.contract.disposition import Disposition, Ending
from worker.observability.log import Log

_ENOUGH = 10  # jobs of an interval that tell something
_REMEDY = (
    "jobs wait longer for a session than LCM takes to answer: see LCM's response times, and where LCM admits more, "
    "raise lcm.sessions or start more workers"
)


class Slowness:
    """Sums up one interval after the other. `sessions` is how many the worker may hold.

    Of the intervals in a row in which waiting dominates, the log tells what `is_told` does.
    """

    def __init__(self, log: Log, sessions: int) -> None:
        self._log = log
        self._sessions = sessions
        self._jobs = 0
        self._asked = 0.0
        self._waited = 0.0
        self._intervals = 0

    def __call__(self, disposition: Disposition) -> None:
        """Take note of a delivery's end. Of those that LCM answered at once, the rest of the time is waiting."""
        found = disposition.lookup_result
        if disposition.ending is Ending.SUCCEEDED and found and disposition.exchanges == 1:
            asked = found.timing.seconds * 1000
            self._jobs += 1
            self._asked += asked
            self._waited += disposition.duration_ms - disposition.publish_ms - asked

    def look(self, *, waiting: int) -> None:
        """End an interval, at whose end so many lookups wait for a session."""
        jobs, asked, waited = self._jobs, self._asked, self._waited
        self._jobs, self._asked, self._waited = 0, 0.0, 0.0
        dominates = jobs >= _ENOUGH and waiting >= self._sessions and waited > asked
        self._intervals = self._intervals + 1 if dominates else 0
        if dominates and is_told(self._intervals):
            self._log.warning(
                "lcm.slow",
                lcm_ms=round(asked / jobs, 1),
                waited_ms=round(waited / jobs, 1),
                waiting=waiting,
                sessions=self._sessions,
                remedy=_REMEDY,
            )
