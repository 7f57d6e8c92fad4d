"""Notices that LCM is what a backlog waits for: all sessions are busy nearly all the time, and jobs wait for one."""

from __future__ import annotations

from worker.common.backoff import is_told
from worker.observability.log import Log

_NEARLY_ALL = 0.8  # of the time of all sessions
_REMEDY = (
    "LCM's sessions are busy all the time: see how long LCM takes to answer, and how many exchanges it leaves "
    "unanswered; where LCM admits more, raise lcm.sessions or start more workers"
)


class Slowness:
    """Sums up intervals of so many seconds, one after the other.

    Of the intervals in a row in which LCM is what jobs wait for, the log tells what `is_told` does.
    """

    def __init__(self, log: Log, interval: float) -> None:
        self._log = log
        self._interval = interval
        self._exchanges = self._unanswered = 0
        self._asked = 0.0
        self._intervals = 0

    def exchanged(self, result: str, seconds: float) -> None:
        """Take note of an exchange: `answered`, or an error's code; and for how long LCM was asked."""
        self._exchanges += 1
        self._unanswered += result != "answered"
        self._asked += seconds

    def look(self, *, sessions: int, waiting: int, is_out: bool) -> None:
        """End an interval, at whose end there are so many sessions, and so many lookups wait for one.

        Where LCM is out by then, or there is no session, that is what jobs wait for, and told elsewhere.
        """
        exchanges, unanswered, asked = self._exchanges, self._unanswered, self._asked
        self._exchanges, self._unanswered, self._asked = 0, 0, 0.0
        is_busy = asked >= _NEARLY_ALL * sessions * self._interval
        is_slow = is_busy and not is_out and min(exchanges, sessions, waiting) > 0
        self._intervals = self._intervals + 1 if is_slow else 0
        if is_slow and is_told(self._intervals):
            lcm_ms = round(asked / exchanges * 1000, 1)
            self._log.warning(
                "lcm.slow",
                lcm_ms=lcm_ms,
                exchanges=exchanges,
                unanswered=unanswered,
                sessions=sessions,
                waiting=waiting,
                remedy=_REMEDY,
            )
