"""A tally as one JSON document. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from worker.cli.top.histogram import Histogram
from worker.cli.top.tally import RESULTS, Tally
from worker.cli.top.timeline import BROKER, GUARD, OUTAGE, Slot, Timeline
from worker.cli.top.worker_tally import SESSIONS, Present, WorkerTally
from worker.common.text import rfc3339

_LETTERS = {OUTAGE: "O", GUARD: "P", BROKER: "B"}
_SLOTS = 1 << 30


def document(tally: Tally, *, lines: int, skipped: int) -> dict[str, Any]:
    """Return all counts: times as RFC 3339 in UTC, durations in the unit that their names end with.

    Silent are workers that had stopped logging before the end of the log.
    """
    second = tally.second()
    present = [worker.present(second) for worker in tally.workers.values()]
    return {
        "lines": lines,
        "skipped_lines": skipped,
        "from": _time(tally.first),
        "to": _time(tally.last),
        "jobs": {result: tally.jobs[result] for result in RESULTS},
        "jobs_per_second": mean_rate(tally.jobs, tally.first, tally.last),
        "in_flight": sum(each.in_flight for each in present),
        "latency": {f"{name}_ms": _latency(values) for name, values in tally.latency.items()},
        "failures": {
            code: {
                "failed": failure.failed,
                "retried": failure.retried,
                "last": _time(failure.last),
                "message": failure.message,
            }
            for code, failure in tally.failures.items()
        },
        "sessions": _sessions(tally, present),
        "outages": {
            "started": tally.events["lcm.outage_started"],
            "ended": tally.events["lcm.outage_ended"],
            "ended_seconds": round(tally.outage_seconds, 1),
        },
        "pauses": dict(tally.pauses),
        "events": dict(tally.events),
        "workers": [
            _worker(worker, tally) for worker in sorted(tally.workers.values(), key=lambda w: w.name)
        ],
        "workers_forgotten": tally.forgotten_workers,
        "notices": [
            {
                "last": _time(notice.last),
                "count": notice.count,
                "level": notice.level,
                "worker": notice.worker,
                "event": notice.event,
                "text": notice.text,
            }
            for notice in tally.notices
        ],
        "timeline": _timeline(tally.whole),
    }


def mean_rate(jobs: Mapping[str, int], first: float, last: float) -> float:
    """Return the deliveries per second from the first line to the last, at least one second."""
    return round(sum(jobs.values()) / max(last - first, 1.0), 2)


def letters(marks: int) -> str:
    """Return letters for the marks of a slot: O outage, P paused by the guard, B broker lost or blocked."""
    return "".join(letter for mark, letter in _LETTERS.items() if marks & mark)


def _sessions(tally: Tally, present: Sequence[Present]) -> dict[str, Any]:
    return {
        **{name: sum(each.sessions[name] for each in present) for name in SESSIONS},
        "share": sum(each.share for each in present),
        "fleet_workers": max((each.fleet_workers for each in present), default=0),
        "opened": tally.events["lcm.session_opened"],
        "failed_to_open": tally.events["lcm.session_failed"],
        "closed": tally.events["lcm.session_closed"],
        "closed_by": dict(tally.closings),
    }


def _worker(worker: WorkerTally, tally: Tally) -> dict[str, Any]:
    return {
        "name": worker.name,
        "state": worker.state,
        "troubles": worker.troubles,
        "jobs": {result: worker.jobs[result] for result in RESULTS},
        "jobs_per_second": mean_rate(worker.jobs, worker.first, worker.last),
        "in_flight": worker.present(tally.second()).in_flight,
        "silent_seconds": round(tally.silence(worker), 1),
        "duration_ms": _latency(worker.duration),
        "from": _time(worker.first),
        "to": _time(worker.last),
    }


def _timeline(timeline: Timeline[Slot]) -> dict[str, Any]:
    stretch = timeline.stretch(_SLOTS)
    return {
        "from": _time(stretch.start) if stretch.slots else None,
        "slot_seconds": stretch.seconds,
        "ended": [slot.ended for slot in stretch.slots],
        "failed": [slot.failed for slot in stretch.slots],
        "marks": [letters(slot.marks) for slot in stretch.slots],
    }


def _latency(values: Histogram) -> dict[str, float]:
    shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    found = {name: round(values.percentile(share), 2) for name, share in shares.items()}
    return {"count": values.count, **found, "max": values.maximum}


def _time(at: float) -> str | None:
    return rfc3339(datetime.fromtimestamp(at, UTC)) if at else None
