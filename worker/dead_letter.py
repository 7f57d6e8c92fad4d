"""What a dead letter says: whose job it is, what it died of, when; and which letters an operator means. Pure.

A letter that this worker wrote says so in its headers. One that the broker moved by itself, for its own delivery
limit or for an `expiration`, says so in `x-death`; there the broker's word for the reason is the code.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import msgspec

from worker import copies
from worker.errors import InvalidJob
from worker.job import ERROR_CODE_HEADER, ERROR_REASON_HEADER, Job, decode
from worker.message import Delivery, Message, Properties
from worker.text import read_rfc3339, rfc3339

FOREIGN = "foreign"
OTHER_SHAPES = "(other reasons)"
MAX_GROUPS = 1000

_MAX_SHAPE = 160
_MAX_SHAPED = 1000  # characters of a reason that are looked at
_QUOTED = re.compile(r"""(?<!\w)(?:'[^']*'|"[^"]*")(?!\w)""")
_NUMBERED = re.compile(r"\w*\d(?:[|.:+-]*\w)*[|]*")


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter without its body. `failed_at` is aware, and None where nothing tells it."""

    job: Job
    code: str
    reason: str
    failed_at: datetime | None
    worker: str | None
    size: int

    @property
    def shape(self) -> str:
        """The reason with all blanked that is this job's alone, so that like reasons are equal."""
        return shape_of(self.reason, self.job)


def read_letter(delivery: Delivery) -> Letter:
    """Read a dead letter; whatever it holds, this much can be said of it."""
    try:
        job = decode(delivery.body, delivery.properties)
    except InvalidJob as error:
        job = error.job
    headers = delivery.properties.headers
    code = _text(headers, ERROR_CODE_HEADER)
    died_of, moved_at, queue = _moved(headers)
    said = _text(headers, copies.FAILED_AT_HEADER)
    # A retry copy has an error code too, but only a dead one says when it failed.
    if code and said:
        reason = _text(headers, ERROR_REASON_HEADER)
        failed_at = _moment(said) or moved_at
        return Letter(
            job, code, reason, failed_at, _text(headers, copies.WORKER_HEADER) or None, len(delivery.body)
        )
    reason = f"moved by the broker from queue {queue}" if died_of else "nothing tells why it is here"
    if job.last_error:
        reason += f"; its last error was {job.last_error}"
    return Letter(job, died_of or FOREIGN, reason, moved_at, None, len(delivery.body))


def shape_of(reason: str, job: Job) -> str:
    """Return a reason without account number, job id, quoted texts and whatever holds a digit."""
    text = reason[:_MAX_SHAPED]
    for own in (job.account_number, job.job_id):
        if own:
            text = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", "#", text)
    text = _NUMBERED.sub("#", _QUOTED.sub("'#'", text))
    text = " ".join(text.split())
    return text if len(text) <= _MAX_SHAPE else f"{text[: _MAX_SHAPE - 1]}…"


def replayed(delivery: Delivery, letter: Letter, *, exchange: str, routing_key: str) -> Message:
    """Return the message that sends a dead letter's job back to work, its body as it is."""
    properties = copies.replay_copy(
        delivery.properties,
        letter.job,
        code=letter.code,
        reason=letter.reason,
        failed_at=letter.failed_at,
        worker=letter.worker,
    )
    return Message(exchange, routing_key, delivery.body, properties)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant; an empty one means all. Ages are seconds before `now`, which is aware.

    A letter of unknown age is neither older nor newer than anything.
    """

    now: datetime
    codes: frozenset[str] = frozenset()
    job_ids: frozenset[str] = frozenset()
    older_than: float | None = None
    newer_than: float | None = None
    limit: int | None = None

    @property
    def narrows(self) -> bool:
        """Whether it says anything about what is wanted, a limit aside."""
        return bool(self.codes or self.job_ids) or not (self.older_than is None and self.newer_than is None)

    def takes(self, letter: Letter) -> bool:
        """Whether the letter is meant; `limit` is for whoever counts."""
        if self.codes and letter.code not in self.codes:
            return False
        if self.job_ids and letter.job.job_id not in self.job_ids:
            return False
        if self.older_than is None and self.newer_than is None:
            return True
        if letter.failed_at is None:
            return False
        age = (self.now - letter.failed_at).total_seconds()
        return (self.older_than is None or age > self.older_than) and (
            self.newer_than is None or age < self.newer_than
        )


@dataclass(slots=True)
class Group:
    """Letters of one code and one shape of reason."""

    code: str
    shape: str
    count: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None

    def add(self, moment: datetime | None) -> None:
        """Count one more letter."""
        self.count += 1
        if moment is not None:
            self.oldest = min(self.oldest or moment, moment)
            self.newest = max(self.newest or moment, moment)


class Tally:
    """Groups of letters, the largest first; beyond `MAX_GROUPS`, one more group per code takes the rest."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Group] = {}

    def add(self, letter: Letter) -> None:
        """Count a letter."""
        key = (letter.code, letter.shape)
        if key not in self._groups and len(self._groups) >= MAX_GROUPS:
            key = (letter.code if any(code == letter.code for code, _ in self._groups) else "", OTHER_SHAPES)
        self._groups.setdefault(key, Group(*key)).add(letter.failed_at)

    @property
    def groups(self) -> list[Group]:
        """The groups, ordered by count, then by code and shape."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.code, group.shape))


def record_of(delivery: Delivery, letter: Letter) -> dict[str, Any]:
    """Return all of a letter as one JSON object; the body is text, or `body_base64` where it is no UTF-8."""
    properties = {
        field.name: value
        for field in fields(Properties)
        if field.name != "headers" and (value := getattr(delivery.properties, field.name)) is not None
    }
    return {
        "job_id": letter.job.job_id,
        "code": letter.code,
        "reason": letter.reason,
        "failed_at": stamp(letter.failed_at),
        "properties": properties,
        "headers": delivery.properties.headers,
        **_body(delivery.body),
    }


def stamp(moment: datetime | None) -> str | None:
    """Return a time as all messages write it, where there is one."""
    return rfc3339(moment) if moment else None


def as_json(record: Mapping[str, Any]) -> bytes:
    """Encode a record, headers of any kind included, as one line without its end."""
    return msgspec.json.encode(record, enc_hook=str)


def _body(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": b64encode(body).decode()}


def _moved(headers: Mapping[str, Any]) -> tuple[str, datetime | None, str]:
    """Return the broker's reason for its last move, when that was, and from which queue; "" where it made none.

    `x-first-death-reason` may tell of a retry queue's delay, which killed nobody: the newest entry counts.
    """
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], Mapping) else {}
    reason = _text(last, "reason") or _text(headers, "x-first-death-reason")
    queue = _text(last, "queue") or _text(headers, "x-first-death-queue")
    moment = last.get("time")
    if isinstance(moment, datetime):
        return reason, moment if moment.tzinfo else moment.replace(tzinfo=UTC), queue
    return reason, None, queue


def _moment(text: str) -> datetime | None:
    try:
        return read_rfc3339(text)
    except ValueError:
        return None


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    return value if isinstance(value, str) else ""
