"""One run of one schedule: the real pool, sessions, lookup and keeper, on virtual time, looked at all along."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from tests.simulation.books import Books
from tests.simulation.intake import DEFERRED_FOR, Intake
from tests.simulation.lcm import Lcm
from tests.simulation.loop import Spinning, VirtualLoop
from tests.simulation.plan import Job, Plan, draw_moment, draw_plan
from tests.simulation.watched import Log, Opener, Sides
from tests.support.lcm import START
from worker.common.clock import Clock
from worker.lcm.breaker import Breaker
from worker.lcm.lookup import build_lookup
from worker.lcm.outage import OutageMonitor, Prober
from worker.lcm.places import Places
from worker.lcm.pool import Pool
from worker.lcm.single_flight import SingleFlight

_HOURS = 2 * 3600.0
_QUIET = 120.0
_SHUTDOWN = 60.0
_BETWEEN_COLLECTIONS = 100


@dataclass(slots=True)
class Run:
    """What became of one schedule: what must never happen and did, and, where traced, all that happened."""

    plan: Plan
    violations: list[str] = field(default_factory=list)
    trace: list[str] | None = None

    def __str__(self) -> str:
        return "\n".join(
            [
                str(self.plan),
                *(f"  {line}" for line in self.trace or ()),
                *(f"  WRONG: {wrong}" for wrong in self.violations),
            ]
        )


def run(seed: int, *, traced: bool = False) -> Run:
    """Run the schedule of this seed. The same seed is the same run."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    found = Run(draw_plan(seed, draw), trace=[] if traced else None)
    loop = VirtualLoop(draw, found.violations.append)
    try:
        _Simulation(found, loop, draw).go()
    except Spinning as spinning:
        found.violations.append(str(spinning))
    finally:
        loop.close()
    return found


def runs(seeds: Sequence[int], *, traced: bool = False) -> Iterator[Run]:
    """Run one schedule after the other.

    Some complaints, such as of an exception that nobody asked for, come only with the garbage collection; which
    takes place between the runs alone, so that each complaint reaches its own run before that is given out.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for start in range(0, len(seeds), _BETWEEN_COLLECTIONS):
            batch = [run(seed, traced=traced) for seed in seeds[start : start + _BETWEEN_COLLECTIONS]]
            gc.collect()
            yield from batch
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


class _Simulation:
    def __init__(self, found: Run, loop: VirtualLoop, draw: random.Random) -> None:
        plan, note, violated = found.plan, self._note, found.violations.append
        self._found = found
        self._plan = plan
        self._loop = loop
        self._draw = draw
        self._connects: deque[float] = deque()
        self._others: list[asyncio.Task[None]] = []
        outage = plan.outage
        clock = Clock(lambda: START + timedelta(seconds=loop.time()), loop.time, asyncio.sleep, self._jitter)
        self._breaker = Breaker(outage.failures, outage.probe_delay, outage.probe_max_delay)
        self._lcm = Lcm(loop, plan, draw, note=note, violated=violated, on_connect=self._on_connect)
        opener = Opener(plan, self._lcm)
        log = Log(note, violated, opener)
        self._monitor = OutageMonitor(self._breaker, log, clock)
        self._pool = Pool(
            opener,
            plan.lcm,
            outage,
            log,
            clock=clock,
            on_away=self._monitor.session_not_opened,
            on_opened=self._monitor.session_opened,
        )
        books = Books(self._monitor, self._on_probe, violated)
        self._lcm.on_request = books.on_request
        prefetch = 2 * plan.lcm.sessions
        places = Places(prefetch, DEFERRED_FOR, clock)
        self._look_up = build_lookup(
            self._pool, plan.lcm, plan.retry, outages=books, places=places, clock=clock
        )
        self._intake = Intake(
            loop,
            books,
            self._look_up,
            prefetch,
            moment=partial(draw_moment, draw),
            note=note,
            violated=violated,
        )
        sides = Sides(self._pool, self._intake, violated)
        self._prober = Prober(self._monitor, sides, sides, sides.look_up, log, clock=clock)

    def go(self) -> None:
        plan, intake, loop = self._plan, self._intake, self._loop
        for job in plan.jobs:
            intake.expect(job)
        loop.call_at(plan.well_at, self._get_well)
        if plan.readies_itself:
            self._others.append(loop.create_task(self._ready_itself(), name="get-ready"))
        if plan.stop_at is not None:
            loop.advance(plan.stop_at)
        else:
            loop.advance(plan.well_at + _HOURS, lambda: not intake.left)
            if intake.left:
                self._violated(f"jobs {sorted(intake.left)} have not ended, {_HOURS:g} s after LCM was well")
            self._recover()
            self._be_quiet()
        self._stop()

    def _recover(self) -> None:
        """Once LCM is well, no outage outlasts the next job, which is looked up."""
        self._get_well()
        loop, intake = self._loop, self._intake
        if self._breaker.outage is not None:
            intake.expect(Job(len(self._plan.jobs) + 1, "a last", loop.time()))
        loop.advance(loop.time() + _HOURS, lambda: not intake.left and self._breaker.outage is None)
        if intake.left or self._breaker.outage is not None:
            self._violated(f"no end: {self._breaker!r}, {self._pool!r}, {len(intake.left)} jobs left")

    def _be_quiet(self) -> None:
        """With nothing to do, nothing is left of what was done."""
        self._loop.advance(self._loop.time() + _QUIET)
        counts = self._pool.counts()
        if counts["busy"] or counts["opening"] or counts["waiting"]:
            self._violated(f"nothing is to be done, but {self._pool!r}")
        if isinstance(self._look_up, SingleFlight) and self._look_up._flights:
            self._violated(f"flights are left: {self._look_up._flights}")
        names = [task.get_name() for task in self._loop.tasks_left()]
        if names:
            self._violated(f"beside {self._pool!r} there are the tasks {names}")
        if self._lcm.open != counts["idle"]:
            self._violated(f"{self._lcm.open} connections are open beside {self._pool!r}")

    def _stop(self) -> None:
        """Stop as the worker does; nothing outlasts that."""
        self._note("the worker stops")
        stopping = self._loop.create_task(self._shut_down())
        self._loop.advance(self._loop.time() + _SHUTDOWN)
        if not stopping.done():
            self._violated(f"the worker has not stopped after {_SHUTDOWN:g} s")
        elif not stopping.cancelled() and (error := stopping.exception()):
            self._violated(f"stopping broke: {error!r}")
        if tasks := self._loop.tasks_left():
            self._violated(f"after the stop there are {[task.get_name() for task in tasks]}")
            for task in tasks:
                task.cancel()
            self._loop.advance(self._loop.time() + _SHUTDOWN)
        if self._lcm.open:
            self._violated(f"after the stop {self._lcm.open} connections are open")

    async def _shut_down(self) -> None:
        await self._prober.stop()
        hands = self._intake.stop()
        for other in self._others:
            other.cancel()
        await asyncio.gather(*hands, *self._others, return_exceptions=True)
        await self._pool.close()

    async def _ready_itself(self) -> None:
        while not await self._pool.probe():
            pass

    def _get_well(self) -> None:
        if not self._lcm.well:
            self._note("LCM is well")
            self._lcm.well = True

    def _on_connect(self) -> None:
        if not self._monitor.out:
            self._connects.clear()
            return
        now, times = self._loop.time(), self._connects
        times.append(now)
        while times[0] <= now - self._plan.outage.probe_delay:
            times.popleft()
        if len(times) > self._plan.lcm.sessions + 2:
            self._violated(f"{len(times)} connects within one probe_delay of an outage")

    def _on_probe(self) -> None:
        """Where the pool makes no pause before it opens a session, the keeper makes one before it probes."""
        outage = self._breaker.outage
        assert outage is not None
        came = self._loop.time() - outage.since
        if came < self._plan.outage.probe_delay / 2 and not self._pool.backing_off:
            self._violated(f"a probe came {came:g} s after the outage began")

    def _jitter(self, low: float, high: float) -> float:
        """Draw the ends and the middle alone, so that events meet."""
        return low + (high - low) * self._draw.choice((0.0, 0.5, 1.0))

    def _violated(self, wrong: str) -> None:
        self._found.violations.append(wrong)

    def _note(self, *what: object) -> None:
        if self._found.trace is not None:
            self._found.trace.append(f"{self._loop.time():9.3f}  {' '.join(map(str, what))}")
