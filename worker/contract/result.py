"""The outbound contract: the messages that carry results.

A failed result has no `outcomes`, `fingerprint`, `source` or `looked_up_at`: there is nothing they could tell.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import Raw

from worker.common.text import cut, rfc3339, well_formed
from worker.contract.errors import JobError
from worker.contract.job import Job, derived_id
from worker.contract.lookup import LookupResult
from worker.contract.message import Message, Properties

APP_ID = "lcm-outcome-worker"
CONTENT_TYPE = "application/json"
MESSAGE_TYPE = "lcm.outcome.result.v1"
MAX_ERROR_MESSAGE = 4096
"""Bytes of UTF-8 that are kept of an error's text."""

_ENCODER = msgspec.json.Encoder()


class Error(msgspec.Struct):
    code: str
    message: str
    transient: bool


class Succeeded(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The body of a succeeded result; the order of its fields is the contract's.

    `replays` is left out where it is 0.
    """

    job_id: str
    account_number: str
    status: str
    outcomes: Raw
    fingerprint: str
    warnings: tuple[str, ...]
    source: str
    attempts: int
    replays: int = 0
    looked_up_at: str
    completed_at: str
    duration_ms: float
    worker: str
    metadata: Raw


class Failed(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The body of a failed result."""

    job_id: str
    account_number: str | None
    status: str
    error: Error
    warnings: tuple[str, ...]
    attempts: int
    replays: int = 0
    completed_at: str
    duration_ms: float
    worker: str
    metadata: Raw


class Completion(msgspec.Struct, frozen=True):
    """How a job was brought to its end: what results of both kinds tell.

    `attempts` are all exchanges made for the job, over all its deliveries; `completed_at` is aware.
    """

    attempts: int
    completed_at: datetime
    duration_ms: float
    worker: str


def succeeded(
    job: Job,
    lookup_result: LookupResult,
    completion: Completion,
    *,
    amqp_exchange: str,
) -> Message:
    """Build a job's `succeeded` result."""
    found = lookup_result.items.normalized
    body = Succeeded(
        job_id=job.job_id,
        account_number=job.account_number,
        status="succeeded",
        outcomes=Raw(found.encoded),
        fingerprint=found.fingerprint,
        warnings=found.warnings,
        source=lookup_result.source,
        attempts=completion.attempts,
        replays=job.replays,
        looked_up_at=rfc3339(lookup_result.answered_at),
        completed_at=rfc3339(completion.completed_at),
        duration_ms=round(float(completion.duration_ms), 1),
        worker=well_formed(completion.worker),
        metadata=job.metadata,
    )
    return _message(job, body, completion.completed_at, amqp_exchange)


def failed(job: Job, error: JobError, completion: Completion, *, amqp_exchange: str) -> Message:
    """Build a job's `failed` result; for an `InvalidJob`, `job` is the error's own."""
    body = Failed(
        job_id=job.job_id,
        account_number=job.account_number or None,
        status="failed",
        error=Error(error.code, cut(error.message, MAX_ERROR_MESSAGE), error.transient),
        warnings=(),
        attempts=completion.attempts,
        replays=job.replays,
        completed_at=rfc3339(completion.completed_at),
        duration_ms=round(float(completion.duration_ms), 1),
        worker=well_formed(completion.worker),
        metadata=job.metadata,
    )
    return _message(job, body, completion.completed_at, amqp_exchange)


def _message(job: Job, body: Succeeded | Failed, completed_at: datetime, amqp_exchange: str) -> Message:
    identity = [body.job_id, body.account_number, body.status, body.replays]
    properties = Properties(
        content_type=CONTENT_TYPE,
        headers=job.trace,
        correlation_id=job.correlation_id,
        message_id=derived_id(_ENCODER.encode(identity)),
        timestamp=completed_at,
        message_type=MESSAGE_TYPE,
        app_id=APP_ID,
    )
    routing_key = f"result.{body.status}.{job.route}" if job.route else f"result.{body.status}"
    return Message(amqp_exchange, routing_key, _ENCODER.encode(body), properties)
