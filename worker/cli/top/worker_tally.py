"""Counts and state of one worker, from its log. Pure."""

from __future__ import annotations

import math
from collections import Counter

from worker.cli.top.histogram import Histogram
from worker.cli.top.reading import Event
from worker.cli.top.timeline import BROKER, GUARD, OUTAGE

SESSIONS = ("busy", "idle", "opening", "waiting")
_MOST_REASONS = 8
_LONGEST_REASON = 40
_TIME_CONSTANT = 3.0  # seconds
_DECAY = math.exp(-1 / _TIME_CONSTANT)


class RecentRate:
    """Events per second as an exponentially weighted mean: a second counts 1/e, about a third, 3 s later."""

    __slots__ = ("_count", "_first", "_second", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._first = self._second = 0
        self._count = 0

    def add(self, second: int) -> None:
        """Count an event of this second; one of an earlier second counts for the newest."""
        if second > self._second:
            self._advance_to(second)
        self._count += 1

    def now(self, second: int) -> float:
        """Return the rate at this second."""
        if second > self._second:
            self._advance_to(second)
        # The sum of the weights of the seconds so far, which is less than that of all for a new rate.
        weights = 1 - _DECAY ** (self._second - self._first + 1)
        return (self._value + self._count) * (1 - _DECAY) / weights

    def _advance_to(self, second: int) -> None:
        if not self._second:
            self._first = self._second = second
        self._value = (self._value + self._count) * _DECAY ** (second - self._second)
        self._count = 0
        self._second = second


class WorkerTally:
    """One worker: its jobs, its latency, and its state as of its last line. Times are seconds since 1970.

    `in_flight` and `sessions` were logged at `counted_at`, which is 0 where they never were.
    """

    def __init__(self, name: str, at: float) -> None:
        self.name = name
        self.first = self.last = at
        self.jobs: Counter[str] = Counter()
        self.duration = Histogram()
        self.rate = RecentRate()
        self.in_flight = 0
        self.sessions = dict.fromkeys(SESSIONS, 0)
        self.counted_at = 0.0
        self.marks = 0
        self._phase = "ready"
        self._paused: set[str] = set()
        self._lost: set[str] = set()
        self._blocked: set[str] = set()
        self._outage = False

    @property
    def state(self) -> str:
        """One of starting, ready, paused, draining and stopped."""
        return "paused" if self._paused and self._phase in {"starting", "ready"} else self._phase

    @property
    def troubles(self) -> list[str]:
        """Why it is paused, and what it has lost."""
        return [
            *sorted(self._paused | ({"outage"} if self._outage else set())),
            *(["broker lost"] if self._lost else []),
            *(["broker blocked"] if self._blocked else []),
        ]

    def add(self, event: Event, at: float) -> None:
        """Update the state by an event that is not the end of a delivery."""
        kind, _, what = event.event.partition(".")
        if event.event == "worker.stats":
            self._update_counts(event, at)
        elif kind == "worker":
            self._on_worker_event(what, event)
        elif kind == "broker":
            self._on_broker_event(what, "publish" if event.role == "publish" else "consume")
        elif kind == "lcm" and what in {"outage_started", "outage_ended"}:
            self._outage = what == "outage_started"
        self.marks = (
            (OUTAGE if self._outage or "outage" in self._paused else 0)
            | (GUARD if "guard" in self._paused else 0)
            | (BROKER if self._lost or self._blocked else 0)
        )

    def _on_worker_event(self, what: str, event: Event) -> None:
        match what:
            case "started":
                self._start_phase("starting")
            case "stopped" | "failed" | "crashed":
                self._start_phase("stopped")
            case "ready" | "draining":
                self._phase = what
            case "paused" if len(self._paused) < _MOST_REASONS:
                self._paused.add((event.reason or "")[:_LONGEST_REASON])
            case "resumed":
                left = (event.still_paused or [])[:_MOST_REASONS]
                self._paused = {reason[:_LONGEST_REASON] for reason in left}

    def _update_counts(self, event: Event, at: float) -> None:
        self.in_flight = event.in_flight
        self.sessions = {name: getattr(event, name) for name in SESSIONS}
        self.counted_at = at

    def _on_broker_event(self, what: str, role: str) -> None:
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

    def _start_phase(self, phase: str) -> None:
        """Enter a phase, and reset the rest of the state."""
        self._phase = phase
        self._paused, self._lost, self._blocked, self._outage = set(), set(), set(), False
        self.in_flight = 0
        self.sessions = dict.fromkeys(SESSIONS, 0)
