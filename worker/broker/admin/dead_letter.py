"""Dead letters: reading them, and the message that replays one. Pure.

A dead letter that this worker wrote has the error in its headers. One that the broker moved by itself, over its
delivery limit or for an `expiration`, has it in `x-death`, where the broker's word for the reason becomes the code.

Such a message can be a producer's, with any headers. So headers of ours don't count where there is `x-death`, unless
the broker has verified that a user of ours sent it. Without `x-death`, which no copy of a worker has, a letter was
published to the dead-letter exchange, where producers may not write: its headers count, whoever reads it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from worker.common.text import read_rfc3339, rfc3339
from worker.contract import job_copies
from worker.contract.errors import InvalidJob
from worker.contract.job import ERROR_CODE_HEADER, ERROR_REASON_HEADER, Job, Producer
from worker.contract.job_reader import read_job
from worker.contract.message import PROPERTY_NAMES, Delivery, Message, Properties

FOREIGN = "foreign"

_DEATHS_HEADER = "x-death"
_BROKERS_REASONS = {"rejected", "expired", "maxlen", "delivery_limit"}
_MAX_PATTERN = 160
_MAX_READ = 1000  # characters of a reason
_QUOTED = re.compile(r"""(?<!\w)(?:'[^']*'|"[^"]*")(?!\w)""")
_NUMBERED = re.compile(r"\w*\d(?:[|.:+-]*\w)*[|]*")


@dataclass(frozen=True, slots=True)
class Ours:
    """What tells our own messages from those of producers: the name of the jobs queue, and our users."""

    jobs: str
    users: frozenset[str | None]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter without its body. `failed_at` is aware, and None where the headers don't tell it.

    `properties` are the message's, without the headers of ours that don't count.
    """

    job: Job
    properties: Properties
    code: str
    reason: str
    failed_at: datetime | None
    worker: str | None

    @property
    def pattern(self) -> str:
        """The reason without what varies between jobs, see `pattern_of`."""
        return pattern_of(self.reason, self.job)


def read_dead_letter(delivery: Delivery, ours: Ours) -> DeadLetter:
    """Read a dead letter. Any message can be read: one whose headers tell nothing has the code `foreign`.

    Of one that the broker moved out of the jobs queue, code and time are the broker's. Headers of ours count, but on
    what the broker moved for another user.
    """
    properties = _trusted(delivery.properties, ours)
    try:
        job = read_job(delivery.body, properties)
    except InvalidJob as error:
        job = error.job
    headers = properties.headers
    code = _text(headers, ERROR_CODE_HEADER)
    death_reason, died_at, queue = _last_death(headers)
    failed_at_text = _text(headers, job_copies.FAILED_AT_HEADER)
    # A retry copy has an error code too, but only a dead one says when it failed.
    if code and failed_at_text and queue != ours.jobs:
        reason = _text(headers, ERROR_REASON_HEADER)
        failed_at = _read_time(failed_at_text) or died_at
        worker = _text(headers, job_copies.WORKER_HEADER) or None
        return DeadLetter(job, properties, code, reason, failed_at, worker)
    reason = f"moved by the broker from queue {queue}" if death_reason else "nothing tells why it is here"
    if job.last_error:
        reason += f"; its last error was {job.last_error}"
    return DeadLetter(job, properties, death_reason or FOREIGN, reason, died_at, None)


def pattern_of(reason: str, job: Job) -> str:
    """Return a reason with account number, job id, quoted texts and words with digits replaced, to group by."""
    text = reason[:_MAX_READ]
    for own in (job.account_number, job.job_id):
        if own:
            text = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", "#", text)
    text = _NUMBERED.sub("#", _QUOTED.sub("'#'", text))
    text = " ".join(text.split())
    return text if len(text) <= _MAX_PATTERN else f"{text[: _MAX_PATTERN - 1]}…"


def replay_message(delivery: Delivery, letter: DeadLetter, *, exchange: str, routing_key: str) -> Message:
    """Return the message that sends a dead letter's job back to work, its body unchanged."""
    properties = job_copies.replay_copy(
        letter.properties,
        letter.job,
        code=letter.code,
        reason=letter.reason,
        failed_at=letter.failed_at,
        worker=letter.worker,
    )
    return Message(exchange, routing_key, delivery.body, properties)


def record_of(delivery: Delivery, letter: DeadLetter) -> dict[str, Any]:
    """Return all of a dead letter as one JSON object; the body is text, or `body_base64` where it is not UTF-8."""
    return {
        "job_id": letter.job.job_id,
        "code": letter.code,
        "reason": letter.reason,
        "failed_at": timestamp(letter.failed_at),
        **sender_of(letter.job.producer),
        **contents_of(delivery),
    }


def sender_of(producer: Producer) -> dict[str, str | None]:
    """Return who sent a job for a record, null where that is not known."""
    return {"user_id": producer.user_id or None, "app_id": producer.app_id or None}


def contents_of(delivery: Delivery) -> dict[str, Any]:
    """Return properties, headers and body of a message for a record."""
    properties = {
        name: value for name in PROPERTY_NAMES if (value := getattr(delivery.properties, name)) is not None
    }
    return {"properties": properties, "headers": delivery.properties.headers, **_body(delivery.body)}


def timestamp(moment: datetime | None) -> str | None:
    """Return a time as all messages write it; None for None."""
    return rfc3339(moment) if moment else None


def as_json(record: Mapping[str, Any]) -> bytes:
    """Encode a record as one line of JSON without a line break; header values that JSON lacks become strings."""
    return msgspec.json.encode(record, enc_hook=str)


def _body(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": b64encode(body).decode()}


def _trusted(properties: Properties, ours: Ours) -> Properties:
    # By whether it is there, not by what it says: a producer that sends the header twice chooses which one is read.
    if _DEATHS_HEADER not in properties.headers or properties.user_id in ours.users:
        return properties
    return replace(properties, headers=job_copies.without_own_headers(properties.headers))


def _last_death(headers: Mapping[str, Any]) -> tuple[str, datetime | None, str]:
    """Return the broker's reason for its last dead-lettering, its time, and the queue; "" where there was none.

    The newest entry counts: `x-first-death-reason` may be that of a retry queue's delay.
    """
    deaths = headers.get(_DEATHS_HEADER)
    last = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], Mapping) else {}
    reason = _text(last, "reason") or _text(headers, "x-first-death-reason")
    # A producer that sends `x-death` itself must not choose the code.
    reason = reason if reason in _BROKERS_REASONS else ""
    queue = _text(last, "queue") or _text(headers, "x-first-death-queue")
    moment = last.get("time")
    if isinstance(moment, datetime):
        return reason, moment if moment.tzinfo else moment.replace(tzinfo=UTC), queue
    return reason, None, queue


def _read_time(text: str) -> datetime | None:
    try:
        return read_rfc3339(text)
    except ValueError:
        return None


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    return value if isinstance(value, str) else ""
