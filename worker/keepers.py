"""Keep the worker from doing harm: pause the intake of jobs while LCM is out, or while nearly every job fails alike."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from worker.backoff import Jitter
from worker.disposition import Disposition
from worker.errors import LookupFailed, SessionNotOpened
from worker.guard import Guard
from worker.lcm.breaker import Breaker, Outage
from worker.telemetry import Log

Sleep = Callable[[float], Awaitable[object]]
_FEW = 3
_LISTENS = 5.0  # seconds for which a job to probe with is waited for, before it is asked whether that still makes sense
_BY_SESSIONS = "jobs are deferred until LCM is back; see lcm.url, its credentials, and LCM itself"
_BY_EXCHANGES = (
    "jobs are deferred until LCM answers one; see what `lcm-worker lookup` gets, and lcm.reply_timeout"
)


class Intake(Protocol):
    """The side that takes jobs from the broker."""

    def pause(self, reason: str) -> None: ...
    def resume(self, reason: str) -> None: ...

    async def take_one(self, patience: float) -> bool:
        """Take one job in spite of a pause and see it to its end; return whether one came within so many seconds."""


class Sessions(Protocol):
    """The side that keeps sessions with LCM."""

    @property
    def paced(self) -> bool: ...
    def turn_away(self, reason: str) -> None: ...
    async def try_one(self) -> bool: ...


class OutageKeeper:
    """Is told how LCM fares; while it is out, has jobs deferred, and probes with one session until it is back."""

    def __init__(
        self,
        breaker: Breaker,
        log: Log,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        jitter: Jitter = random.uniform,
    ) -> None:
        self._breaker = breaker
        self._log = log
        self._monotonic = monotonic
        self._sleep = sleep
        self._jitter = jitter
        self._may_probe = False
        self._probing: asyncio.Task[None] | None = None

    def attach(self, sessions: Sessions, intake: Intake) -> None:
        """Say whom to turn to; before anything else is called."""
        self._sessions = sessions
        self._intake = intake

    @property
    def out(self) -> str:
        """Why LCM is out, "" where it isn't."""
        outage = self._breaker.outage
        return f"LCM is out: {outage.reason}" if outage else ""

    def admit_probe(self) -> bool:
        """Let one exchange through, each time that a probe is due."""
        admitted, self._may_probe = self._may_probe, False
        return admitted

    def answered(self, account: str) -> None:
        self._after(self._breaker.answered(account))

    def not_answered(self, account: str, error: LookupFailed) -> None:
        reason = f"the exchanges of different accounts fail in a row, last by {error.code}"
        self._before(self._breaker.not_answered(account, reason, self._monotonic()))

    def session_opened(self) -> None:
        self._after(self._breaker.session_opened())

    def session_not_opened(self, error: SessionNotOpened) -> None:
        self._before(self._breaker.session_not_opened(str(error), self._monotonic(), refused=error.refused))

    async def stop(self) -> None:
        """Probe no more."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    def _before(self, outage: Outage | None) -> None:
        if outage is None:
            return
        self._log.warning(
            "lcm.outage_started",
            reason=outage.reason,
            by="exchanges" if outage.by_exchanges else "sessions",
            remedy=_BY_EXCHANGES if outage.by_exchanges else _BY_SESSIONS,
        )
        self._intake.pause("outage")
        self._sessions.turn_away(self.out)
        # The probe of an outage that has just ended may still be under way: it goes on with this one.
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().create_task(self._probe(), name="lcm-probe")

    def _after(self, outage: Outage | None) -> None:
        if outage is None:
            return
        seconds = round(self._monotonic() - outage.since, 1)
        # Those that failed, and the one that did not.
        self._log.info("lcm.outage_ended", seconds=seconds, probes=outage.probes + 1)
        self._may_probe = False
        self._intake.resume("outage")

    async def _probe(self) -> None:
        while (outage := self._breaker.outage) is not None:
            try:
                await self._probe_once(outage)
            except Exception:  # noqa: BLE001 - probing must go on, or work would never resume
                self._log.exception("lcm.probe_broke")
                await self._sleep(self._breaker.probe_delay(self._jitter))

    async def _probe_once(self, outage: Outage) -> None:
        if not outage.by_exchanges:
            # The pool opens one session at a time, each after a pause, for as long as somebody waits.
            await self._sessions.try_one()
            return
        if not self._sessions.paced:
            await self._sleep(self._breaker.probe_delay(self._jitter))
            if self._is_over(outage):
                return  # The next one waits for its first probe from its own start.
        self._may_probe = True
        while not await self._intake.take_one(_LISTENS):
            # No pause between probes: there was none, and the next job that comes is not to wait for it.
            await self._sleep(self._breaker.look_delay(self._jitter))
            if self._is_over(outage):
                return

    def _is_over(self, outage: Outage) -> bool:
        now = self._breaker.outage
        return now is None or now.since != outage.since


class GuardKeeper:
    """Is told how jobs end; when the guard trips, pauses, and then takes a few at a time until they succeed."""

    def __init__(
        self,
        guard: Guard,
        log: Log,
        *,
        pause: float,
        sleep: Sleep = asyncio.sleep,
        jitter: Jitter = random.uniform,
    ) -> None:
        self._guard = guard
        self._log = log
        self._pause = pause
        self._sleep = sleep
        self._jitter = jitter
        self._trying: asyncio.Task[None] | None = None

    def attach(self, intake: Intake) -> None:
        """Say whom to turn to; before anything else is called."""
        self._intake = intake

    def __call__(self, disposition: Disposition) -> None:
        """Take note of the end of a delivery."""
        if disposition.event not in {"job.succeeded", "job.failed"}:
            return
        code = disposition.error.code if disposition.error else None
        if not self._guard.job_ended(disposition.account, code):
            return
        if self._guard.tripped:
            self._log.error(
                "guard.tripped",
                error=code,
                remedy="nearly every job fails for good in the same way: look for a change at LCM or in this worker",
            )
            self._intake.pause("guard")
            self._trying = asyncio.get_running_loop().create_task(self._try(), name="guard")
        else:
            self._intake.resume("guard")

    async def stop(self) -> None:
        """Try no more."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.gather(self._trying, return_exceptions=True)

    async def _try(self) -> None:
        while self._guard.tripped:
            await self._sleep(self._jitter(self._pause / 2, self._pause))
            await self._try_a_few()

    async def _try_a_few(self) -> None:
        for _ in range(_FEW):
            if not (self._guard.tripped and await self._intake.take_one(self._pause)):
                return
