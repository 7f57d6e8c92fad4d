"""What a status comes to: the finding that comes first, and the exit status, for states that a broker is seldom in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.settings import broker_settings
from worker.broker.admin.observer import Counted, Look
from worker.broker.admin.statistics import QueueStatistics, Statistics, queue_statistics
from worker.broker.topology import topology_of
from worker.cli.levels import exit_status
from worker.cli.status.findings import findings_of
from worker.cli.status.gathering import Status
from worker.cli.status.workers import FleetState, WorkerState

TOPOLOGY = topology_of(broker_settings("amqp://h/", retry_delays="5s"))
JOBS = "lcm.outcome.jobs"


def status(counts: dict[str, Counted], *, takes: bool = True, **more: Any) -> Status:
    """Return a status of empty queues but for these; nobody consumes."""
    empty = {queue.name: Counted("ok", 0, 0) for queue in TOPOLOGY.queues}
    look = Look("amqp://h/", takes, empty | counts, ())
    return Status(at=datetime(2026, 1, 31, tzinfo=UTC), topology=TOPOLOGY, look=look, **more)


def first(found: Status) -> tuple[str, str, int]:
    findings = findings_of(found, declares=True)
    return findings[0].level, findings[0].detail, exit_status(findings)


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        (None, "worker.paused, as while LCM is away or the guard rests, or broker.unreachable"),
        ([], "none runs; start one"),
        ([WorkerState("w-1", 1.5, ("outage",)), WorkerState("w-2", 0.5)], "w-1 (outage); w-2 (not paused)"),
    ],
)
def test_why_no_worker_takes_jobs(workers: list[WorkerState] | None, said: str) -> None:
    """Where workers tell of themselves, a paused one is told from one that is not there; else both are possible."""
    level, detail, ended = first(
        status({JOBS: Counted("ok", 3, 0)}, fleet=None if workers is None else FleetState(workers))
    )
    assert (level, ended) == ("stuck", 1)
    assert detail.startswith("3 wait, and no worker takes any: ")
    assert said in detail


def test_an_alarm_comes_before_jobs_that_wait() -> None:
    """In an alarm that nobody takes jobs is no news."""
    found = findings_of(status({JOBS: Counted("ok", 3, 0)}, takes=False), declares=True)
    assert [finding.level for finding in found] == ["alarm", "stuck"]


def test_a_queue_without_a_leader_is_unknown() -> None:
    """Where the management API says that half the nodes are away, the 0 that the broker counts is none."""
    lost = queue_statistics({"members": ["a", "b"], "online": ["a"]})
    told = Statistics({JOBS: lost}, (("q", "#"),), ())
    found = status({}, statistics=told)
    assert found.queue(JOBS).ready is None
    assert first(found)[::2] == ("away", 1)


def test_statistics_that_are_not_told_are_unknown() -> None:
    """What the API leaves out, or has as another kind, is None; a rate and an age are as it says them."""
    assert queue_statistics({"message_stats": None, "head_message_timestamp": ""}) == QueueStatistics()
    told = queue_statistics(
        {
            "messages_unacknowledged": 2, "head_message_timestamp": 1769817590, "members": ["a"], "online": ["a"],
            "message_stats": {"publish_details": {"rate": 1.5}, "deliver_get_details": {"rate": 0.0}},
        }
    )  # fmt: skip
    assert told == QueueStatistics(2, 1.5, 0.0, 1769817590)
    found = status({JOBS: Counted("ok", 1, 1)}, statistics=Statistics({JOBS: told}, (), ()))
    assert found.age(JOBS) == 10


def test_results_that_nobody_consumes() -> None:
    """Results that wait without a consumer are a warning that names both remedies."""
    found = findings_of(status({"lcm.outcome.results": Counted("ok", 9, 0)}), declares=True)
    (results,) = (finding for finding in found if finding.what == "results")
    assert results.level == "warn"
    assert "broker.results_queue" in results.detail
    assert exit_status(found) == 0
