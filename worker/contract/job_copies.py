"""The properties of a job's copies: for a retry queue, deferred unchanged, for the dead-letter queue, or back from it.

A copy has the job's body, byte for byte, and its properties, but for what would change the copy's way:

- headers beginning with `x-`, in any letter case: with `x-death` the broker takes the copy for a cycle;
- `CC` and `BCC`, with which it would be routed twice;
- a `reply_to` of direct reply-to that names no caller, for which the broker would close our channel;
- `expiration`, which `Properties` doesn't even have, and `user_id`: a copy gets the worker's own when it is published,
  and the producer's goes into a header.

This worker's own headers are written anew, each copy having just those that are true of it. The job id is
always among them: a copy gets a message id where the job has none (otherwise the AMQP library makes one
up), and that must not become its job id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from worker.common.text import cut, rfc3339, well_formed
from worker.contract.job import (
    APP_ID_HEADER,
    ATTEMPTS_HEADER,
    DELIVERY_COUNT_HEADER,
    ERROR_CODE_HEADER,
    ERROR_REASON_HEADER,
    JOB_ID_HEADER,
    OWN_PREFIX,
    PASSES_HEADER,
    REPLAYS_HEADER,
    RETRIES_HEADER,
    USER_ID_HEADER,
    Job,
    derived_id,
)
from worker.contract.reply_to import DIRECT
from worker.contract.result import MAX_ERROR_MESSAGE

if TYPE_CHECKING:
    from datetime import datetime

    from worker.contract.errors import JobError
    from worker.contract.message import Properties

FAILED_AT_HEADER = "outcome-failed-at"
WORKER_HEADER = "outcome-worker"
HISTORY_HEADER = "outcome-history"
"""The deaths before the last replay, the oldest first. Not among `_OURS`: every copy carries it on as it is."""

MAX_HISTORY = 10
MAX_PAST_REASON = 256  # bytes of UTF-8
_MAX_PAST_TEXT = 128

_LAST_ERROR = (ERROR_CODE_HEADER, ERROR_REASON_HEADER)
_OURS = {
    JOB_ID_HEADER,
    ATTEMPTS_HEADER,
    RETRIES_HEADER,
    DELIVERY_COUNT_HEADER,
    REPLAYS_HEADER,
    ERROR_CODE_HEADER,
    ERROR_REASON_HEADER,
    FAILED_AT_HEADER,
    WORKER_HEADER,
    PASSES_HEADER,
    USER_ID_HEADER,
    APP_ID_HEADER,
}
_ROUTING = {"CC", "BCC"}  # the broker knows them in capitals only


def retry_copy(properties: Properties, job: Job, error: JobError, *, attempts: int) -> Properties:
    """Return the properties of a copy that uses one more retry delay, after `attempts` exchanges in all."""
    headers = {
        ERROR_CODE_HEADER: error.code,
        ERROR_REASON_HEADER: cut(error.message, MAX_ERROR_MESSAGE),
        ATTEMPTS_HEADER: attempts,
        RETRIES_HEADER: job.retries + 1,
    }
    return _copy(properties, job, headers)


def deferred_copy(
    properties: Properties, job: Job, *, attempts: int | None = None, delivery_count: int = 0, passes: int = 0
) -> Properties:
    """Return the properties of a copy that uses no retry delay.

    Its counters are the job's own, but for `attempts` where this delivery made exchanges that stay charged;
    the last error, which a job that expires tells of, goes along, and so does how often it came back, since the
    broker counts a copy from 0.
    """
    made = job.attempts if attempts is None else attempts
    last = {name: properties.headers[name] for name in _LAST_ERROR} if job.last_error else {}
    came_back = {DELIVERY_COUNT_HEADER: delivery_count} if delivery_count else {}
    passed = {PASSES_HEADER: passes} if passes else {}
    counters = {ATTEMPTS_HEADER: made, RETRIES_HEADER: job.retries}
    return _copy(properties, job, {**last, **came_back, **passed, **counters})


def dead_copy(
    properties: Properties, job: Job, error: JobError, *, attempts: int, failed_at: datetime, worker: str
) -> Properties:
    """Return the properties of a copy for the dead-letter queue; `failed_at` is aware."""
    headers = {
        ERROR_CODE_HEADER: error.code,
        ERROR_REASON_HEADER: cut(error.message, MAX_ERROR_MESSAGE),
        ATTEMPTS_HEADER: attempts,
        FAILED_AT_HEADER: rfc3339(failed_at),
        WORKER_HEADER: well_formed(worker),
    }
    if job.producer.app_id:
        headers[APP_ID_HEADER] = job.producer.app_id
    return _copy(properties, job, headers)


def replay_copy(
    properties: Properties,
    job: Job,
    *,
    code: str,
    reason: str,
    failed_at: datetime | None = None,
    worker: str | None = None,
) -> Properties:
    """Return the properties of a dead letter's copy for the jobs queue, with its attempts, retries and returns at 0.

    Its replay count is one more, which gives its next result another message id; the death that is undone
    joins the history, of which the newest `MAX_HISTORY` are kept.
    """
    death = {
        "code": code,
        "reason": reason,
        "failed-at": rfc3339(failed_at) if failed_at else None,
        "worker": worker,
        "attempts": job.attempts,
    }
    earlier = properties.headers.get(HISTORY_HEADER)
    past = [entry for entry in earlier if isinstance(entry, Mapping)] if isinstance(earlier, list) else []
    history = [_bounded(entry) for entry in [*past, death][-MAX_HISTORY:]]
    again = replace(job, replays=job.replays + 1)
    return _copy(properties, again, {HISTORY_HEADER: history})


def without_own_headers(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what stays of headers whose sender may not have written ours."""
    return {name: value for name, value in headers.items() if not name.startswith(OWN_PREFIX)}


def _bounded(death: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bounded entry of a history for one failure, since a header must not outgrow a frame."""
    limits = {
        "code": _MAX_PAST_TEXT,
        "reason": MAX_PAST_REASON,
        "failed-at": _MAX_PAST_TEXT,
        "worker": _MAX_PAST_TEXT,
    }
    kept: dict[str, Any] = {
        name: cut(value, limit) for name, limit in limits.items() if isinstance(value := death.get(name), str)
    }
    if type(attempts := death.get("attempts")) is int:
        kept["attempts"] = attempts
    return kept


def _copy(properties: Properties, job: Job, ours: dict[str, Any]) -> Properties:
    headers = {name: value for name, value in properties.headers.items() if _is_kept(name)}
    headers |= {JOB_ID_HEADER: job.job_id, **ours}
    if job.replays:
        headers[REPLAYS_HEADER] = job.replays
    if job.producer.user_id:
        headers[USER_ID_HEADER] = job.producer.user_id
    message_id = properties.message_id or derived_id(f"copy:{job.job_id}".encode())
    reply_to = None if properties.reply_to == DIRECT else properties.reply_to
    return replace(properties, headers=headers, message_id=message_id, reply_to=reply_to, user_id=None)


def _is_kept(name: str) -> bool:
    return name not in _OURS and name not in _ROUTING and not name.lower().startswith("x-")
