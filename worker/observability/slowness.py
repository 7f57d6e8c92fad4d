"""Notices that LCM is what a backlog waits for: all sessions are busy nearly all the time, and jobs wait for one."""

from __future__ import annotations

from worker.common.backoff import is_told
from worker.contract.disposition import Disposition
from worker.observability.log import Log

_NEARLY_ALL = 0.8  # of the time of all sessions
_REMEDY = (
    "LCM's sessions are busy all the time: see how long LCM takes to answer, and where LCM admits more, raise "
    "lcm.sessions or start more workers"
)


class Slowness:
    """Sums up intervals of so many seconds, one after the other.

    Of the intervals in a row in which LCM is what jobs wait for, the log tells what `is_told` does.
    """

    def __init__(self, log: Log, interval: float) -> None:
        self._log = log
        self._interval = interval
        self._exchanges = 0
        self._asked = 0.0
        self._intervals = 0

    def __call__(self, disposition: Disposition) -> None:
        """Take note of a delivery's end, and of its last exchange where it had one."""
        if disposition.last_exchange is not None and disposition.exchanges:
            self._exchanges += 1
            self._asked += disposition.last_exchange.seconds

    def look(self, *, sessions: int, waiting: int) -> None:
        """End an interval, at whose end there are so many sessions, and so many lookups wait for one."""
        exchanges, asked = self._exchanges, self._asked
        self._exchanges, self._asked = 0, 0.0
        is_slow = waiting > 0 < exchanges and asked >= _NEARLY_ALL * sessions * self._interval
        self._intervals = self._intervals + 1 if is_slow else 0
        if is_slow and is_told(self._intervals):
            lcm_ms = round(asked / exchanges * 1000, 1)
            self._log.warning(
                "lcm.slow",
                lcm_ms=lcm_ms,
                exchanges=exchanges,
                sessions=sessions,
                waiting=waiting,
                remedy=_REMEDY,
            )
