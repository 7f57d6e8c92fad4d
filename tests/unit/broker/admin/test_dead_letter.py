"""Reading dead letters, and what a replay's copy carries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.dead_letters import JOBS, OURS
from tests.support.settings import broker_settings
from worker.broker.admin.dead_letter import Ours, pattern_of, read_dead_letter, replay_message
from worker.broker.admin.dead_letters import ours_of
from worker.contract.errors import LcmRejected
from worker.contract.job import Job
from worker.contract.job_copies import HISTORY_HEADER, dead_copy, deferred_copy, replay_copy, retry_copy
from worker.contract.job_reader import read_job
from worker.contract.message import Delivery, Properties

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
JOB = Job(job_id="job-x", account_number="a|b", correlation_id="c")
DIED = {
    "outcome-error-code": "timeout",
    "outcome-error-reason": "slow",
    "outcome-failed-at": "2026-01-31T11:00:00Z",
}


FORGED = {
    **DIED,
    "outcome-job-id": "order-77",
    "outcome-worker": "w-0",
    "outcome-user-id": "good",
    "outcome-replays": 9,
    "outcome-history": [{"code": "internal"}],
}
MOVED = {"x-death": [{"reason": "expired", "queue": JOBS, "time": NOW}]}


def dead_letter_of(headers: dict[str, Any], body: bytes = b"{}", user_id: str | None = None) -> Any:
    return read_dead_letter(Delivery(body, Properties(headers=headers, user_id=user_id)), OURS)


@pytest.mark.parametrize(
    ("reason", "pattern"),
    [
        ("no reply in 0.5 s", "no reply in # s"),
        ("LCM's reply can't be read: 'abc'", "LCM's reply can't be read: '#'"),
        ('found "x y" at 17', "found '#' at #"),
        ("Invalid Call ID:18|1|2|0|0|84| for a|b", "Invalid Call ID:# for #"),
        ("job-x, 6b0f6c5e-0f52-4d0c", "#, #"),
        ("two\n lines", "two lines"),
    ],
)
def test_like_reasons_have_one_pattern(reason: str, pattern: str) -> None:
    """Numbers, ids, quoted texts and the job's own account number are blanked, apostrophes are no quotes."""
    assert pattern_of(reason, JOB) == pattern


def test_the_newest_death_counts() -> None:
    """A job back from a retry queue's delay that dies over the limit died of the limit, not of the delay."""
    deaths = [
        {"reason": "delivery_limit", "queue": "jobs", "time": NOW},
        {"reason": "expired", "queue": "retry"},
    ]
    letter = dead_letter_of(
        {"x-death": deaths, "x-first-death-reason": "expired", "outcome-error-code": "timeout"}
    )
    assert (letter.code, letter.failed_at) == ("delivery_limit", NOW)


@pytest.mark.parametrize("headers", [{}, {"x-death": 5}, {"x-death": [7]}, {"outcome-error-code": 3}])
def test_anything_can_be_read(headers: dict[str, Any]) -> None:
    """A message of anybody's, whatever stands in its headers, is a letter of the code `foreign`."""
    assert dead_letter_of(headers, b"\xff").code == "foreign"


@pytest.mark.parametrize("user_id", ["evil", None])
def test_headers_of_ours_do_not_count_on_what_the_broker_moved_for_another_user(user_id: str | None) -> None:
    """Code and time are the broker's, the sender is the verified user, and nothing forged stays in the copy."""
    sent = Properties(headers={**FORGED, **MOVED, "tenant": 7}, user_id=user_id, message_id="m")
    delivery = Delivery(b'{"job_id":"j"}', sent)
    letter = read_dead_letter(delivery, OURS)
    assert (letter.code, letter.failed_at, letter.worker) == ("expired", NOW, None)
    assert letter.reason == f"moved by the broker from queue {JOBS}"
    assert (letter.job.job_id, letter.job.replays, letter.job.producer.user_id) == ("j", 0, user_id or "")
    headers = dict(replay_message(delivery, letter, exchange="e", routing_key="k").properties.headers)
    (death,) = headers.pop("outcome-history")
    assert death["code"] == "expired"
    sender = {"outcome-user-id": user_id} if user_id else {}
    assert headers == {"outcome-job-id": "j", "outcome-replays": 1, "tenant": 7, **sender}


def test_headers_of_ours_count_on_a_copy_of_ours_that_the_broker_moved() -> None:
    """A worker's copy that dies in the jobs queue has its job and producer in headers; the code is the broker's."""
    letter = dead_letter_of({**FORGED, **MOVED}, user_id="worker")
    assert (letter.code, letter.failed_at, letter.worker) == ("expired", NOW, None)
    assert (letter.job.job_id, letter.job.replays, letter.job.producer.user_id) == ("order-77", 9, "good")
    assert letter.reason.endswith("its last error was timeout: slow")


@pytest.mark.parametrize("user_id", ["workers", "worker", None])
def test_a_letter_that_a_worker_wrote_is_read_with_any_user(user_id: str | None) -> None:
    """What the broker did not move is the workers', whichever user reads it."""
    letter = dead_letter_of(FORGED, user_id=user_id)
    assert (letter.code, letter.worker, letter.job.job_id) == ("timeout", "w-0", "order-77")
    assert letter.job.producer.user_id == "good"


@pytest.mark.parametrize("deaths", [5, [], [7], [{"reason": "timeout", "queue": "lcm.outcome.dead"}]])
def test_no_shape_of_deaths_makes_headers_count(deaths: object) -> None:
    """A producer can send `x-death` twice, of which the broker fills in one and we read the other."""
    letter = dead_letter_of({**FORGED, "x-death": deaths}, b'{"job_id":"j"}', user_id="evil")
    assert (letter.job.job_id, letter.job.producer.user_id, letter.worker) == ("j", "evil", None)
    assert letter.code == "foreign"


def test_a_letter_of_ours_from_another_queue_keeps_its_error() -> None:
    """A worker's letter that was moved out of the dead-letter queue and brought back is still the worker's."""
    deaths = [{"reason": "expired", "queue": "lcm.outcome.dead", "time": NOW}]
    assert dead_letter_of({**DIED, "x-death": deaths}, user_id="worker").code == "timeout"


def test_ours_are_the_users_of_all_urls() -> None:
    """Each URL may name another user; names are read as AMQP has them."""
    settings = broker_settings("amqp://a:x@h/", "amqp://b%40c:x@h/", prefix="p")
    assert ours_of(settings) == Ours("p.jobs", frozenset({"a", "b@c"}))


def test_a_history_is_bounded_and_carried_through_every_copy() -> None:
    """Of the earlier deaths the newest ten are kept, each reason cut to 256 bytes, and every later copy has them."""
    properties = Properties(message_id="m", headers={HISTORY_HEADER: "nonsense"})
    for number in range(13):
        job = read_job(b'{"account_number":"1"}', properties)
        properties = replay_copy(
            properties, job, code=f"c{number}", reason="é" * 500, failed_at=NOW, worker="w"
        )
    history = properties.headers[HISTORY_HEADER]
    assert [death["code"] for death in history] == [f"c{number}" for number in range(3, 13)]
    assert {len(death["reason"].encode()) for death in history} == {256}
    assert properties.headers["outcome-replays"] == 13
    job = read_job(b'{"account_number":"1"}', properties)
    error = LcmRejected("no")
    for copied in (
        retry_copy(properties, job, error, attempts=1),
        deferred_copy(properties, job),
        dead_copy(properties, job, error, attempts=1, failed_at=NOW, worker="w"),
    ):
        assert copied.headers[HISTORY_HEADER] == history
        assert copied.headers["outcome-replays"] == 13
