"""Who probes, and when, while one outage follows another."""

from __future__ import annotations

import asyncio

from tests.support.log import RecordingLog
from tests.support.waiting import settled
from worker.common.clock import Clock
from worker.contract.errors import ReplyTimeout
from worker.contract.intake import PauseReason
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

    async def take_one(self, _timeout: float) -> bool:
        self.taking += 1
        self.most = max(self.most, self.taking)
        await self.job_ends.wait()
        self.job_ends.clear()
        self.taking -= 1
        return True


async def test_one_probe_is_under_way_however_soon_an_outage_follows_another() -> None:
    """A probe that outlasts its outage goes on with the next one, which gets no second prober beside it."""
    log = RecordingLog()
    monitor = OutageMonitor(Breaker(failures=1, probe_delay=1, probe_max_delay=1), log)
    sides = Sides(backing_off=True)
    prober = Prober(monitor, sides, sides, log)
    for number in range(3):
        monitor.not_answered(f"{number}", ReplyTimeout("silence"))
        await settled()
        monitor.answered("b")
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
    prober = Prober(monitor, sides, sides, RecordingLog(), Clock(sleep=sleep))
    for number in range(2):
        monitor.not_answered(f"{number}", ReplyTimeout("silence"))
        await settled()
        monitor.answered("b")
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
            return self.taking > 3

    def sleep(seconds: float) -> asyncio.Future[None]:
        pauses.append(seconds)
        slept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(pauses) < 5:
            slept.set_result(None)
        return slept

    breaker = Breaker(failures=1, probe_delay=1, probe_max_delay=30)
    monitor = OutageMonitor(breaker, RecordingLog())
    sides = Empty(backing_off=False)
    prober = Prober(monitor, sides, sides, RecordingLog(), Clock(sleep=sleep, jitter=lambda _low, high: high))
    monitor.not_answered("a", ReplyTimeout("silence"))
    for probe in range(3):
        monitor.not_answered(f"{probe}", ReplyTimeout("silence"))
    await settled()
    await settled()
    assert pauses == [8, 1, 1, 1, 8]
    await prober.stop()
