"""Counts the events of logs, by worker and in total, in memory that doesn't grow with the logs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from operator import attrgetter

from worker.cli.top.histogram import Histogram
from worker.cli.top.reading import Event
from worker.cli.top.timeline import DetailedSlot, Slot, Timeline
from worker.cli.top.worker_tally import RecentRate, WorkerTally

RESULTS = ("succeeded", "retry_later", "deferred", "failed", "stale")
LATENCIES = ("duration", "lcm", "queue", "publish")
OTHERS = "(others)"
"""The name that all further names are counted under once there are too many."""

_RESULT_EVENTS = {f"job.{result}": result for result in RESULTS}
_WITH_ERROR_CODE = {"failed", "retry_later"}
_NOTICE_LEVELS = {"warning", "error", "critical"}
_MOST_WORKERS = 1000
_MOST_NAMES = 32
_MOST_EVENTS = 200
_MOST_NOTICES = 50
_LONGEST_NAME = 200
_LONGEST_TEXT = 500
_WHOLE_SLOTS = 1024
_RECENT_SLOTS = 600


@dataclass(slots=True)
class Failure:
    """How many jobs failed or were retried with one error code; time and message of the last of them."""

    failed: int = 0
    retried: int = 0
    last: float = 0.0
    message: str = ""


@dataclass(slots=True)
class Notice:
    """A warning or an error, how often it came with the same text, and when last."""

    level: str
    worker: str
    event: str
    text: str
    count: int = 0
    last: float = 0.0


class Tally:
    """Counts of all events that it was fed. Times are seconds since 1970, by the clocks of the hosts that logged.

    A log that is read as it is written is fed with the time of reading, `now`, by any one clock: then silence is what
    has not come for so long, whatever the clocks of the hosts say. `detailed` keeps what a report plots.
    """

    def __init__(self, *, detailed: bool = False) -> None:
        self.first = self.last = 0.0
        self.heard = 0.0
        self.events: Counter[str] = Counter()
        self.jobs: Counter[str] = Counter()
        self.latency = {name: Histogram() for name in LATENCIES}
        self._duration, self._lcm, self._queue, self._publish = self.latency.values()
        self.rate = RecentRate()
        self.failures: dict[str, Failure] = {}
        self.closings: Counter[str] = Counter()
        self.pauses: Counter[str] = Counter()
        self.outage_seconds = 0.0
        self._notices: dict[tuple[str, str, str], Notice] = {}
        self.whole = Timeline(_WHOLE_SLOTS, whole=True, slot=DetailedSlot if detailed else Slot)
        self.recent = Timeline(_RECENT_SLOTS, whole=False, slot=Slot)
        self.workers: dict[str, WorkerTally] = {}
        self.forgotten_workers = 0
        self._latest: WorkerTally | None = None

    @property
    def notices(self) -> list[Notice]:
        """Warnings and errors, the newest last, in whatever order the logs of several workers are read."""
        return sorted(self._notices.values(), key=attrgetter("last"))

    def feed(self, events: Iterable[Event], now: float = 0.0) -> None:
        """Count events that came at this time."""
        for event in events:
            self.heard = now
            self._count(event)

    def second(self, now: float | None = None, worker: WorkerTally | None = None) -> int:
        """Return the newest second of the log, or of a worker's, as it is `now`; without it, the log's last."""
        if now is None:
            return int(self.last // 1)
        of = worker or self
        return int((of.last + max(0.0, now - of.heard)) // 1)

    def silence(self, worker: WorkerTally, now: float | None = None) -> float:
        """Return for how many seconds a worker that should have said something has not, else 0.

        Without `now`, up to the last line of all.
        """
        seconds = self.last - worker.last if now is None else now - worker.heard
        return seconds if worker.silent(seconds) else 0.0

    def _count(self, event: Event) -> None:
        moment = event.timestamp
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if self._latest is None:
            self.first = self.last = at
        elif at > self.last:
            self.last = at
        elif at < self.first:
            self.first = at
        worker = self._worker_of(event.worker[:_LONGEST_NAME], at)
        # Not up to a start: after a crash the worker did not run, so its troubles did not go on.
        if worker.marks and event.event != "worker.started":
            self._mark(worker.last, at, worker.marks)
        if at > worker.last:
            worker.last = at
        elif at < worker.first:
            worker.first = at
        worker.heard = self.heard
        result = _RESULT_EVENTS.get(event.event)
        if result is not None:
            self._delivery_ended(event, result, worker, at)
        else:
            self._other_event(event, worker, at)
        if event.level in _NOTICE_LEVELS and result != "failed":
            self._note(event, at)

    def _worker_of(self, name: str, at: float) -> WorkerTally:
        if self._latest is not None and self._latest.name == name:
            return self._latest
        # Ordered by the last line, so that the first worker is the one without lines for the longest time.
        self._latest = self.workers.pop(name, None) or WorkerTally(name, at)
        self.workers[name] = self._latest
        if len(self.workers) > _MOST_WORKERS:
            del self.workers[next(iter(self.workers))]
            self.forgotten_workers += 1
        return self._latest

    def _delivery_ended(self, event: Event, result: str, worker: WorkerTally, at: float) -> None:
        self.jobs[result] += 1
        worker.jobs[result] += 1
        second = int(at // 1)
        self.rate.add(second)
        worker.ended(second, at, event.duration_ms)
        code = _name(self.failures, event.error) if event.error and result in _WITH_ERROR_CODE else ""
        for slot in (self.whole.at(second), self.recent.at(second)):
            slot.count(event, result, code)
        for histogram, value in (
            (self._duration, event.duration_ms),
            (worker.duration, event.duration_ms),
            (self._lcm, event.lcm_ms),
            (self._queue, event.queue_ms),
            (self._publish, event.publish_ms),
        ):
            if value is not None:
                histogram.add(value)
        if code:
            self._failed(event, code, at)

    def _failed(self, event: Event, code: str, at: float) -> None:
        failure = self.failures.setdefault(code, Failure())
        failure.failed += event.event == "job.failed"
        failure.retried += event.event == "job.retry_later"
        if at >= failure.last:
            failure.last = at
            failure.message = ": ".join(filter(None, (event.reason, event.said)))[:_LONGEST_TEXT]

    def _other_event(self, event: Event, worker: WorkerTally, at: float) -> None:
        self.events[_name(self.events, event.event, _MOST_EVENTS)] += 1
        opened, waiting = worker.opened, worker.waiting
        worker.add(event, at)
        if worker.marks:
            self._mark(at, at, worker.marks)
        for timeline in (self.whole, self.recent):
            timeline.at(int(at // 1)).sessions_changed(worker.opened - opened, worker.waiting - waiting)
        if event.event == "lcm.session_closed":
            self.closings[_name(self.closings, event.reason or "")] += 1
        elif event.event == "worker.paused":
            self.pauses[_name(self.pauses, event.reason or "")] += 1
        elif event.event == "lcm.outage_ended":
            self.outage_seconds += event.seconds or 0.0

    def _mark(self, since: float, until: float, marks: int) -> None:
        if since <= until:
            for timeline in (self.whole, self.recent):
                timeline.mark(int(since // 1), int(until // 1), marks)

    def _note(self, event: Event, at: float) -> None:
        key = event.worker[:_LONGEST_NAME], event.event[:_LONGEST_NAME], _text_of(event)
        notice = self._notices.pop(key, None) or Notice(event.level, *key)
        notice.count += 1
        notice.last = max(notice.last, at)
        self._notices[key] = notice
        if len(self._notices) > _MOST_NOTICES:
            del self._notices[min(self._notices, key=lambda each: self._notices[each].last)]


def _name(counted: dict[str, int] | dict[str, Failure], name: str, most: int = _MOST_NAMES) -> str:
    """Return the name to count something under: its own, or OTHERS where there are too many."""
    name = name[:_LONGEST_NAME]
    return name if name in counted or len(counted) < most else OTHERS


def _text_of(event: Event) -> str:
    raised = event.exception.rstrip().rpartition("\n")[2] if event.exception else None
    parts = (event.error, event.reason or event.message, event.remedy, raised)
    return "; ".join(filter(None, parts))[:_LONGEST_TEXT]
