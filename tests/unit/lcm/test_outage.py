"""Who probes, and when, while one outage follows another."""

from __future__ import annotations

import asyncio

from tests.support.log import RecordingLog
from tests.support.waiting import settled
from worker.common.backoff import Jitter
from worker.common.clock import Clock
from worker.contract.errors import Deferred, ReplyTimeout
from worker.contract.intake import PauseReason
from worker.contract.job import Producer
from worker.contract.lookup import LookupRequest, LookupResult
from worker.lcm.breaker import Breaker
from worker.lcm.outage import OutageMonitor, Prober


class Sides:
    """The pool and the intake, whose one job takes as long as the test says."""

    def __init__(self, *, backing_off: bool) -> None:
        self.backing_off = backing_off
        self.taking = 0
        self.most = 0
        self.job_ends = asyncio.Event()

    def pause(self, reason: PauseReason) -> None: ...
    def resume(self, reason: PauseReason) -> None: ...
    def reject_waiters(self, reason: str) -> None: ...

    async def probe(self) -> bool:
        return False

    async def depth(self) -> int:
        return 10

    async def take_one(self, _timeout: float) -> bool:
        self.taking += 1
        self.most = max(self.most, self.taking)
        await self.job_ends.wait()
        self.job_ends.clear()
        self.taking -= 1
        return True

    async def look_up(self, _request: LookupRequest) -> LookupResult:
        await self.take_one(0)
        raise ReplyTimeout("silence")


async def test_one_probe_is_under_way_however_soon_an_outage_follows_another() -> None:
    """A probe that outlasts its outage goes on with the next one, which gets no second prober beside it."""
    log = RecordingLog()
    monitor = OutageMonitor(Breaker(failures=1, probe_delay=1, probe_max_delay=1), log)
    sides = Sides(backing_off=True)
    prober = Prober(monitor, sides, sides, sides.look_up, log)
    for _ in range(3):
        monitor.not_answered("a", ReplyTimeout("silence"))
        await settled()
        monitor.answered("a")
    monitor.not_answered("a", ReplyTimeout("silence"))
    await settled()
    assert (sides.taking, sides.most) == (1, 1)
    sides.job_ends.set()
    await settled()
    assert (sides.taking, sides.most, bool(monitor.out)) == (1, 1, True)
    await prober.stop()


async def test_a_pause_that_outlasts_its_outage_lets_nobody_through() -> None:
    """A permission to probe is given for the outage it was waited for: neither in peace, nor early in the next one."""
    wakes: list[asyncio.Future[None]] = []
    now = 0.0

    def sleep(_seconds: float) -> asyncio.Future[None]:
        wakes.append(asyncio.get_running_loop().create_future())
        return wakes[-1]

    breaker = Breaker(failures=1, probe_delay=1, probe_max_delay=1)
    monitor = OutageMonitor(breaker, RecordingLog(), Clock(monotonic=lambda: now))
    sides = Sides(backing_off=False)
    prober = Prober(monitor, sides, sides, sides.look_up, RecordingLog(), clock=Clock(sleep=sleep))
    for _ in range(2):
        monitor.not_answered("a", ReplyTimeout("silence"))
        await settled()
        monitor.answered("a")
        now += 0.4
    monitor.not_answered("a", ReplyTimeout("silence"))
    wakes[0].set_result(None)
    await settled()
    assert (len(wakes), monitor.admit_probe(), sides.taking) == (2, False, 0)
    wakes[1].set_result(None)
    await settled()
    assert (monitor.admit_probe(), sides.taking) == (True, 1)
    monitor.answered("b")
    await prober.stop()


async def test_a_job_that_comes_late_in_an_outage_does_not_wait_for_the_pause() -> None:
    """With nothing to probe with, a look for a job comes every first delay, however long the outage has lasted."""
    pauses: list[float] = []

    class Empty(Sides):
        async def take_one(self, _timeout: float) -> bool:
            self.taking += 1
            return self.taking > 4  # the first of these looks is for a job to pass over

    def sleep(seconds: float) -> asyncio.Future[None]:
        pauses.append(seconds)
        slept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(pauses) < 5:
            slept.set_result(None)
        return slept

    breaker = Breaker(failures=1, probe_delay=1, probe_max_delay=30)
    monitor = OutageMonitor(breaker, RecordingLog())
    sides = Empty(backing_off=False)
    clock = Clock(sleep=sleep, jitter=lambda _low, high: high)
    prober = Prober(monitor, sides, sides, sides.look_up, RecordingLog(), clock=clock)
    monitor.not_answered("a", ReplyTimeout("silence"))
    for probe in range(3):
        monitor.not_answered(f"{probe}", ReplyTimeout("silence"))
    await settled()
    await settled()
    assert pauses == [8, 1, 1, 1, 8]
    await prober.stop()


BAD = Producer("bad")


class Failing(Sides):
    """All that is asked of LCM fails; what is asked is told: an account, a job, or a job that is passed over."""

    def __init__(self, most: int) -> None:
        super().__init__(backing_off=True)
        self.asked: list[str] = []
        self.producers: list[Producer] = []
        self.monitor = OutageMonitor(Breaker(failures=1, probe_delay=1, probe_max_delay=1), RecordingLog())
        self._most = most

    async def take_one(self, _timeout: float) -> bool:
        return await self._ask("job")

    async def look_up(self, request: LookupRequest) -> LookupResult:
        await self._ask(request.account)
        raise Deferred("LCM is out")

    async def _ask(self, what: str) -> bool:
        if len(self.asked) == self._most:
            await asyncio.Event().wait()
        producer = self.producers.pop(0) if self.producers else BAD
        if producer is not BAD:
            what += f" of {producer.user_id}"
        probes = self.monitor.admit_probe(producer)
        self.asked.append(what if probes else "passed over")
        if probes:
            self.monitor.not_answered(f"{what} {len(self.asked)}", ReplyTimeout("silence"), producer)
        return True

    async def fail(self, jitter: Jitter) -> list[str]:
        """Return what was asked for, as often as is allowed, in an outage."""
        clock = Clock(jitter=jitter)
        prober = Prober(self.monitor, self, self, self.look_up, RecordingLog(), clock=clock)
        self.monitor.not_answered(self.monitor.breaker.answered_last, ReplyTimeout("silence"), BAD)
        for _ in range(self._most):
            await settled()
        await prober.stop()
        return self.asked


async def test_the_account_that_lcm_answered_last_is_asked_for_in_turn_with_a_job() -> None:
    """It may be for the accounts that fail, not for LCM: one that LCM answers ends the outage, whatever waits."""
    sides = Failing(most=4 + 5 + 5)
    sides.monitor.answered("good")
    asked = await sides.fail(jitter=lambda low, _: low)
    assert [what for what in asked if what != "passed over"] == ["good", "job", "good", "job"]


async def test_the_job_to_probe_with_is_of_another_producer_than_those_whose_failed() -> None:
    """Pitfall: behind 1,500 accounts of one producer that LCM never answers, others waited for many probes in vain."""
    sides = Failing(most=1 + 6 + 1)
    sides.producers = [BAD] * 7 + [Producer("other")]
    assert await sides.fail(jitter=lambda _, high: high) == ["job", *["passed over"] * 6, "job of other"]


async def test_after_the_first_probe_the_job_is_drawn_from_those_that_wait() -> None:
    """LCM may answer badly for all that wait first: those behind are reached before all of these were probed with."""
    sides = Failing(most=1 + 10 + 1)
    asked = await sides.fail(jitter=lambda _, high: high)
    assert asked == ["job", *["passed over"] * 10, "job"]
