"""A fleet on virtual clocks: workers with the real `Seat`, one log, and an LCM that counts sessions.

Workers join, leave, crash, are stopped, and are cut from the broker, whose answers are slow at times; their clocks
differ in pace. Everything is drawn from one seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random

from worker.fleet.beat import Amounts, Beat
from worker.fleet.seat import MARGIN, Seat

REPLY_TIMEOUT = 10.0
SECONDS = 300.0
_DRIFT = 0.02
_IDS = count()


@dataclass
class Log:
    """The stream: entries in one order; `first` is the oldest that is still kept."""

    entries: list[Beat] = field(default_factory=list)
    first: int = 0


class Member:
    """One worker: its seat, its sessions, and when each of them is done with its exchange."""

    def __init__(self, fleet: Fleet, limit: int, want: int) -> None:
        self.fleet = fleet
        self.random = fleet.random
        self.id = f"w{next(_IDS)}"
        self.pace = 1 + self.random.uniform(-_DRIFT, _DRIFT)
        self.began = self.random.uniform(0, 1000)
        self.want = want
        self.seat = Seat(self.id, self.id, Amounts(limit), Amounts(want), REPLY_TIMEOUT)
        self.read_up_to = fleet.log.first
        self.sessions: set[int] = set()
        self.busy: set[int] = set()
        self.ids = count()
        self.cut = self.stopped = self.gone = self.leaving = False
        self.lease_end = 0.0

    @property
    def clock(self) -> float:
        """Its own clock, which began anywhere."""
        return self.fleet.now * self.pace + self.began

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something later by its own clock; while it is stopped, nothing happens."""
        self.fleet.at(self.fleet.now + max(0.0, seconds) / self.pace, lambda: self._unless_stopped(do))

    def _unless_stopped(self, do: Callable[[], None]) -> None:
        if self.gone:
            return
        if self.stopped:
            self.fleet.waiting.setdefault(self.id, []).append(do)
            return
        do()

    @property
    def counted(self) -> int:
        """The sessions that LCM has of it; those of one that is stopped are ended by its pings, in time."""
        late = self.stopped and self.fleet.now > self.lease_end
        return 0 if self.gone or late else len(self.sessions)

    def tick(self) -> None:
        """Look whether a beat is due, and at the sessions; and again soon."""
        if self.leaving and not self.sessions:
            self.send(leaves=True)
            self.gone = True
            return
        now = self.clock
        if not self.cut and now >= self.seat.due(now, len(self.sessions)):
            self.send()
        self.keep_to_share()
        self.after(0.05, self.tick)

    def send(self, *, leaves: bool = False) -> None:
        beat = self.seat.beat(self.clock, len(self.sessions), leaves=leaves)
        if not self.cut:
            self.fleet.append(beat)

    def read(self) -> None:
        """Read what has come, in order."""
        log = self.fleet.log
        if self.cut:
            return
        while self.read_up_to < len(log.entries):
            self.seat.read(log.entries[self.read_up_to], self.read_up_to, self.clock)
            self.read_up_to += 1
        self.keep_to_share()

    def keep_to_share(self) -> None:
        now = self.clock
        self.lease_end = self.fleet.now + (self.seat.ends_at - now) / self.pace
        if now >= self.seat.ends_at:
            self.sessions.clear()
            self.busy.clear()
            return
        allowed = 0 if self.leaving else min(self.want, self.seat.share(now).sessions)
        for idle in list(self.sessions - self.busy)[: max(0, len(self.sessions) - allowed)]:
            self.sessions.discard(idle)
        while len(self.sessions) < allowed:
            self.sessions.add(next(self.ids))
        if now < self.seat.asks_until:
            for idle in self.sessions - self.busy:
                self.busy.add(idle)
                slow = self.random.random() < 0.02
                self.after(self.random.uniform(0, REPLY_TIMEOUT if slow else 0.5), partial(self.end, idle))
        self.fleet.check()

    def end(self, one: int) -> None:
        self.busy.discard(one)
        self.keep_to_share()


class Fleet:
    """The workers, the log, and the checks."""

    def __init__(self, seed: int, limit: int, *, kept: int = 0) -> None:
        self.random = Random(seed)  # noqa: S311 - a schedule is no secret
        self.limit = limit
        self.now = 0.0
        self.log = Log()
        self.kept = kept
        self.members: list[Member] = []
        self.waiting: dict[str, list[Callable[[], None]]] = {}
        self.peak = 0
        self.slow = 0.02
        self.changed_at = 0.0
        self.violations: list[str] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), do))

    def run(self, seconds: float) -> None:
        """Go on for so long."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, do = heapq.heappop(self._events)
            do()
        self.now = end

    @property
    def alive(self) -> list[Member]:
        return [each for each in self.members if not each.gone]

    def append(self, beat: Beat) -> None:
        """Take a beat after a while, and hand it to all, to each after a while of its own."""
        self.at(self.now + self.random.uniform(0, self.slow), lambda: self._appended(beat))

    def _appended(self, beat: Beat) -> None:
        self.log.entries.append(beat)
        if self.kept:
            self.log.first = max(0, len(self.log.entries) - self.kept)
        for each in self.alive:
            each.after(self.random.uniform(0, self.slow), each.read)

    def join(self) -> None:
        member = Member(self, self.limit, self.random.choice([1, 3, self.limit, self.limit]))
        self.members.append(member)
        member.read()
        member.tick()
        self.changed_at = self.now

    def crash(self) -> None:
        if self.alive:
            self.random.choice(self.alive).gone = True
            self.changed_at = self.now

    def leave(self) -> None:
        if self.alive:
            self.random.choice(self.alive).leaving = True
            self.changed_at = self.now

    def stop(self) -> None:
        if self.alive:
            one = self.random.choice(self.alive)
            if not one.stopped:
                one.stopped = True
                self.at(self.now + self.random.choice([1, 10, 40]), lambda: self._resume(one))
                self.changed_at = self.now

    def _resume(self, one: Member) -> None:
        one.stopped = False
        self.changed_at = self.now
        for do in self.waiting.pop(one.id, []):
            if not one.gone:
                do()

    def cut(self) -> None:
        if self.alive:
            one = self.random.choice(self.alive)
            if not one.cut:
                one.cut = True
                self.at(self.now + self.random.choice([0.5, 5, 15, 40]), lambda: self._mend(one))
                self.changed_at = self.now

    def _mend(self, one: Member) -> None:
        one.cut = False
        self.changed_at = self.now
        one.after(0.01, one.read)

    def slowness(self) -> None:
        self.slow = self.random.choice([0.02, 0.02, 1.0, 3.0])
        self.changed_at = self.now

    def check(self) -> None:
        """Count what LCM has."""
        held = sum(each.counted for each in self.members)
        self.peak = max(self.peak, held)
        if held > self.limit:
            states = [
                (each.id, each.counted, each.stopped, each.cut) for each in self.members if each.counted
            ]
            self.violations.append(f"{self.now:.2f}: {held} of {self.limit}: {states}")

    def calm(self) -> float:
        """Go on undisturbed until nothing can be left over from before; return the part of what is possible in use."""
        self.slow = 0.02
        for each in self.members:
            each.cut = False
            if each.stopped:
                self._resume(each)
        if all(each.leaving for each in self.alive):
            self.join()
        self.run(REPLY_TIMEOUT + 10 + MARGIN + REPLY_TIMEOUT + 5)
        possible = min(self.limit, sum(each.want for each in self.alive))
        return sum(each.counted for each in self.members) / possible


def trial(seed: int, *, kept: int = 0) -> Fleet:
    """Run one fleet through random events, with quiet times between; what went wrong is in its `violations`."""
    random = Random(seed ^ 0x5EED)  # noqa: S311
    fleet = Fleet(seed, random.choice([1, 3, 7, 40]), kept=kept)
    for _ in range(random.randint(1, 8)):
        fleet.join()
        fleet.run(random.choice([0, 0, 1]))
    events = [fleet.join, fleet.crash, fleet.leave, fleet.stop, fleet.cut, fleet.slowness, fleet.join]
    for _ in range(5):
        for _ in range(random.randint(1, 12)):
            random.choice(events)()
            fleet.run(random.choice([0.0, 0.1, 1, 5, 20]))
        used = fleet.calm()
        if used < 1:
            fleet.violations.append(f"{fleet.now:.2f}: {used:.2f} of what is possible is in use when calm")
    return fleet
