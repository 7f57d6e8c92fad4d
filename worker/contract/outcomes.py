"""The outbound contract: normalized outcomes, and the messages that carry results.

Outcomes are put into one form, whatever order and blanks LCM sent them with, so that equal lists are equal
bytes. `fingerprint` is the SHA-256 of those bytes: the `outcomes` array exactly as it stands in a result's
body, UTF-8 JSON without blanks, its keys in the order `id`, `code`, `description`.

A failed result has no `outcomes`, `fingerprint`, `source` or `looked_up_at`: there is nothing they could say.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Literal
from uuid import uuid5

import msgspec
from msgspec import Raw

from worker.job import NAMESPACE, Job
from worker.message import Message, Properties
from worker.text import cut, quote, rfc3339, well_formed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from worker.errors import JobError

APP_ID = "lcm-outcome-worker"
CONTENT_TYPE = "application/json"
MESSAGE_TYPE = "lcm.outcome.result.v1"
MAX_ERROR_MESSAGE = 4096
"""Bytes of UTF-8 that are kept of an error's text."""

_MAX_REMEMBERED = 256  # characters: a cache of longer texts could grow without bounds
_MAX_NAMED = 5  # descriptions that one warning lists
_NUMBER = re.compile(r"[0-9]{1,18}")
_NO_WORD = re.compile(r"[^a-z0-9]+")
_ENCODER = msgspec.json.Encoder()


class Outcome(msgspec.Struct, frozen=True):
    """One telephony outcome in its normalized form. `code` may be empty and need not be unique."""

    id: str
    code: str
    description: str


class Normalized(msgspec.Struct, frozen=True):
    """Outcomes with unique ids in the contract's order, and what had to be decided to get there."""

    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...] = ()


class Error(msgspec.Struct):
    code: str
    message: str
    transient: bool


class Succeeded(msgspec.Struct):
    """The body of a succeeded result; the order of its fields is the contract's."""

    job_id: str
    account_number: str
    status: str
    outcomes: Raw
    fingerprint: str
    warnings: tuple[str, ...]
    source: str
    attempts: int
    looked_up_at: str
    completed_at: str
    duration_ms: float
    worker: str
    metadata: Raw


class Failed(msgspec.Struct):
    """The body of a failed result."""

    job_id: str
    account_number: str | None
    status: str
    error: Error
    warnings: tuple[str, ...]
    attempts: int
    completed_at: str
    duration_ms: float
    worker: str
    metadata: Raw


def normalize(items: Iterable[tuple[str, str]]) -> Normalized:
    """Put pairs of id and description into the contract's form; the result doesn't depend on their order.

    Every id has more than blanks in it, which is for the reader of LCM's reply to make sure.
    """
    ranked = sorted(
        [
            _remembered(id_, text) if len(id_) + len(text) <= _MAX_REMEMBERED else _normalized(id_, text)
            for id_, text in items
        ]
    )
    # of an id's several descriptions the first by text is kept: the last one that this writes
    kept = {rank: outcome for rank, _, outcome in reversed(ranked)}
    outcomes = tuple(reversed(kept.values()))
    if len(kept) == len(ranked):
        return Normalized(outcomes)
    return Normalized(outcomes, tuple(_warnings(ranked)))


def fingerprint(outcomes: tuple[Outcome, ...]) -> str:
    """Name normalized outcomes by their content: `sha256:` and 64 hexadecimal digits."""
    return _fingerprint_of(_ENCODER.encode(outcomes))


def succeeded(
    job: Job,
    normalized: Normalized,
    *,
    exchange: str,
    source: Literal["lcm", "shared"],
    attempts: int,
    looked_up_at: datetime,
    completed_at: datetime,
    duration_ms: float,
    worker: str,
) -> Message:
    """Build a job's `succeeded` result. Times are aware; `attempts` are all the exchanges made for it."""
    outcomes = _ENCODER.encode(normalized.outcomes)
    body = Succeeded(
        job_id=job.job_id,
        account_number=job.account_number,
        status="succeeded",
        outcomes=Raw(outcomes),
        fingerprint=_fingerprint_of(outcomes),
        warnings=normalized.warnings,
        source=source,
        attempts=attempts,
        looked_up_at=rfc3339(looked_up_at),
        completed_at=rfc3339(completed_at),
        duration_ms=round(float(duration_ms), 1),
        worker=well_formed(worker),
        metadata=job.metadata,
    )
    return _message(job, body, exchange, completed_at)


def failed(
    job: Job,
    error: JobError,
    *,
    exchange: str,
    attempts: int,
    completed_at: datetime,
    duration_ms: float,
    worker: str,
) -> Message:
    """Build a job's `failed` result; for an `InvalidJob`, `job` is the error's own."""
    body = Failed(
        job_id=job.job_id,
        account_number=job.account_number or None,
        status="failed",
        error=Error(error.code, cut(error.message, MAX_ERROR_MESSAGE), error.transient),
        warnings=(),
        attempts=attempts,
        completed_at=rfc3339(completed_at),
        duration_ms=round(float(duration_ms), 1),
        worker=well_formed(worker),
        metadata=job.metadata,
    )
    return _message(job, body, exchange, completed_at)


def _normalized(id_: str, description: str) -> tuple[str, str, Outcome]:
    """Normalize one item to rank, description, outcome.

    Ranks sort as text, and are equal exactly when the ids are; so these tuples sort by id, then description.
    """
    id_ = well_formed(id_.strip())
    description = well_formed(" ".join(description.split()))
    code = _NO_WORD.sub("_", description.lower()).strip("_")
    rank = f"0{id_:0>18}{id_}" if _NUMBER.fullmatch(id_) else f"1{id_}"
    return rank, description, Outcome(id_, code, description)


_remembered = lru_cache(maxsize=4096)(_normalized)


def _warnings(ranked: list[tuple[str, str, Outcome]]) -> Iterator[str]:
    """Tell which ids came with several descriptions; `ranked` is sorted."""
    for _, items in groupby(ranked, key=itemgetter(0)):
        first, *others = dict.fromkeys(outcome for _, _, outcome in items)
        if others:
            dropped = ", ".join(quote(other.description) for other in others[:_MAX_NAMED])
            more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
            yield (
                f"id {quote(first.id)} has {len(others) + 1} descriptions: "
                f"kept {quote(first.description)}, dropped {dropped}{more}"
            )


def _fingerprint_of(encoded: bytes) -> str:
    return f"sha256:{sha256(encoded).hexdigest()}"


def _message(job: Job, body: Succeeded | Failed, exchange: str, completed_at: datetime) -> Message:
    identity = [body.job_id, body.account_number, body.status, job.replays]
    properties = Properties(
        content_type=CONTENT_TYPE,
        headers=job.trace,
        correlation_id=job.correlation_id,
        message_id=str(uuid5(NAMESPACE, _ENCODER.encode(identity).decode())),
        timestamp=completed_at,
        message_type=MESSAGE_TYPE,
        app_id=APP_ID,
    )
    routing_key = f"result.{body.status}.{job.route}" if job.route else f"result.{body.status}"
    return Message(exchange, routing_key, _ENCODER.encode(body), properties)
