"""What a dead letter says, which letters are meant, and what a replay's copy carries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from worker.copies import HISTORY_HEADER, dead_copy, deferred_copy, replay_copy, retry_copy
from worker.dead_letter import MAX_GROUPS, OTHER_SHAPES, Selection, Tally, read_letter, shape_of
from worker.errors import LcmRejected
from worker.job import Job, decode
from worker.message import Delivery, Properties

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
JOB = Job(job_id="job-x", account_number="a|b", correlation_id="c")
DIED = {
    "outcome-error-code": "timeout",
    "outcome-error-reason": "slow",
    "outcome-failed-at": "2026-01-31T11:00:00Z",
}


def letter_of(headers: dict[str, Any], body: bytes = b"{}") -> Any:
    return read_letter(Delivery(body, Properties(headers=headers)))


@pytest.mark.parametrize(
    ("reason", "shape"),
    [
        ("no reply in 0.5 s", "no reply in # s"),
        ("LCM's reply can't be read: 'abc'", "LCM's reply can't be read: '#'"),
        ('found "x y" at 17', "found '#' at #"),
        ("Invalid Call ID:18|1|2|0|0|84| for a|b", "Invalid Call ID:# for #"),
        ("job-x, 6b0f6c5e-0f52-4d0c", "#, #"),
        ("two\n lines", "two lines"),
    ],
)
def test_like_reasons_have_one_shape(reason: str, shape: str) -> None:
    """Numbers, ids, quoted texts and the job's own account number are blanked, apostrophes are no quotes."""
    assert shape_of(reason, JOB) == shape


def test_the_newest_death_counts() -> None:
    """A job back from a retry queue's delay that dies over the limit died of the limit, not of the delay."""
    deaths = [
        {"reason": "delivery_limit", "queue": "jobs", "time": NOW},
        {"reason": "expired", "queue": "retry"},
    ]
    letter = letter_of(
        {"x-death": deaths, "x-first-death-reason": "expired", "outcome-error-code": "timeout"}
    )
    assert (letter.code, letter.failed_at) == ("delivery_limit", NOW)


@pytest.mark.parametrize("headers", [{}, {"x-death": 5}, {"x-death": [7]}, {"outcome-error-code": 3}])
def test_anything_can_be_read(headers: dict[str, Any]) -> None:
    """A message of anybody's, whatever stands in its headers, is a letter of the code `foreign`."""
    assert letter_of(headers, b"\xff").code == "foreign"


@pytest.mark.parametrize(
    ("narrowed", "taken"),
    [({}, True), ({"older_than": 3599.0}, True), ({"older_than": 3600.0}, False), ({"newer_than": 3601.0}, True),
     ({"codes": frozenset({"internal"})}, False)],
)  # fmt: skip
def test_a_selection_takes_what_it_names(narrowed: dict[str, Any], taken: bool) -> None:
    """Ages are those at `now`, in seconds; every condition must hold."""
    assert Selection(NOW, **narrowed).takes(letter_of(DIED)) is taken


def test_unknown_ages_are_never_selected() -> None:
    """A letter that doesn't tell when it failed is neither older nor newer than anything."""
    assert not Selection(NOW, older_than=0).takes(letter_of({}))
    assert not Selection(NOW, newer_than=9e9).takes(letter_of({}))


def test_groups_are_bounded() -> None:
    """However many shapes there are, memory is not: the rest falls into one group."""
    tally = Tally()
    for number in range(MAX_GROUPS + 50):
        letters = "".join(chr(97 + int(digit)) for digit in str(number))
        tally.add(letter_of({**DIED, "outcome-error-reason": letters}))
    assert len(tally.groups) == MAX_GROUPS + 1
    assert (tally.groups[0].shape, tally.groups[0].count) == (OTHER_SHAPES, 50)


def test_a_history_is_bounded_and_carried_through_every_copy() -> None:
    """Of the earlier deaths the newest ten are kept, each reason cut to 256 bytes, and every later copy has them."""
    properties = Properties(message_id="m", headers={HISTORY_HEADER: "nonsense"})
    for number in range(13):
        job = decode(b'{"account_number":"1"}', properties)
        properties = replay_copy(
            properties, job, code=f"c{number}", reason="é" * 500, failed_at=NOW, worker="w"
        )
    history = properties.headers[HISTORY_HEADER]
    assert [death["code"] for death in history] == [f"c{number}" for number in range(3, 13)]
    assert {len(death["reason"].encode()) for death in history} == {256}
    assert properties.headers["outcome-replays"] == 13
    job = decode(b'{"account_number":"1"}', properties)
    error = LcmRejected("no")
    for copied in (
        retry_copy(properties, job, error, attempts=1),
        deferred_copy(properties, job),
        dead_copy(properties, job, error, attempts=1, failed_at=NOW, worker="w"),
    ):
        assert copied.headers[HISTORY_HEADER] == history
        assert copied.headers["outcome-replays"] == 13
