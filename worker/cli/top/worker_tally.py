"""What the log tells of one worker. Pure."""

from __future__ import annotations

import math
from collections import Counter

from worker.top.histogram import Histogram
from worker.top.reading import Event
from worker.top.timeline import BROKER, GUARD, OUTAGE

SESSIONS = ("busy", "idle", "opening", "waiting")
_MOST_REASONS = 8
_LONGEST_REASON = 40
_FADING = math.exp(-1 / 3)  # `now` is the last few seconds


class Rate:
    """Events per second of late: the mean in which what was ten seconds ago counts a third."""

    __slots__ = ("_count", "_first", "_second", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._first = self._second = 0
        self._count = 0

    def add(self, second: int) -> None:
        """Count an event of this second; one that comes late counts for the newest."""
        if second > self._second:
            self._go_on_to(second)
        self._count += 1

    def now(self, second: int) -> float:
        """Return the rate at this second."""
        if second > self._second:
            self._go_on_to(second)
        # Of the seconds so far each counts so much, and a young rate has seen few of them.
        weights = 1 - _FADING ** (self._second - self._first + 1)
        return (self._value + self._count) * (1 - _FADING) / weights

    def _go_on_to(self, second: int) -> None:
        if not self._second:
            self._first = self._second = second
        self._value = (self._value + self._count) * _FADING ** (second - self._second)
        self._count = 0
        self._second = second


class WorkerTally:
    """One worker: its jobs, its latency, and its state as of its last line. Times are seconds since 1970.

    What it has in flight and its sessions are of `counted_at`, when it last told, 0 where it never did.
    """

    def __init__(self, name: str, at: float) -> None:
        self.name = name
        self.first = self.last = at
        self.jobs: Counter[str] = Counter()
        self.duration = Histogram()
        self.rate = Rate()
        self.in_flight = 0
        self.sessions = dict.fromkeys(SESSIONS, 0)
        self.counted_at = 0.0
        self.marks = 0
        self._phase = "ready"
        self._paused: set[str] = set()
        self._lost: set[str] = set()
        self._blocked: set[str] = set()
        self._out = False

    @property
    def state(self) -> str:
        """One of starting, ready, paused, draining and stopped."""
        return "paused" if self._paused and self._phase in {"starting", "ready"} else self._phase

    @property
    def troubles(self) -> list[str]:
        """What stands in its way: why it is paused, and what it has lost."""
        return [
            *sorted(self._paused | ({"outage"} if self._out else set())),
            *(["broker lost"] if self._lost else []),
            *(["broker blocked"] if self._blocked else []),
        ]

    def happened(self, event: Event, at: float) -> None:
        """Take note of an event that is not the end of a delivery."""
        kind, _, what = event.event.partition(".")
        if event.event == "worker.stats":
            self._count(event, at)
        elif kind == "worker":
            self._worker(what, event)
        elif kind == "broker":
            self._broker(what, "publish" if event.role == "publish" else "consume")
        elif kind == "lcm" and what in {"outage_started", "outage_ended"}:
            self._out = what == "outage_started"
        self.marks = (
            (OUTAGE if self._out or "outage" in self._paused else 0)
            | (GUARD if "guard" in self._paused else 0)
            | (BROKER if self._lost or self._blocked else 0)
        )

    def _worker(self, what: str, event: Event) -> None:
        match what:
            case "started":
                self._begin("starting")
            case "stopped" | "failed" | "crashed":
                self._begin("stopped")
            case "ready" | "draining":
                self._phase = what
            case "paused" if len(self._paused) < _MOST_REASONS:
                self._paused.add((event.reason or "")[:_LONGEST_REASON])
            case "resumed":
                left = (event.still_paused or [])[:_MOST_REASONS]
                self._paused = {reason[:_LONGEST_REASON] for reason in left}

    def _count(self, event: Event, at: float) -> None:
        self.in_flight = event.in_flight
        self.sessions = {name: getattr(event, name) for name in SESSIONS}
        self.counted_at = at

    def _broker(self, what: str, role: str) -> None:
        match what:
            case "lost" | "unreachable":
                self._lost.add(role)
                self._blocked.discard(role)
            case "connected":
                self._lost.discard(role)
            case "blocked":
                self._blocked.add(role)
            case "unblocked":
                self._blocked.discard(role)

    def _begin(self, phase: str) -> None:
        """Enter a phase in which nothing of what was holds any more."""
        self._phase = phase
        self._paused, self._lost, self._blocked, self._out = set(), set(), set(), False
        self.in_flight = 0
        self.sessions = dict.fromkeys(SESSIONS, 0)
