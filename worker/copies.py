"""The properties of a job's copies: for a retry queue, put off unchanged, or for the dead-letter queue.

A copy has the job's body, byte for byte, and its properties, but for what would change the copy's way:

- headers beginning with `x-`, in any letter case: with `x-death` the broker takes the copy for a cycle;
- `CC` and `BCC`, with which it would be routed twice;
- `expiration` and `user_id`, which `Properties` doesn't even have.

This worker's own headers are written anew, each copy having just those that are true of it. The job id is
always among them: a copy gets a message id where the job has none (otherwise the AMQP library makes one
up), and that must not become its job id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid5

from worker.job import (
    ATTEMPTS_HEADER,
    ERROR_CODE_HEADER,
    ERROR_REASON_HEADER,
    JOB_ID_HEADER,
    NAMESPACE,
    REPLAYS_HEADER,
    RETRIES_HEADER,
    RETURNS_HEADER,
    Job,
)
from worker.result import MAX_ERROR_MESSAGE
from worker.text import cut, rfc3339, well_formed

if TYPE_CHECKING:
    from datetime import datetime

    from worker.errors import JobError
    from worker.message import Properties

FAILED_AT_HEADER = "outcome-failed-at"
WORKER_HEADER = "outcome-worker"

_LAST_ERROR = (ERROR_CODE_HEADER, ERROR_REASON_HEADER)
_OURS = {
    JOB_ID_HEADER,
    ATTEMPTS_HEADER,
    RETRIES_HEADER,
    RETURNS_HEADER,
    REPLAYS_HEADER,
    ERROR_CODE_HEADER,
    ERROR_REASON_HEADER,
    FAILED_AT_HEADER,
    WORKER_HEADER,
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
    properties: Properties, job: Job, *, attempts: int | None = None, returns: int = 0
) -> Properties:
    """Return the properties of a copy that uses no retry delay.

    Its counters are the job's own, but for `attempts` where this delivery made exchanges that stay charged;
    the last error, which a job that expires tells of, goes along, and so does how often it came back, since the
    broker counts a copy from 0.
    """
    made = job.attempts if attempts is None else attempts
    last = {name: properties.headers[name] for name in _LAST_ERROR} if job.last_error else {}
    came_back = {RETURNS_HEADER: returns} if returns else {}
    return _copy(properties, job, {**last, **came_back, ATTEMPTS_HEADER: made, RETRIES_HEADER: job.retries})


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
    return _copy(properties, job, headers)


def _copy(properties: Properties, job: Job, ours: dict[str, Any]) -> Properties:
    headers = {name: value for name, value in properties.headers.items() if _is_kept(name)}
    headers |= {JOB_ID_HEADER: job.job_id, **ours}
    if job.replays:
        headers[REPLAYS_HEADER] = job.replays
    message_id = properties.message_id or str(uuid5(NAMESPACE, f"copy:{job.job_id}"))
    return replace(properties, headers=headers, message_id=message_id)


def _is_kept(name: str) -> bool:
    return name not in _OURS and name not in _ROUTING and not name.lower().startswith("x-")
