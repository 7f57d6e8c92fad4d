"""What the events of a log come to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.cli.top import tally as tally_module
from worker.cli.top.reading import Event
from worker.cli.top.summary import document
from worker.cli.top.tally import OTHERS, Tally

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def event(name: str, at: float = 0.0, *, worker: str = "w-1", level: str = "info", **fields: Any) -> Event:
    return Event(timestamp=NOON + timedelta(seconds=at), level=level, event=name, worker=worker, **fields)


def tally_of(*events: Event) -> Tally:
    tally = Tally()
    tally.feed(events)
    return tally


def marks(tally: Tally) -> list[str]:
    found: list[str] = document(tally, lines=0, skipped=0)["timeline"]["marks"]
    return found


def test_results_are_counted_per_worker_and_in_sum() -> None:
    """Each end of a delivery counts for its worker, for the sum, and in the second it came."""
    results = ["succeeded", "succeeded", "retry_later", "deferred", "failed", "stale"]
    tally = tally_of(*(event(f"job.{r}", n, worker=f"w-{n % 2}") for n, r in enumerate(results)))
    found = document(tally, lines=6, skipped=0)
    assert found["jobs"] == {"succeeded": 2, "retry_later": 1, "deferred": 1, "failed": 1, "stale": 1}
    assert [sum(worker["jobs"].values()) for worker in found["workers"]] == [3, 3]
    assert found["timeline"]["ended"] == [1] * 6
    assert found["timeline"]["failed"] == [0, 0, 0, 0, 1, 0]
    assert found["jobs_per_second"] == 1.2


def test_failures_are_counted_by_code_with_the_last_message() -> None:
    """A code counts failed and retried jobs apart; its message is the last, LCM's words with it."""
    tally = tally_of(
        event(
            "job.failed",
            1,
            error="lcm_rejected",
            reason="rejected",
            said="No account 1",
            level="warning",
        ),
        event(
            "job.failed",
            2,
            error="lcm_rejected",
            reason="rejected",
            said="No account 2",
            level="warning",
        ),
        event("job.retry_later", 3, error="timeout", reason="no reply"),
    )
    failures = document(tally, lines=3, skipped=0)["failures"]
    assert failures["lcm_rejected"] == {
        "failed": 2,
        "retried": 0,
        "last": "2026-01-31T12:00:02.000Z",
        "message": "rejected: No account 2",
    }
    assert (failures["timeout"]["failed"], failures["timeout"]["retried"]) == (0, 1)
    assert not tally.notices


@pytest.mark.parametrize(
    ("events", "state", "troubles"),
    [
        (["worker.started"], "starting", []),
        (["worker.started", "worker.ready"], "ready", []),
        (["job.succeeded"], "ready", []),
        (["worker.ready", "lcm.outage_started", "worker.paused:outage"], "paused", ["outage"]),
        (["worker.ready", "worker.paused:guard", "worker.paused:outage"], "paused", ["guard", "outage"]),
        (["worker.ready", "worker.paused:guard", "worker.resumed:guard"], "ready", []),
        (["worker.ready", "broker.lost:publish", "broker.unreachable:publish"], "not ready", ["broker lost"]),
        (
            ["broker.lost:publish", "broker.lost:consume", "broker.connected:publish"],
            "not ready",
            ["broker lost"],
        ),
        (["broker.lost:publish", "broker.connected:publish"], "ready", []),
        (["broker.blocked:publish"], "not ready", ["broker blocked"]),
        (["broker.blocked:publish", "broker.unblocked:publish"], "ready", []),
        (["worker.paused:outage", "broker.lost:consume"], "paused", ["outage", "broker lost"]),
        (["worker.started", "broker.unreachable:consume"], "starting", ["broker lost"]),
        (["worker.paused:guard", "worker.draining"], "draining", ["guard"]),
        (["worker.paused:guard", "worker.draining", "worker.stopped"], "stopped", []),
        (["worker.paused:guard", "broker.lost:consume", "worker.crashed"], "stopped", []),
        (["worker.paused:guard", "broker.lost:consume", "worker.started"], "starting", []),
    ],
)
def test_a_workers_state_follows_from_its_events(events: list[str], state: str, troubles: list[str]) -> None:
    """The state and the troubles of a worker are those of its last events."""
    made = []
    for name, _, said in (name.partition(":") for name in events):
        about: dict[str, Any] = {"role": said} if name.startswith("broker") else {"reason": said}
        made.append(event(name, **about))
    worker = tally_of(*made).workers["w-1"]
    assert (worker.state, worker.troubles) == (state, troubles)


def test_stats_are_summed_over_the_workers_that_run() -> None:
    """In flight and sessions are the sum of each worker's last stats; who has stopped has none."""
    stats: dict[str, Any] = {"busy": 3, "idle": 1, "opening": 0, "waiting": 2}
    tally = tally_of(
        event("worker.stats", in_flight=9, busy=9),
        event("worker.stats", in_flight=5, **stats),
        event("worker.stats", worker="w-2", in_flight=4, **stats),
        event("worker.stats", worker="w-3", in_flight=7, **stats),
        event("worker.stopped", worker="w-3"),
    )
    found = document(tally, lines=5, skipped=0)
    assert found["in_flight"] == 9
    assert {name: found["sessions"][name] for name in stats} == {
        "busy": 6,
        "idle": 2,
        "opening": 0,
        "waiting": 4,
    }


def test_troubles_are_marked_for_as_long_as_they_last() -> None:
    """An outage, a guard's pause and a lost broker mark each second until they end, several at once together."""
    tally = tally_of(
        event("worker.ready"),
        event("lcm.outage_started", 1),
        event("lcm.outage_ended", 3, seconds=2.0),
        event("worker.paused", 5, reason="guard"),
        event("broker.lost", 6, role="publish"),
        event("worker.resumed", 7, reason="guard", still_paused=[]),
        event("broker.connected", 8, role="publish"),
        event("worker.paused", 9, reason="suspect"),
        event("job.succeeded", 10),
    )
    assert marks(tally) == ["", "O", "O", "O", "", "P", "PB", "PB", "B", "", ""]
    assert document(tally, lines=0, skipped=0)["outages"] == {"started": 1, "ended": 1, "ended_seconds": 2.0}


def test_a_crash_in_an_outage_ends_the_outage() -> None:
    """Between the last line of a worker that crashed and its next start, no trouble is marked."""
    tally = tally_of(event("lcm.outage_started", 1), event("worker.started", 4), event("worker.ready", 5))
    assert marks(tally) == ["O", "", "", "", ""]


def test_troubles_of_others_go_on() -> None:
    """That one worker's outage ends leaves another's, and lines that come out of order do no harm."""
    tally = tally_of(
        event("lcm.outage_started", 1),
        event("lcm.outage_started", 1, worker="w-2"),
        event("lcm.outage_ended", 2),
        event("job.succeeded", 4),
        event("job.deferred", 3, worker="w-2"),
        event("job.deferred", 0, worker="w-2"),
    )
    assert marks(tally) == ["", "O", "O", "O", ""]


def test_notices_are_collapsed_and_the_newest_are_last() -> None:
    """A warning in the same words is one with a count; a traceback is shown by its last line."""
    tally = tally_of(
        event("broker.unreachable", 1, level="warning", error="refused"),
        event("job.crashed", 2, level="error", exception="Traceback …\n  File x\nRuntimeError: no\n"),
        event("broker.unreachable", 3, level="warning", error="refused"),
    )
    assert [(n.event, n.text, n.count) for n in tally.notices] == [
        ("job.crashed", "RuntimeError: no", 1),
        ("broker.unreachable", "refused", 2),
    ]


def test_the_newest_are_the_newest_in_whatever_order_logs_are_read() -> None:
    """Pitfall: logs are read one after the other, and what the first tells is lost though it is the newest."""
    seen = tally_of(
        event("job.failed", 60, error="timeout", reason="the newest"),
        event("broker.lost", 60, level="warning", error="the newest"),
        *(event("broker.lost", n, worker="w-2", level="warning", error=f"{n}") for n in range(50)),
        event("job.failed", 1, worker="w-2", error="timeout", reason="older"),
    )
    assert [notice.text for notice in seen.notices] == [*(f"{n}" for n in range(1, 50)), "the newest"]
    assert seen.failures["timeout"].message == "the newest"


def test_closed_sessions_are_counted_by_reason() -> None:
    """Openings and closings are counted, and closings by their reasons."""
    closed = [event("lcm.session_closed", reason=reason) for reason in ("no reply in time", "x", "x")]
    sessions = document(tally_of(event("lcm.session_opened"), *closed), lines=0, skipped=0)["sessions"]
    assert (sessions["opened"], sessions["closed"]) == (1, 3)
    assert sessions["closed_by"] == {"no reply in time": 1, "x": 2}


def test_memory_is_bounded_whatever_comes() -> None:
    """Ten thousand workers, codes, reasons, warnings and days leave bounded counts, and sums that are right."""
    tally = Tally()
    for number in range(10_000):
        about: dict[str, Any] = {"at": number * 86400, "worker": f"w-{number}" * 100}
        long = f"{number}: {'x' * 2000}"
        tally.feed(
            [
                event("job.failed", error=long, reason=long, duration_ms=float(number), **about),
                event("lcm.session_closed", reason=long, **about),
                event("worker.paused", reason=long, **about),
                event(f"event.{number}", level="error", error=long, **about),
            ]
        )
    assert len(tally.workers) == tally_module._MOST_WORKERS == 1000
    assert tally.forgotten_workers == 9000
    assert tally.jobs["failed"] == 10_000
    for counted in (tally.failures, tally.closings, tally.pauses, tally._notices, tally.events):
        assert len(counted) <= 201
        assert max(len(str(key)) for key in counted) < 1000
    assert tally.failures[OTHERS].failed == 10_000 - 32
    assert tally.closings.total() == 10_000
    assert max(len(failure.message) for failure in tally.failures.values()) <= 500
    assert len(tally.whole._slots) <= 1024
    assert len(tally.recent._slots) <= 600
    assert sum(slot.ended for slot in tally.whole._slots.values()) == 10_000


def test_the_oldest_worker_is_the_one_forgotten() -> None:
    """A worker that was heard of lately stays, however long ago it began."""
    tally = tally_of(event("worker.ready", worker="first"))
    for number in range(2000):
        tally.feed([event("worker.ready", worker=f"w-{number}"), event("worker.stats", worker="first")])
    assert "first" in tally.workers
    assert "w-5" not in tally.workers


def test_an_empty_log_is_a_document_too() -> None:
    """Of nothing, every count is 0 and every time null."""
    found = document(Tally(), lines=0, skipped=0)
    assert (found["from"], found["to"], found["jobs_per_second"]) == (None, None, 0.0)
    assert found["timeline"]["ended"] == []
    assert set(found["jobs"].values()) == {0}


def test_a_timestamp_without_an_offset_is_utc() -> None:
    """All times of the log are UTC, whatever the local time zone is."""
    naive = event("worker.ready")
    naive.timestamp = naive.timestamp.replace(tzinfo=None)
    assert tally_of(naive).last == NOON.timestamp()


def test_the_rate_of_late_is_that_of_the_last_seconds() -> None:
    """A steady rate is shown as it is, soon after the beginning too, and fades when jobs stay away."""
    tally = tally_of(*(event("job.succeeded", number / 20) for number in range(1200)))
    second = int(NOON.timestamp())
    assert 19 < tally.rate.now(second + 59) < 21
    assert tally.rate.now(second + 159) < 0.01
    assert 19 < tally_of(*(event("job.succeeded", n / 20) for n in range(40))).rate.now(second + 1) < 21


def seconds_of_silence(tally: Tally, now: float | None = None) -> dict[str, float]:
    return {name: tally.silence(worker, now) for name, worker in tally.workers.items()}


def test_live_silence_is_what_has_not_come() -> None:
    """A worker that said nothing for two stats intervals is silent, by the reader's clock; one that stopped is not."""
    tally = Tally()
    an_hour = 3600.0
    tally.feed(
        [event("worker.stats", an_hour, worker="fast clock"), event("worker.ready", worker="w-2")], 100
    )
    tally.feed(
        [event("worker.ready", -an_hour, worker="slow clock"), event("worker.stopped", worker="w-3")], 150
    )
    assert set(seconds_of_silence(tally, 160).values()) == {0}
    assert seconds_of_silence(tally, 161) == {"fast clock": 61, "w-2": 61, "slow clock": 0, "w-3": 0}
    tally.feed([event("job.succeeded", worker="w-2")], 161)
    assert seconds_of_silence(tally, 162)["w-2"] == 0


@pytest.mark.parametrize(
    ("told", "stats_at", "interval"),
    [
        (None, [0.0], 30),
        (None, [0.0, 10.0], 10),
        (5.0, [0.0, 10.0], 5),
        (0.1, [], 0.5),
        (-1.0, [], 30),
        (1e300, [], 30),
        (None, [0.0, 0.1], 0.5),
        (None, [0.0, -10.0], 0.5),
    ],
)
def test_the_stats_interval_is_told_or_seen(
    told: float | None, stats_at: list[float], interval: float
) -> None:
    """It is what the worker's start tells, else the time between its stats lines, else the default."""
    stats = [event("worker.stats", at) for at in stats_at]
    assert tally_of(event("worker.started", stats_interval=told), *stats).workers["w-1"].interval == interval


def test_at_the_end_of_a_log_who_stopped_before_the_others_is_silent() -> None:
    """Without a clock it is that of the log: its end silences nobody, but who fell silent long before is told."""
    tally = tally_of(
        event("worker.ready", worker="dead"),
        event("worker.stopped", 1, worker="stopped"),
        event("worker.ready", 2, worker="alive"),
        event("worker.stats", 100, worker="alive"),
    )
    workers = document(tally, lines=4, skipped=0)["workers"]
    assert {each["name"]: each["silent_seconds"] for each in workers} == {
        "dead": 100,
        "stopped": 0,
        "alive": 0,
    }


def present(*events: Event, at: float) -> dict[str, int]:
    found = tally_of(*events).workers["w-1"].present(int(NOON.timestamp() + at))
    return {"in_flight": found.in_flight} | found.sessions


def test_what_is_in_hand_follows_from_the_events_since_the_last_count() -> None:
    """Deliveries that end and sessions that open and close correct the last count, which stands where nothing came."""
    stats = event("worker.stats", in_flight=40, busy=3, idle=1, opening=2, waiting=37)
    counted = {"in_flight": 40, "busy": 3, "idle": 1, "opening": 2, "waiting": 37}
    assert present(stats, at=20) == counted
    opened = [event("lcm.session_opened", 1), event("lcm.session_opened", 1), event("lcm.session_closed", 2)]
    assert present(stats, *opened, at=20) == counted | {"idle": 2, "opening": 0}
    ended = [event("job.succeeded", 5, duration_ms=6000.0) for _ in range(38)]
    assert present(stats, *ended, at=25) == {"in_flight": 2, "busy": 2, "idle": 2, "opening": 2, "waiting": 0}
    assert present(stats, *ended, event("worker.stopped", 6), at=6)["in_flight"] == 0


def test_deliveries_that_come_after_the_last_count_show_while_they_come() -> None:
    """Of a steady load about as many are in flight as their durations tell; it is over soon after they have ended."""
    stats = event("worker.stats", in_flight=0, busy=0, idle=8)
    jobs = [event("job.succeeded", 1 + n / 20, duration_ms=200.0) for n in range(200)]
    assert present(stats, *jobs, at=10) == {"in_flight": 4, "busy": 4, "idle": 4, "opening": 0, "waiting": 0}
    assert present(stats, *jobs, at=30)["in_flight"] == 0
    # One that took long was alone.
    assert present(stats, event("job.succeeded", 60, duration_ms=30000.0), at=60)["in_flight"] <= 1


def test_shares_of_workers_that_run_add_up() -> None:
    """What each has of one limit counts until it stops; how many there are is what the best informed says."""
    tally = tally_of(
        event("worker.stats", worker="w-1", fleet_workers=2, fleet_sessions=4),
        event("worker.stats", worker="w-2", fleet_workers=3, fleet_sessions=3),
        event("worker.stats", worker="w-3", fleet_workers=3, fleet_sessions=3),
        event("worker.stopped", worker="w-3"),
    )
    sessions = document(tally, lines=4, skipped=0)["sessions"]
    assert (sessions["share"], sessions["fleet_workers"]) == (7, 3)
