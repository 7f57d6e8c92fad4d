"""Targets: the messages of producers, as the broker delivers them, and of whoever publishes to results."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime

from pamqp.header import ContentHeader

from tests.fuzz.target import Target
from worker.broker.admin.dead_letter import Ours, as_json, read_dead_letter, record_of, replay_message
from worker.broker.delivery import amqp_properties, delivery_of
from worker.broker.fields import read_leniently
from worker.cli.submit.results import OutputFormat, encoded, read_result
from worker.contract import job_copies
from worker.contract.errors import InvalidJob, JobError, LcmRejected
from worker.contract.job import Job
from worker.contract.job_reader import read_job
from worker.contract.lookup import ExchangeTiming, LookupResult
from worker.contract.message import Delivery, Message, Properties
from worker.contract.outcomes import OutcomeList
from worker.contract.result import Completion, failed, succeeded

_LENGTH = struct.Struct(">H")
_NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
_DONE = Completion(1, _NOW, 1.0, "worker-1")
_FOUND = LookupResult(OutcomeList([("0", "Success")]), _NOW, _NOW, ExchangeTiming(1, 1, 0.1))

read_leniently()


@dataclass(frozen=True)
class _Received:
    header: ContentHeader
    body: bytes
    delivery_tag: int = 1
    redelivered: bool = True


def joined(content_header: bytes, body: bytes) -> bytes:
    """Return the input of a content header's payload and a body."""
    return _LENGTH.pack(len(content_header)) + content_header + body


def _delivery(data: bytes) -> Delivery | None:
    """Read a delivery; None where the library can't read its header, over which the connection is dropped."""
    if len(data) < _LENGTH.size:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    header = ContentHeader()
    try:
        header.unmarshal(data[_LENGTH.size : end])
    except Exception:  # noqa: BLE001 - whatever it is: see broker/socket
        return None
    return delivery_of(_Received(header, data[end:]))


def check_job(data: bytes) -> None:
    """Any delivery is a job or an InvalidJob, and gets a result and copies, all of which can be written and read."""
    delivery = _delivery(data)
    if delivery is None:
        return
    error: JobError = LcmRejected("LCM rejected the account", remote_message="no such account")
    try:
        job = read_job(delivery.body, delivery.properties)
        _check_result(job, succeeded(job, _FOUND, _DONE, amqp_exchange="results"))
    except InvalidJob as invalid:
        job, error = invalid.job, invalid
    _check_result(job, failed(job, error, _DONE, amqp_exchange="results"))
    sent = delivery.properties
    for copy in (
        job_copies.retry_copy(sent, job, error, attempts=1),
        job_copies.deferred_copy(sent, job, delivery_count=1, passes=1),
        job_copies.dead_copy(sent, job, error, attempts=1, failed_at=_NOW, worker="worker-1"),
    ):
        again = read_back(copy)
        try:
            same = read_job(delivery.body, again)
        except InvalidJob as invalid:
            same = invalid.job
        assert same.job_id == job.job_id
        assert same.account_number == job.account_number


def _check_result(job: Job, message: Message) -> None:
    read_back(message.properties)
    assert len(message.routing_key.encode()) <= 255
    body = json.loads(message.body.decode())
    assert body["job_id"] == job.job_id
    assert body["account_number"] == (job.account_number or None)
    result = read_result(message.body)
    assert result is not None
    assert result.job_id == job.job_id
    assert encoded([result], OutputFormat.JSONL).count(b"\n") == 1
    assert encoded([result], OutputFormat.CSV).decode()


def read_back(properties: Properties) -> Properties:
    """Write properties as AMQP, and return what is read of them."""
    header = ContentHeader()
    marshalled = amqp_properties(properties, user_id="worker").marshal()
    header.unmarshal(struct.pack(">HHQ", 60, 0, 0) + marshalled)
    return delivery_of(_Received(header, b"")).properties


_OURS = Ours("lcm.outcome.jobs", frozenset({"worker"}))


def check_dead_letter(data: bytes) -> None:
    """Any delivery is a dead letter, which can be shown as one line of JSON, grouped and replayed."""
    delivery = _delivery(data)
    if delivery is None:
        return
    letter = read_dead_letter(delivery, _OURS)
    line = as_json(record_of(delivery, letter))
    assert b"\n" not in line
    json.loads(line)
    assert len(letter.pattern) <= 160
    message = replay_message(delivery, letter, exchange="jobs", routing_key="job")
    assert message.body == delivery.body
    history = read_back(message.properties).headers[job_copies.HISTORY_HEADER]
    assert 1 <= len(history) <= job_copies.MAX_HISTORY


def check_result(data: bytes) -> None:
    """Any bytes are a result that can be written in both formats, or None."""
    result = read_result(data)
    if result is None:
        return
    line = encoded([result], OutputFormat.JSONL)
    assert line.count(b"\n") == 1
    assert _parsed(line) == _parsed(data)
    assert encoded([result], OutputFormat.CSV).decode()


def _parsed(body: bytes) -> object:
    """Parse JSON; its numbers, which may have any size, as they are written."""
    return json.loads(body, parse_int=str, parse_float=str)


_FIELDS = (
    b'"account_number":"1"', b'"job_id":', b'"route":', b'"deadline":"2026-01-31T12:00:00Z"', b'"metadata":{}',
)  # fmt: skip
TARGETS = (
    Target("job", check_job, (*_FIELDS, b"\x0eoutcome-job-idS", b"\x10outcome-attemptsl", b"traceparent")),
    Target("dead-letter", check_dead_letter, (*_FIELDS, b"x-death", b"outcome-history", b"F\x00\x00", b"T")),
    Target("result", check_result, (b'"outcomes":[]', b'"metadata":{}', b'"error":null', b'"attempts":1')),
)
