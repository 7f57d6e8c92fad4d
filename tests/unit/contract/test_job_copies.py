"""Copies keep what is the job's, lose what would change their way, and carry our counters."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from worker.contract.errors import LcmRejected, ReplyTimeout
from worker.contract.job import Job, Producer
from worker.contract.job_copies import dead_copy, deferred_copy, retry_copy
from worker.contract.job_reader import read_job
from worker.contract.message import Properties

BODY = b'{"account_number": "1"}'
FAILED_AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
TIMEOUT = ReplyTimeout("no reply within 10 s")


def job_of(properties: Properties) -> Job:
    return read_job(BODY, properties)


def retried(properties: Properties) -> Properties:
    return retry_copy(properties, job_of(properties), TIMEOUT, attempts=3)


def deferred(properties: Properties) -> Properties:
    return deferred_copy(properties, job_of(properties))


def dead(properties: Properties) -> Properties:
    error = LcmRejected("LCM refused", remote_message="unknown account")
    return dead_copy(
        properties, job_of(properties), error, attempts=3, failed_at=FAILED_AT, worker="host-1-4711"
    )


EVERY_COPY = pytest.mark.parametrize("copy", [retried, deferred, dead])


@EVERY_COPY
def test_a_copy_keeps_the_jobs_properties(copy: Any) -> None:
    """Properties of the producer's own, and its headers, go along unchanged."""
    properties = Properties(
        content_type="application/json",
        content_encoding="identity",
        headers={"traceparent": "t", "tenant": 7, "cc": "no routing header", "outcome-other": "theirs"},
        priority=4,
        correlation_id="c-1",
        reply_to="answers",
        message_id="m-1",
        timestamp=FAILED_AT,
        message_type="job",
        app_id="dialer",
    )
    copied = copy(properties)
    assert {name: copied.headers[name] for name in properties.headers} == properties.headers
    for name in Properties.__struct_fields__:
        assert name == "headers" or getattr(copied, name) == getattr(properties, name)


@EVERY_COPY
def test_a_copy_loses_what_would_route_it_elsewhere(copy: Any) -> None:
    """Headers with which the broker would drop a copy or route it twice are gone."""
    headers = {"x-death": [{"count": 1}], "X-Delivery-Count": 3, "x-": 1, "CC": ["a"], "BCC": ["b"]}
    assert not headers.keys() & copy(Properties(message_id="m", headers=headers)).headers.keys()


@EVERY_COPY
def test_the_original_is_left_alone(copy: Any) -> None:
    """Making a copy changes nothing of the delivery that it was made from."""
    headers = {"x-death": 1, "outcome-attempts": 1}
    copy(Properties(message_id="m", headers=headers))
    assert headers == {"x-death": 1, "outcome-attempts": 1}


@EVERY_COPY
@pytest.mark.parametrize("message_id", [None, "", "m-1"])
def test_a_copy_is_the_same_job(copy: Any, message_id: str | None) -> None:
    """A copy is read as the job that it is a copy of, also where it had to be given a message id."""
    properties = Properties(message_id=message_id)
    assert job_of(copy(properties)).job_id == job_of(properties).job_id


@EVERY_COPY
def test_a_copy_always_has_a_message_id(copy: Any) -> None:
    """A missing message id is made from the job id: the same for one job, another for another."""
    first, again = copy(Properties()), copy(Properties())
    other = copy(Properties(headers={"outcome-job-id": "other"}))
    assert first.message_id == again.message_id != other.message_id
    assert UUID(first.message_id).version == 5


def test_a_retry_copy_counts_on() -> None:
    """A retry copy has the exchanges so far, one more delay used, and the last error."""
    properties = Properties(
        message_id="m", headers={"outcome-attempts": 1, "outcome-retries": 1, "outcome-replays": 2}
    )
    copied = retried(properties)
    assert copied.headers == {
        "outcome-job-id": "m",
        "outcome-attempts": 3,
        "outcome-retries": 2,
        "outcome-replays": 2,
        "outcome-error-code": "timeout",
        "outcome-error-reason": "no reply within 10 s",
    }
    job = job_of(copied)
    assert (job.attempts, job.retries, job.replays) == (3, 2, 2)
    assert job.last_error == "timeout: no reply within 10 s"


def test_a_deferred_copy_is_the_job_unchanged() -> None:
    """Deferring costs a job nothing: it is read again with the same counters and last error."""
    before = retried(Properties(message_id="m"))
    assert job_of(deferred(before)) == job_of(before)
    fresh = Properties(message_id="m")
    assert job_of(deferred(fresh)) == job_of(fresh)


def test_a_deferred_copy_can_be_charged() -> None:
    """Exchanges that this delivery made before it was deferred stay charged, the delays don't."""
    properties = Properties(message_id="m", headers={"outcome-retries": 2})
    copied = deferred_copy(properties, job_of(properties), attempts=5)
    assert copied.headers == {"outcome-job-id": "m", "outcome-attempts": 5, "outcome-retries": 2}


def test_a_dead_copy_tells_what_happened() -> None:
    """A dead copy has the job's id, the error, the exchanges, when and by whom, and no stale counter."""
    assert dead(retried(Properties(message_id="m"))).headers == {
        "outcome-job-id": "m",
        "outcome-attempts": 3,
        "outcome-error-code": "lcm_rejected",
        "outcome-error-reason": "LCM refused: unknown account",
        "outcome-failed-at": "2026-01-31T12:00:00.123Z",
        "outcome-worker": "host-1-4711",
    }


def test_a_job_back_from_the_dead_is_copied_without_its_past() -> None:
    """What an earlier failure wrote about a job is not carried into its later copies."""
    copied = retried(dead(Properties(message_id="m")))
    assert copied.headers["outcome-error-code"] == "timeout"
    assert not {"outcome-failed-at", "outcome-worker"} & copied.headers.keys()


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_reasons_are_cut_to_4_kib(letter: str) -> None:
    """However much LCM said, a reason takes at most 4,096 bytes and ends with a whole character."""
    error = LcmRejected("!", remote_message=letter * 5000)
    properties = Properties(message_id="m")
    job = job_of(properties)
    dead_one = dead_copy(properties, job, error, attempts=1, failed_at=FAILED_AT, worker="w\udcff")
    for copied in (dead_one, retry_copy(properties, job, error, attempts=1)):
        reason = copied.headers["outcome-error-reason"]
        assert 4092 < len(reason.encode()) <= 4096
        assert set(reason) == {"!", ":", " ", letter}
    assert dead_one.headers["outcome-worker"] == r"w\udcff"


def test_counters_of_a_wrong_kind_are_written_right() -> None:
    """What a producer put into our headers by mistake is replaced, never passed on."""
    wrong = {"outcome-attempts": "many", "outcome-retries": -1, "outcome-replays": b"x", "outcome-job-id": 5}
    copied = deferred(Properties(message_id="m", headers=wrong))
    assert copied.headers == {"outcome-job-id": "m", "outcome-attempts": 0, "outcome-retries": 0}


@EVERY_COPY
def test_a_copy_names_no_caller_that_the_broker_would_refuse(copy: Any) -> None:
    """Pitfall: direct reply-to without a caller's name closes the channel of whoever publishes it."""
    assert copy(Properties(reply_to="amq.rabbitmq.reply-to", message_id="m-1")).reply_to is None
    assert copy(Properties(reply_to="amq.rabbitmq.reply-to.g1h2", message_id="m-1")).reply_to


def test_a_letter_tells_who_sent_the_job() -> None:
    """A dead letter has the worker's own user when it is published, so the producer's goes into a header."""
    letter = dead(Properties(message_id="m", user_id="dialer", app_id="crm"))
    assert letter.user_id is None
    assert (letter.headers["outcome-user-id"], letter.headers["outcome-app-id"]) == ("dialer", "crm")
    assert not {"outcome-user-id", "outcome-app-id"} & dead(Properties(message_id="m")).headers.keys()


def test_a_copy_of_a_copy_tells_who_sent_the_job() -> None:
    """Its producer is that of the first, though the broker has verified the worker's user since."""
    first = deferred(Properties(message_id="m", user_id="dialer"))
    again = retried(replace(first, user_id="worker"))
    assert again.headers["outcome-user-id"] == "dialer"
    assert job_of(again).producer == Producer("dialer")


def test_passes_are_counted_on_deferred_copies_only() -> None:
    """A copy that is deferred further counts it; a retry begins anew."""
    properties = Properties(message_id="m")
    passed = deferred_copy(properties, job_of(properties), passes=2)
    assert job_of(passed).passes == 2
    assert job_of(retried(passed)).passes == 0
