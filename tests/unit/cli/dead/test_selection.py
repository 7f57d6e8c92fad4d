"""Which dead letters a command means, and how the list groups them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.dead_letters import OURS
from worker.broker.admin.dead_letter import read_dead_letter
from worker.cli.dead.selection import MAX_GROUPS, OTHER_PATTERNS, Selection, Tally
from worker.contract.job import Job
from worker.contract.message import Delivery, Properties

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
JOB = Job(job_id="job-x", account_number="a|b", correlation_id="c")
DIED = {
    "outcome-error-code": "timeout",
    "outcome-error-reason": "slow",
    "outcome-failed-at": "2026-01-31T11:00:00Z",
}


def dead_letter_of(headers: dict[str, Any], body: bytes = b"{}") -> Any:
    return read_dead_letter(Delivery(body, Properties(headers=headers)), OURS)


@pytest.mark.parametrize(
    ("conditions", "matched"),
    [({}, True), ({"older_than": 3599.0}, True), ({"older_than": 3600.0}, False), ({"newer_than": 3601.0}, True),
     ({"codes": frozenset({"internal"})}, False)],
)  # fmt: skip
def test_a_selection_matches_by_all_conditions(conditions: dict[str, Any], matched: bool) -> None:
    """Ages are those at `now`, in seconds; every condition must hold."""
    assert Selection(NOW, **conditions).matches(dead_letter_of(DIED)) is matched


def test_unknown_ages_are_never_selected() -> None:
    """A letter that doesn't tell when it failed is neither older nor newer than anything."""
    assert not Selection(NOW, older_than=0).matches(dead_letter_of({}))
    assert not Selection(NOW, newer_than=9e9).matches(dead_letter_of({}))


def test_groups_are_bounded() -> None:
    """However many patterns there are, the number of groups is limited: the rest falls into one group."""
    tally = Tally()
    for number in range(MAX_GROUPS + 50):
        letters = "".join(chr(97 + int(digit)) for digit in str(number))
        tally.add(dead_letter_of({**DIED, "outcome-error-reason": letters}))
    assert len(tally.groups) == MAX_GROUPS + 1
    assert (tally.groups[0].pattern, tally.groups[0].count) == (OTHER_PATTERNS, 50)
