"""Reading dead letters, and what a replay's copy carries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from worker.broker.admin.dead_letter import pattern_of, read_dead_letter
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


def dead_letter_of(headers: dict[str, Any], body: bytes = b"{}") -> Any:
    return read_dead_letter(Delivery(body, Properties(headers=headers)))


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
