"""Reads a job from a message, and names every mistake in it.

A job's body is a JSON object of at most `MAX_BODY` bytes::

    {"account_number": "18|1|2|0|0|44|274",        required: 1 to 256 characters, none of Unicode category Cc
     "job_id": "job-1",                            1 to 128 characters, and so the message_id in its place
     "route": "emea",                              1 to 64 of A-Z a-z 0-9 _ -
     "deadline": "2026-01-31T12:00:00Z",           RFC 3339, with its offset
     "metadata": {"campaign": 7}}                  any object: echoed byte for byte

Of a repeated key the last counts, other fields are ignored, and null is the same as absent.

The body is scanned once, with every field left as raw JSON: so each mistake can be named beside the others
and shown as it was written, and metadata is never taken apart. That scan checks JSON's grammar everywhere,
lone surrogates included, but not the UTF-8 of what it leaves raw; hence a check of the whole body before it.
A body that can't be read is told as what it is, where that can be seen: compressed, or in another encoding.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Raw

from worker.common.text import MAX_QUOTE, cut, kind_of, quote, read_rfc3339, well_formed
from worker.contract.errors import InvalidJob
from worker.contract.foreign_body import foreign_form
from worker.contract.job import (
    ATTEMPTS_HEADER,
    CONTROL,
    ERROR_CODE_HEADER,
    ERROR_REASON_HEADER,
    JOB_ID_HEADER,
    MAX_ACCOUNT_NUMBER,
    MAX_BODY,
    MAX_JOB_ID,
    MAX_SHORT_STRING,
    NO_METADATA,
    PASSES_HEADER,
    REPLAYS_HEADER,
    RETRIES_HEADER,
    ROUTE,
    USER_ID_HEADER,
    Job,
    Producer,
    derived_id,
)
from worker.contract.trace_context import trace_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from worker.contract.message import Properties

_MAX_COUNT = 2**31 - 1  # an AMQP integer ends at 2**63 - 1, and a copy counts on from what a producer sent
_NOTHING = (b"", b"null")


class _Mistake(NamedTuple):
    """What is wrong with a field, in full, and without what was found there, which may be an account number."""

    told: str
    unquoted: str


class Fields(msgspec.Struct):
    """A body's fields as raw JSON; b"" is absent."""

    account_number: Raw = Raw()
    job_id: Raw = Raw()
    route: Raw = Raw()
    deadline: Raw = Raw()
    metadata: Raw = Raw()


_FIELDS = msgspec.json.Decoder(Fields)
_STRING = msgspec.json.Decoder(str)


def read_job(body: bytes, properties: Properties) -> Job:
    """Read a job.

    Its id is our own copies' header, else the body's `job_id`, else the AMQP `message_id`, else a UUIDv5 of
    the body's SHA-256: two equal bodies without ids are one job.

    Raises:
        InvalidJob: the text names every mistake, separated by `; `, each with the field, the rule and what
            was found (of an account number, never its characters). Its `job` holds what could be read.
    """
    unreadable: _Mistake | None = None
    try:
        fields = _scan(body)
    except ValueError as error:
        fields, unreadable = Fields(), _unreadable(body, properties.content_encoding, str(error))
    mistakes: list[_Mistake] = []
    job = _job(body, properties, fields, mistakes)
    if unreadable:
        # Without a cause, whose frames would hold the body; so below.
        raise InvalidJob(unreadable.told, job=job, unquoted=unreadable.unquoted)
    if mistakes:
        told, unquoted = ("; ".join(texts) for texts in zip(*mistakes, strict=True))
        raise InvalidJob(told, job=job, unquoted=unquoted)
    return job


def _unreadable(body: bytes, content_encoding: str | None, mistake: str) -> _Mistake:
    if not foreign_form(body, content_encoding):
        return _unquoting(mistake)
    too_large = f"{mistake}; " if len(body) > MAX_BODY else ""
    told, unquoted = (foreign_form(body, content_encoding, quoting=quoting) for quoting in (True, False))
    what = f"{too_large}the body must be a JSON object: it "
    return _Mistake(what + told, what + unquoted)


def _scan(body: bytes) -> Fields:
    if len(body) > MAX_BODY:
        raise ValueError(f"the body must have at most {MAX_BODY} bytes, found {len(body)}")
    try:
        if not body.isascii():
            body.decode()
        return _FIELDS.decode(body)
    except UnicodeDecodeError as error:
        raise ValueError(f"the body must be JSON in UTF-8, found an invalid byte {error.start}") from error
    except msgspec.ValidationError as error:
        raise ValueError(f"the body must be a JSON object, found {kind_of(body.lstrip())}") from error
    except msgspec.DecodeError as error:
        raise ValueError(f"the body must be a JSON object: {error}") from error
    except RecursionError as error:
        raise ValueError("the body must be a JSON object, found one that is nested too deeply") from error


def _job(body: bytes, properties: Properties, fields: Fields, mistakes: list[_Mistake]) -> Job:
    headers = properties.headers
    # In the order in which mistakes are told.
    given_id = _given_id(bytes(fields.job_id), properties.message_id or "", mistakes)
    account_number = _account_number(bytes(fields.account_number), mistakes)
    route = _route(bytes(fields.route), mistakes)
    job_id = well_formed(_carried_id(headers) or given_id or _derived_id(body))
    return Job(
        job_id=job_id,
        account_number=account_number,
        unread="" if account_number else _text_of(bytes(fields.account_number)),
        route=route,
        deadline=_deadline(bytes(fields.deadline), mistakes),
        metadata=_metadata(fields.metadata, mistakes),
        attempts=_count(headers, ATTEMPTS_HEADER),
        retries=_count(headers, RETRIES_HEADER),
        replays=_count(headers, REPLAYS_HEADER),
        passes=_count(headers, PASSES_HEADER),
        last_error=_last_error(headers),
        correlation_id=cut(properties.correlation_id or job_id, MAX_SHORT_STRING),
        trace=trace_of(headers) if headers else {},
        producer=_producer(properties, route),
    )


def _producer(properties: Properties, route: str | None) -> Producer:
    """Read who published the job; a copy of ours, which has our own user, has the producer's in a header, if any."""
    is_copy = JOB_ID_HEADER in properties.headers
    user_id = properties.headers.get(USER_ID_HEADER) if is_copy else properties.user_id
    return Producer(user_id if isinstance(user_id, str) else "", properties.app_id or "", route or "")


def _account_number(raw: bytes, mistakes: list[_Mistake]) -> str:
    rule = f"account_number must be a string of 1 to {MAX_ACCOUNT_NUMBER} characters"
    if not raw.startswith(b'"'):
        # a number may well be an account number, so its digits stay out of the text
        size = f" of {len(raw)} characters" if raw not in _NOTHING else ""
        mistakes.append(_unquoting(f"{rule}, found {kind_of(raw)}{size}"))
        return ""
    text = _STRING.decode(raw)
    if not 1 <= len(text) <= MAX_ACCOUNT_NUMBER:
        mistakes.append(_unquoting(f"{rule}, found {len(text)}"))
        return ""
    if not text.isprintable() and (control := CONTROL.search(text)):
        found = f"U+{ord(control[0]):04X} as character {control.start() + 1} of {len(text)}"
        mistakes.append(_unquoting(f"account_number must have no control characters, found {found}"))
        return ""
    return text


def _given_id(raw: bytes, message_id: str, mistakes: list[_Mistake]) -> str:
    usable = message_id if len(message_id) <= MAX_JOB_ID else ""
    if raw in _NOTHING:
        if message_id != usable:
            # Not passed over for an id derived from the body: then equal bodies would be one job without a word.
            rule = f"message_id must have at most {MAX_JOB_ID} characters where the body has no job_id"
            found = f"{rule}, found {len(message_id)}"
            mistakes.append(_Mistake(f"{found}: {quote(message_id)}", found))
        return usable
    text = _STRING.decode(raw) if raw.startswith(b'"') else ""
    if 1 <= len(text) <= MAX_JOB_ID:
        return text
    rule = f"job_id must be a string of 1 to {MAX_JOB_ID} characters"
    mistakes.append(_quoting(rule, raw, f"{len(text)}: " if text else ""))
    return usable


def _route(raw: bytes, mistakes: list[_Mistake]) -> str | None:
    if raw in _NOTHING:
        return None
    text = _STRING.decode(raw) if raw.startswith(b'"') else ""
    if ROUTE.fullmatch(text):
        return text
    mistakes.append(_quoting("route must be a string of 1 to 64 of A-Z a-z 0-9 _ -", raw))
    return None


def _deadline(raw: bytes, mistakes: list[_Mistake]) -> datetime | None:
    if raw in _NOTHING:
        return None
    try:
        return read_rfc3339(_STRING.decode(raw) if raw.startswith(b'"') else "")
    except ValueError:
        rule = "deadline must be an RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z"
        mistakes.append(_quoting(rule, raw))
        return None


def _metadata(raw: Raw, mistakes: list[_Mistake]) -> Raw:
    value = bytes(raw)
    if value in _NOTHING:
        return NO_METADATA
    if value.startswith(b"{"):
        return raw
    mistakes.append(_quoting("metadata must be a JSON object", value))
    return NO_METADATA


def _unquoting(text: str) -> _Mistake:
    return _Mistake(text, text)


def _quoting(rule: str, raw: bytes, size: str = "") -> _Mistake:
    return _Mistake(f"{rule}, found {size}{_found(raw)}", f"{rule}, found {kind_of(raw)}")


def _text_of(raw: bytes) -> str:
    return _STRING.decode(raw) if raw.startswith(b'"') else raw.decode()


def _found(raw: bytes) -> str:
    """Describe a value that may be shown; `raw` is valid JSON."""
    if raw.startswith(b'"'):
        return quote(_STRING.decode(raw))
    text = raw.decode()
    return f"{kind_of(raw)} ({quote(text) if text[0] in '[{' else text[:MAX_QUOTE]})"


def _carried_id(headers: Mapping[str, Any]) -> str:
    value = headers.get(JOB_ID_HEADER)
    # no id that this worker accepts is longer; without a limit a producer's could outgrow a frame
    return value if isinstance(value, str) and len(value) <= MAX_JOB_ID else ""


def _last_error(headers: Mapping[str, Any]) -> str:
    code, reason = headers.get(ERROR_CODE_HEADER), headers.get(ERROR_REASON_HEADER)
    return f"{code}: {reason}" if isinstance(code, str) and isinstance(reason, str) else ""


def _derived_id(body: bytes) -> str:
    return derived_id(f"body:{sha256(body).hexdigest()}".encode())


def _count(headers: Mapping[str, Any], name: str) -> int:
    value = headers.get(name)
    return min(max(value, 0), _MAX_COUNT) if type(value) is int else 0  # a bool is no count
