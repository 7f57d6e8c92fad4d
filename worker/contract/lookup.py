"""A lookup request and its result, as they pass between the pipeline and the layers that ask LCM."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Literal

import msgspec

from worker.common.callbacks import always
from worker.contract.errors import Expired, JobError, StaleDelivery
from worker.contract.job import NOBODY, Producer
from worker.contract.outcomes import OutcomeList


class ExchangeTiming(msgspec.Struct, frozen=True):
    """Where one exchange took place and how long it took, whether LCM answered or not.

    `session` is the number of the session's place, `exchange` counts the exchanges on that session from 1.
    """

    session: int
    exchange: int
    seconds: float


class LookupRequest(msgspec.Struct):
    """One delivery's request for the outcomes of an account, and what it has cost so far.

    `is_wanted` turns false when nobody can use the result any more. One that is `urgent` has the next free session.
    `turned_away` tells that LCM ended a session over it on which it had answered nothing. The lookup counts here this
    delivery's part: `exchanges` made for it, the seconds `spent` in exchanges and in the pauses between them, the
    timing of the last exchange, the kind of the last error, and that error as `code: message`, which may be an earlier
    delivery's.
    """

    account: str
    deadline: datetime | None = None
    is_wanted: Callable[[], bool] = always
    urgent: bool = False
    turned_away: bool = False
    producer: Producer = NOBODY
    exchanges: int = 0
    spent: float = 0.0
    last_exchange: ExchangeTiming | None = None
    last_error: str = ""
    failed_by: type[JobError] | None = None

    def note_failure(self, error: JobError) -> None:
        """Remember an error as the last one."""
        self.failed_by = type(error)
        self.last_error = f"{error.code}: {error.message}"

    def check(self, moment: datetime) -> None:
        """Raise StaleDelivery or Expired where no exchange should begin at this moment."""
        if not self.is_wanted():
            raise StaleDelivery("the delivery's channel is gone")
        if self.deadline is not None and moment >= self.deadline:
            # The last error may quote LCM, so it goes where the log can leave it out.
            last = f"last error: {self.last_error}" if self.last_error else ""
            raise Expired(f"past the job's deadline of {self.deadline.isoformat()}", remote_message=last)


class LookupResult(msgspec.Struct, frozen=True):
    """An account's outcomes as LCM sent them, and the exchange that brought them.

    `shared` where the exchange was made for another job with the same account.
    """

    items: OutcomeList
    asked_at: datetime
    answered_at: datetime
    timing: ExchangeTiming
    shared: bool = False

    @property
    def source(self) -> Literal["lcm", "shared"]:
        """The result's `source` field: `lcm`, or `shared`."""
        return "shared" if self.shared else "lcm"


Lookup = Callable[[LookupRequest], Awaitable[LookupResult]]
"""Looks up an account's outcomes.

Raises JobError, StaleDelivery, or Deferred where it can't be done now.
"""
