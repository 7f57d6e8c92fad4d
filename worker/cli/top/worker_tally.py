"""Counts and state of one worker, from its log. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from worker.cli.top.histogram import Histogram
from worker.cli.top.reading import Event
from worker.cli.top.timeline import BROKER, GUARD, OUTAGE

SESSIONS = ("busy", "idle", "opening", "waiting")
_MOST_REASONS = 8
_LONGEST_REASON = 40
_STATS_INTERVAL = 30.0  # seconds, as in the worker's settings, where nothing tells another
# So that a breath of the machine silences nobody.
_SHORTEST_INTERVAL, _LONGEST_INTERVAL = 0.5, 86_400.0
_TIME_CONSTANT = 3.0  # seconds
_DECAY = math.exp(-1 / _TIME_CONSTANT)


class RecentRate:
    """Events per second as an exponentially weighted mean: a second counts 1/e, about a third, 3 s later."""

    __slots__ = ("_count", "_first", "_second", "_spent", "_spent_before", "_value")

    def __init__(self) -> None:
        self._value = self._spent_before = 0.0
        self._first = self._second = 0
        self._count = 0
        self._spent = 0.0

    def add(self, second: int, milliseconds: float = 0.0) -> None:
        """Count an event of this second, which took so long; one of an earlier second counts for the newest."""
        if second > self._second:
            self._advance_to(second)
        self._count += 1
        self._spent += milliseconds

    def now(self, second: int) -> float:
        """Return the rate at this second."""
        if second > self._second:
            self._advance_to(second)
        return (self._value + self._count) * self._share

    def at_once(self, second: int) -> float:
        """Return about how many were under way at one time of late: what they took, in a second.

        No more than there were: a single one that took long does not count for several.
        """
        if second > self._second:
            self._advance_to(second)
        count, spent = self._value + self._count, (self._spent_before + self._spent) * self._share / 1000
        return max(0.0, min(count, spent))

    @property
    def _share(self) -> float:
        # Of the sum of the weights of the seconds so far, which is less than that of all for a new rate.
        return (1 - _DECAY) / (1 - _DECAY ** (self._second - self._first + 1))

    def _advance_to(self, second: int) -> None:
        if not self._second:
            self._first = self._second = second
        decay = _DECAY ** (second - self._second)
        self._value = (self._value + self._count) * decay
        self._spent_before = (self._spent_before + self._spent) * decay
        self._count, self._spent = 0, 0.0
        self._second = second


@dataclass(slots=True, frozen=True)
class Present:
    """Deliveries in flight, and sessions by state, as far as the log tells.

    `share` is how many sessions it may have of the limit of `fleet_workers` workers; both are 0 without such a limit.
    """

    in_flight: int
    sessions: dict[str, int]
    share: int = 0
    fleet_workers: int = 0


class WorkerTally:
    """One worker: its jobs, its latency, and its state as of its last line. Times are seconds since 1970.

    `heard` is when its last line came, by the clock of whoever reads. Its deliveries and sessions were last counted at
    `counted_at`, which is 0 where they never were; what has happened since follows from its other lines.
    """

    def __init__(self, name: str, at: float) -> None:
        self.name = name
        self.first = self.last = at
        self.heard = 0.0
        self.jobs: Counter[str] = Counter()
        self.duration = Histogram()
        self.rate = RecentRate()
        self.counted_at = 0.0
        self.interval = _STATS_INTERVAL
        self.marks = 0
        self._in_flight = self._ended = self._opened = self._closed = 0
        self._sessions = dict.fromkeys(SESSIONS, 0)
        self._fleet_workers = self._share = 0
        self._is_told = False
        self._stats_at = 0.0
        self._phase = "ready"
        self._paused: set[str] = set()
        self._lost: set[str] = set()
        self._blocked: set[str] = set()
        self._outage = False

    @property
    def state(self) -> str:
        """One of starting, ready, not ready, paused, draining and stopped."""
        if self._paused and self._phase in {"starting", "ready"}:
            return "paused"
        is_cut_off = self._phase == "ready" and (self._lost or self._blocked)
        return "not ready" if is_cut_off else self._phase

    @property
    def troubles(self) -> list[str]:
        """Why it is paused, and what it has lost."""
        return [
            *sorted(self._paused | ({"outage"} if self._outage else set())),
            *(["broker lost"] if self._lost else []),
            *(["broker blocked"] if self._blocked else []),
        ]

    @property
    def opened(self) -> int:
        """How many sessions it has open."""
        return max(0, self._sessions["busy"] + self._sessions["idle"] + self._opened - self._closed)

    @property
    def waiting(self) -> int:
        """How many exchanges waited for a session at its last count."""
        return self._sessions["waiting"]

    def silent(self, seconds: float) -> bool:
        """Whether a worker that runs would have said something within so many seconds: it logs its stats."""
        return self._phase != "stopped" and seconds > 2 * self.interval

    def present(self, second: int) -> Present:
        """Return what it has in hand at this second.

        Of those in flight at the last count, those that have not ended since; or as many as its newest deliveries had
        beside them, if that is more: nothing tells of a delivery before it ends. Busy are as many sessions as can be.
        """
        if self._phase == "stopped":
            return Present(0, dict.fromkeys(SESSIONS, 0))
        counted = self._sessions
        in_flight = max(0, self._in_flight - self._ended, round(self.rate.at_once(second)))
        is_open = self.opened
        more = in_flight - self._in_flight
        busy = min(counted["busy"] + max(0, more), is_open)
        waiting = counted["waiting"]
        if more < 0:
            busy = min(busy, in_flight)
            waiting = min(waiting, in_flight - busy)
        sessions = {
            "busy": busy,
            "idle": is_open - busy,
            "opening": max(0, counted["opening"] - self._opened),
            "waiting": waiting,
        }
        return Present(in_flight, sessions, self._share, self._fleet_workers)

    def ended(self, second: int, at: float, milliseconds: float | None) -> None:
        """Take note that a delivery has ended, after so long."""
        spent = milliseconds or 0.0
        self.rate.add(second, spent)
        if at - spent / 1000 <= self.counted_at:
            self._ended += 1

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
        elif kind == "lcm":
            self._opened += what == "session_opened"
            self._closed += what == "session_closed"
        self.marks = (
            (OUTAGE if self._outage or "outage" in self._paused else 0)
            | (GUARD if "guard" in self._paused else 0)
            | (BROKER if self._lost or self._blocked else 0)
        )

    def _on_worker_event(self, what: str, event: Event) -> None:
        match what:
            case "started":
                self._start_phase("starting")
                self._learn_interval(event.stats_interval)
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
        if self._stats_at and not self._is_told:
            self.interval = min(max(at - self._stats_at, _SHORTEST_INTERVAL), _LONGEST_INTERVAL)
        self._stats_at = at
        self._in_flight = event.in_flight
        self._sessions = {name: getattr(event, name) for name in SESSIONS}
        self._fleet_workers, self._share = event.fleet_workers or 0, event.fleet_sessions or 0
        self._ended = self._opened = self._closed = 0
        self.counted_at = at

    def _learn_interval(self, told: float | None) -> None:
        self._is_told = told is not None and 0 < told <= _LONGEST_INTERVAL
        self.interval = max(told, _SHORTEST_INTERVAL) if told and self._is_told else _STATS_INTERVAL
        self._stats_at = 0.0

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
        self._in_flight = self._ended = self._opened = self._closed = 0
        self._sessions = dict.fromkeys(SESSIONS, 0)
        self._fleet_workers = self._share = 0
