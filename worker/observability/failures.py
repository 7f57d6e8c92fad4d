"""The last failure of each error code, for people who look at a worker. It holds no account number.

A page on an open port is read by more people than a log is. So an error is told in the worker's own words, as where
the log hashes accounts, and the job's account is left out altogether: a hash tells whoever guesses that they are right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from worker.common.clock import SYSTEM_CLOCK
from worker.contract.disposition import Disposition
from worker.observability.log import without_account

_LEFT_OUT = "…"


@dataclass(slots=True)
class Failure:
    """How many deliveries failed, or are tried again later, with one error code; time and message of the last."""

    failed: int = 0
    retried: int = 0
    last: datetime | None = None
    message: str = ""


class Failures:
    """Takes note of the end of each delivery; `since` is when it began to."""

    def __init__(self, now: Callable[[], datetime] = SYSTEM_CLOCK.now) -> None:
        self._now = now
        self.since = now()
        self.by_code: dict[str, Failure] = {}

    def __call__(self, disposition: Disposition) -> None:
        error = disposition.error
        if error is None:
            return
        message = str(error)
        if account := disposition.account or disposition.unread:
            message = without_account(message, account, _LEFT_OUT)
        failure = self.by_code.setdefault(error.code, Failure())
        failure.failed += disposition.ending.is_failure
        failure.retried += not disposition.ending.is_failure
        failure.last, failure.message = self._now(), message
