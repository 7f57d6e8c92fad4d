"""The one log line for the end of each delivery, and the running totals of `worker.stats`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from worker.contract.disposition import Disposition, Sent
from worker.contract.errors import InternalError
from worker.observability.log import RecordLog


class _Line(msgspec.Struct):
    """The fields that every line has, in their order."""

    job_id: str
    account: str | None
    attempts: int
    source: str | None
    outcomes: int | None
    error: str | None
    session: int | None
    exchange: int | None
    queue_ms: float | None
    lcm_ms: float | None
    publish_ms: float
    duration_ms: float
    redelivered: bool
    trace_id: str | None
    app_id: str | None
    user_id: str | None


class JobLog:
    """Logs how each delivery ended, and counts the endings in `totals`."""

    def __init__(self, log: RecordLog) -> None:
        self._log = log
        self.totals: Counter[str] = Counter()

    def __call__(self, disposition: Disposition) -> None:
        ending = disposition.ending
        self.totals[ending.label] += 1
        line, more = _line(disposition), _more(disposition)
        if ending.is_failure:
            self._log.warning(ending.event, **msgspec.structs.asdict(line), **more)
        elif more:
            self._log.info(ending.event, **msgspec.structs.asdict(line), **more)
        else:
            self._log.record(ending.event, line)
        if disposition.sent is Sent.RETURNED:
            self._log.warning(
                "result.unroutable",
                job_id=disposition.job_id,
                account=disposition.account or None,
                **_unread(disposition),
            )


def _line(disposition: Disposition) -> _Line:
    found, error, producer = disposition.lookup_result, disposition.error, disposition.producer
    # Another job's exchange may have brought the result, after one of this job's own had failed.
    timing = found.timing if found else disposition.last_exchange
    return _Line(
        job_id=disposition.job_id,
        account=disposition.account or None,
        attempts=disposition.attempts,
        source=None if found is None else found.source,
        outcomes=None if disposition.outcomes < 0 else disposition.outcomes,
        error=None if error is None else error.code,
        session=None if timing is None else timing.session,
        exchange=None if timing is None else timing.exchange,
        queue_ms=disposition.queue_ms,
        lcm_ms=None if timing is None else round(timing.seconds * 1000, 1),
        publish_ms=disposition.publish_ms,
        duration_ms=disposition.duration_ms,
        redelivered=disposition.redelivered,
        trace_id=disposition.trace_id or None,
        app_id=producer.app_id or None,
        user_id=producer.user_id or None,
    )


def _unread(disposition: Disposition) -> dict[str, str]:
    """Return what the log never writes, and has to know where it hashes accounts."""
    return {"unread": disposition.unread} if disposition.unread else {}


def _more(disposition: Disposition) -> dict[str, Any]:
    """Return the fields that only some lines have, behind the others; none for a plain success."""
    fields: dict[str, Any] = _unread(disposition)
    error = disposition.error
    if error is not None:
        # With LCM's words in a field of their own; of another error, the log takes as much as it may hold.
        fields["reason"] = str(error) if error.remote_message else error
        fields["said"] = error.remote_message or None
        if error.__cause__ is not None and isinstance(error, InternalError):
            fields["exc_info"] = error.__cause__
    if disposition.sent is Sent.PARKED:
        fields["parked"] = True
    if disposition.reason:
        fields["reason"] = disposition.reason
    if disposition.delay is not None:
        fields["delay"] = disposition.delay
    return fields
