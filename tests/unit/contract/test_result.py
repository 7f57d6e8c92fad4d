"""Results have the contract's body, properties and routing key."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid5

import pytest
from msgspec import Raw
from msgspec.structs import replace

from worker.contract.errors import ConnectionLost, InvalidJob, JobError, LcmRejected
from worker.contract.job import NAMESPACE, Job
from worker.contract.job_reader import read_job
from worker.contract.lookup import ExchangeTiming, LookupResult
from worker.contract.message import Message, Properties
from worker.contract.outcomes import OutcomeList, normalize
from worker.contract.result import Completion, failed, succeeded

ANSWERED = datetime(2026, 1, 31, 13, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
COMPLETED = datetime(2026, 1, 31, 12, 0, 0, 131000, tzinfo=UTC)
JOB = Job(
    job_id="job-1", account_number="18|1|2|0|0|44|274", correlation_id="c-1", trace={"traceparent": "t"}
)
ITEMS = [("7", " Answering  Machine"), ("0", "Success")]


def success(job: Job = JOB, items: list[tuple[str, str]] = ITEMS, **changes: Any) -> Message:
    shared, looked_up_at = changes.pop("shared", False), changes.pop("looked_up_at", ANSWERED)
    found = LookupResult(OutcomeList(items), ANSWERED, looked_up_at, ExchangeTiming(1, 1, 0.0), shared=shared)
    given = {"attempts": 1, "completed_at": COMPLETED, "duration_ms": 8.249, "worker": "host-1-4711"}
    completion = Completion(**{**given, **changes})
    return succeeded(job, found, completion, amqp_exchange="lcm.outcome.results")


def failure(job: Job = JOB, error: JobError | None = None, **changes: Any) -> Message:
    given = {"attempts": 3, "completed_at": COMPLETED, "duration_ms": 8, "worker": "host-1-4711"}
    error = error or LcmRejected("LCM refused", remote_message="unknown")
    return failed(job, error, Completion(**{**given, **changes}), amqp_exchange="lcm.outcome.results")


def invalid(body: bytes, properties: Properties) -> InvalidJob:
    with pytest.raises(InvalidJob) as caught:
        read_job(body, properties)
    return caught.value


def test_a_succeeded_body_is_the_contracts_to_the_byte() -> None:
    """Fields, their order and their forms are exactly those of the contract's example."""
    digest = normalize(ITEMS).fingerprint
    assert success().body.decode() == (
        '{"job_id":"job-1","account_number":"18|1|2|0|0|44|274","status":"succeeded",'
        '"outcomes":[{"id":"0","code":"success","description":"Success"},'
        '{"id":"7","code":"answering_machine","description":"Answering Machine"}],'
        f'"fingerprint":"{digest}","warnings":[],"source":"lcm","attempts":1,'
        '"looked_up_at":"2026-01-31T12:00:00.123Z","completed_at":"2026-01-31T12:00:00.131Z",'
        '"duration_ms":8.2,"worker":"host-1-4711","metadata":{}}'
    )


def test_a_failed_body_holds_the_error_and_no_outcomes() -> None:
    """A failed result says what failed, and leaves out all that only an answer could fill."""
    assert failure().body.decode() == (
        '{"job_id":"job-1","account_number":"18|1|2|0|0|44|274","status":"failed",'
        '"error":{"code":"lcm_rejected","message":"LCM refused: unknown","transient":false},'
        '"warnings":[],"attempts":3,"completed_at":"2026-01-31T12:00:00.131Z",'
        '"duration_ms":8.0,"worker":"host-1-4711","metadata":{}}'
    )


def test_the_results_of_a_replayed_job_tell_how_often() -> None:
    """Of the results of one job id the one with the most replays counts."""
    for message in (success(replace(JOB, replays=2)), failure(replace(JOB, replays=2))):
        assert json.loads(message.body)["replays"] == 2


def test_an_empty_list_is_a_success() -> None:
    """No outcomes are a list, not a failure."""
    body = json.loads(success(items=[]).body)
    assert (body["status"], body["outcomes"]) == ("succeeded", [])
    assert body["fingerprint"] == normalize([]).fingerprint


def test_warnings_and_source_are_passed_on() -> None:
    """What normalizing warned of, and who asked LCM, is in the body."""
    body = json.loads(success(items=[("1", "a"), ("1", "b")], shared=True).body)
    assert body["warnings"] == ["id '1' has 2 descriptions: kept 'a', dropped 'b'"]
    assert body["source"] == "shared"


def test_the_fingerprint_is_of_the_outcomes_alone() -> None:
    """Another job, time or worker leaves the fingerprint as it is."""
    other = Job(job_id="job-2", account_number="2", correlation_id="c-2")
    one, two = success(), success(other, list(reversed(ITEMS)), attempts=7, worker="w", completed_at=ANSWERED)
    assert json.loads(one.body)["fingerprint"] == json.loads(two.body)["fingerprint"]


@pytest.mark.parametrize("make", [success, failure])
def test_metadata_is_echoed_byte_for_byte(make: Any) -> None:
    """Metadata comes out as it came in: blanks, escapes, repeated keys and large numbers included."""
    written = b'{ "b":1e999,\t"b" : "\\u00e9\xc3\xa9" }'
    job = read_job(b'{"account_number":"1","metadata":' + written + b"}", Properties())
    assert make(job).body.endswith(b',"metadata":' + written + b"}")


@pytest.mark.parametrize(
    ("route", "make", "expected"),
    [
        (None, success, "result.succeeded"),
        ("emea", success, "result.succeeded.emea"),
        (None, failure, "result.failed"),
        ("emea", failure, "result.failed.emea"),
    ],
)
def test_the_routing_key_tells_status_and_route(route: str | None, make: Any, expected: str) -> None:
    """Results go to the exchange that was named, under their status and the job's route."""
    message = make(Job(job_id="j", account_number="1", route=route, correlation_id="c"))
    assert (message.exchange, message.routing_key) == ("lcm.outcome.results", expected)


@pytest.mark.parametrize(("make", "status"), [(success, "succeeded"), (failure, "failed")])
def test_properties_are_the_contracts(make: Any, status: str) -> None:
    """A result's properties are complete, and hold none of the job's but correlation id and trace."""
    identity = json.dumps(["job-1", "18|1|2|0|0|44|274", status, 0], separators=(",", ":"))
    assert make().properties == Properties(
        content_type="application/json",
        headers={"traceparent": "t"},
        correlation_id="c-1",
        message_id=str(uuid5(NAMESPACE, identity)),
        timestamp=COMPLETED,
        message_type="lcm.outcome.result.v1",
        app_id="lcm-outcome-worker",
    )


def test_message_ids_never_change_between_versions() -> None:
    """Consumers drop repeats by the message id, also across an upgrade of the worker."""
    assert success().properties.message_id == "e7fa29b9-ca70-5692-940e-1f577d5a2eea"
    assert failure().properties.message_id == "ef05dbd6-f6e1-5fac-97c1-d5f057fe0680"


def test_a_repeat_has_the_same_message_id() -> None:
    """A second delivery of a job gives a result that consumers can drop, whatever else differs."""
    again = success(items=[], attempts=9, looked_up_at=COMPLETED, worker="other", duration_ms=1)
    assert again.properties.message_id == success().properties.message_id


def test_message_ids_differ_by_job_account_status_and_replay() -> None:
    """Results that are not repeats of each other have different message ids."""
    account = JOB.account_number
    jobs = [
        JOB,
        Job(job_id="job-2", account_number=account, correlation_id="c"),
        Job(job_id="job-1", account_number="2", correlation_id="c"),
        Job(job_id="job-1", account_number=account, replays=1, correlation_id="c"),
        Job(job_id="job-1", account_number="", correlation_id="c"),
    ]
    ids = {make(job).properties.message_id for job in jobs for make in (success, failure)}
    assert len(ids) == 10
    assert all(UUID(id_).version == 5 for id_ in ids if id_ is not None)


def test_an_unreadable_job_still_gets_its_failed_result() -> None:
    """A bad body gives a result with a null account, the job's own ids, and the reason."""
    error = invalid(b"{", Properties(message_id="m-1", correlation_id="c-1"))
    message = failure(error.job, error, attempts=0)
    body = json.loads(message.body)
    assert (body["job_id"], body["account_number"], body["metadata"]) == ("m-1", None, {})
    assert body["error"] == {"code": "invalid_job", "message": str(error), "transient": False}
    assert message.properties.correlation_id == "c-1"


def test_a_half_readable_job_is_answered_on_its_route() -> None:
    """One wrong field doesn't take the others from the failed result."""
    error = invalid(b'{"account_number":"7","job_id":1,"route":"emea","metadata":{"a":1}}', Properties())
    message = failure(error.job, error)
    body = json.loads(message.body)
    assert (message.routing_key, body["account_number"]) == ("result.failed.emea", "7")
    assert body["metadata"] == {"a": 1}


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_error_messages_are_cut_to_4_kib(letter: str) -> None:
    """An error's text takes at most 4,096 bytes of UTF-8 and ends with a whole character."""
    body = json.loads(failure(error=ConnectionLost("!", remote_message=letter * 5000)).body)
    text = body["error"]["message"]
    assert 4092 < len(text.encode()) <= 4096
    assert set(text) == {"!", ":", " ", letter}
    assert body["error"]["transient"] is True


def test_lone_surrogates_never_reach_a_body() -> None:
    """Names and texts that UTF-8 can't hold are written as escapes, so that every result can be sent."""
    done = success(items=[("1\ud800", "a\udfff")], worker="host\udcff").body.decode()
    assert r"host\\udcff" in done
    assert r"1\\ud800" in done
    lost = failure(error=LcmRejected("no", remote_message="\ud800"), worker="host\udcff").body.decode()
    assert r"no: \\ud800" in lost


def test_durations_have_one_decimal() -> None:
    """Durations are rounded to a tenth of a millisecond."""
    assert json.loads(success(duration_ms=1234.56).body)["duration_ms"] == 1234.6
    assert json.loads(success(duration_ms=0.04).body)["duration_ms"] == 0


def test_metadata_can_be_set_by_hand() -> None:
    """A job that no message brought, as `lookup` makes one, is encoded alike."""
    job = Job(job_id="j", account_number="1", correlation_id="j", metadata=Raw(b'{"a":1}'))
    assert json.loads(success(job).body)["metadata"] == {"a": 1}
