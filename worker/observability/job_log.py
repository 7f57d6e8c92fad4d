"""The one log line for the end of each delivery, and the running totals of `worker.stats`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from worker.disposition import Disposition
from worker.telemetry import Log


class Report:
    """Logs what each delivery came to, and counts."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.totals: Counter[str] = Counter()

    def __call__(self, disposition: Disposition) -> None:
        self.totals[disposition.event.removeprefix("job.")] += 1
        level = self._log.warning if disposition.event == "job.failed" else self._log.info
        level(disposition.event, **_fields(disposition))
        if disposition.unroutable:
            self._log.warning(
                "result.unroutable", job_id=disposition.job_id, account=disposition.account, held=False
            )


def _fields(disposition: Disposition) -> dict[str, Any]:
    answer, error = disposition.answer, disposition.error
    # Another job's exchange may have given the answer, after one of its own had failed.
    asked = answer or disposition.asked
    fields: dict[str, Any] = {
        "job_id": disposition.job_id,
        "account": disposition.account or None,
        "attempts": disposition.attempts,
        "source": None if answer is None else "shared" if answer.shared else "lcm",
        "outcomes": None if disposition.outcomes < 0 else disposition.outcomes,
        "error": None if error is None else error.code,
        "session": None if asked is None else asked.session,
        "exchange": None if asked is None else asked.exchange,
        "queue_ms": disposition.queue_ms,
        "lcm_ms": None if asked is None else round(asked.seconds * 1000, 1),
        "publish_ms": disposition.publish_ms,
        "duration_ms": disposition.duration_ms,
        "redelivered": disposition.redelivered,
    }
    if error is not None:
        fields["reason"] = str(error)
        fields["said"] = error.said or None
        if error.__cause__ is not None and error.code == "internal":
            fields["exc_info"] = error.__cause__
    if disposition.reason:
        fields["reason"] = disposition.reason
    if disposition.delay is not None:
        fields["delay"] = disposition.delay
    return fields
