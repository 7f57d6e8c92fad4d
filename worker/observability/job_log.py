"""The one log line for the end of each delivery, and the running totals of `worker.stats`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from worker.contract.disposition import Disposition, Sent
from worker.contract.errors import InternalError
from worker.observability.log import Log


class JobLog:
    """Logs how each delivery ended, and counts the endings in `totals`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.totals: Counter[str] = Counter()

    def __call__(self, disposition: Disposition) -> None:
        self.totals[disposition.ending.label] += 1
        level = self._log.warning if disposition.ending.is_failure else self._log.info
        level(disposition.ending.event, **_fields(disposition))
        if disposition.sent is Sent.RETURNED:
            self._log.warning("result.unroutable", job_id=disposition.job_id, account=disposition.account)


def _fields(disposition: Disposition) -> dict[str, Any]:
    found, error = disposition.lookup_result, disposition.error
    # Another job's exchange may have brought the result, after one of this job's own had failed.
    timing = found.timing if found else disposition.last_exchange
    fields: dict[str, Any] = {
        "job_id": disposition.job_id,
        "account": disposition.account or None,
        "attempts": disposition.attempts,
        "source": None if found is None else found.source,
        "outcomes": None if disposition.outcomes < 0 else disposition.outcomes,
        "error": None if error is None else error.code,
        "session": None if timing is None else timing.session,
        "exchange": None if timing is None else timing.exchange,
        "queue_ms": disposition.queue_ms,
        "lcm_ms": None if timing is None else round(timing.seconds * 1000, 1),
        "publish_ms": disposition.publish_ms,
        "duration_ms": disposition.duration_ms,
        "redelivered": disposition.redelivered,
        "app_id": disposition.producer.app_id or None,
        "user_id": disposition.producer.user_id or None,
    }
    if error is not None:
        fields["reason"] = str(error)
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
