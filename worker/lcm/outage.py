"""Outages of LCM: the monitor notices them, the prober has jobs deferred and tries LCM until it is back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.common.tasks import cancel, start
from worker.contract.errors import Deferred, LookupFailed, SessionNotOpened, StaleDelivery
from worker.contract.intake import Intake, PauseReason
from worker.contract.job import NOBODY, Producer
from worker.contract.lookup import Lookup, LookupRequest
from worker.lcm.breaker import Breaker, Outage
from worker.observability.log import Log

_JOB_TIMEOUT = 5.0  # seconds to wait for a job to probe with, before looking whether the outage still lasts
_AT_HAND = 0.5  # seconds in which a job comes that waits
_BY_SESSIONS = "jobs are deferred until LCM is back; see lcm.url, its credentials, and LCM itself"
_BY_EXCHANGES = (
    "jobs are deferred until LCM answers one; see what `lcm-worker lookup` gets, and lcm.reply_timeout"
)


class Sessions(Protocol):
    """The side that keeps sessions with LCM."""

    @property
    def backing_off(self) -> bool: ...
    def reject_waiters(self, reason: str) -> None: ...
    async def probe(self) -> bool: ...


class Jobs(Intake, Protocol):
    """The intake, which also tells how many jobs wait at the broker, 0 where it doesn't say."""

    async def depth(self) -> int: ...


class OutageMonitor:
    """Is told how sessions and exchanges fare, and knows whether LCM is out."""

    def __init__(self, breaker: Breaker, log: Log, clock: Clock = SYSTEM_CLOCK) -> None:
        self.breaker = breaker
        self._log = log
        self._monotonic = clock.monotonic
        self.may_probe = False
        self._of_others = False
        self._probers: list[Prober] = []

    def add(self, prober: Prober) -> None:
        """Have a prober told, at once, when an outage starts and when it ends."""
        self._probers.append(prober)

    @property
    def out(self) -> str:
        """Why LCM is out, "" where it isn't."""
        outage = self.breaker.outage
        return f"LCM is out: {outage.reason}" if outage else ""

    def allow_probe(self, *, of_others: bool = False) -> None:
        """Let the next exchange take place in spite of the outage; `may_probe` tells that it has not.

        With `of_others`, the next one for a producer of which none has failed.
        """
        self.may_probe, self._of_others = True, of_others

    def admit_probe(self, producer: Producer = NOBODY) -> bool:
        """Whether this exchange for a job of this producer is the one that may take place."""
        if self._of_others and self.breaker.has_failed(producer):
            return False
        admitted, self.may_probe = self.may_probe, False
        return admitted

    @property
    def doubted(self) -> str:
        """The account to ask for before anything else, to know whether LCM is out; "" where that is known."""
        return self.breaker.doubted

    def not_settled(self) -> None:
        """It could not be asked for."""
        self.breaker.not_settled()

    def answered(self, account: str) -> None:
        self._after(self.breaker.answered(account))

    def not_answered(self, account: str, error: LookupFailed, producer: Producer = NOBODY) -> None:
        reason = f"the exchanges of different accounts fail in a row, last by {error.code}"
        self._before(self.breaker.not_answered(account, reason, self._monotonic(), producer), reason)

    def session_opened(self) -> None:
        self._after(self.breaker.session_opened())

    def session_not_opened(self, error: SessionNotOpened) -> None:
        # What LCM said is told here, once: where the reason goes from here, not everybody may read it.
        outage = self.breaker.session_not_opened(str(error), self._monotonic(), refused=error.refused)
        self._before(outage, error)

    def _before(self, outage: Outage | None, reason: str | SessionNotOpened) -> None:
        if outage is None:
            return
        self._log.warning(
            "lcm.outage_started",
            reason=reason,
            by="exchanges" if outage.by_exchanges else "sessions",
            remedy=_BY_EXCHANGES if outage.by_exchanges else _BY_SESSIONS,
        )
        for prober in self._probers:
            prober.outage_started()

    def _after(self, outage: Outage | None) -> None:
        if outage is None:
            return
        seconds = round(self._monotonic() - outage.since, 1)
        # The probes that failed, and the one that did not.
        self._log.info("lcm.outage_ended", seconds=seconds, probes=outage.probes + 1)
        self.may_probe = False
        for prober in self._probers:
            prober.outage_ended()


class Prober:
    """Pauses the intake during an outage, and tries LCM with one session or one exchange at a time until it is back.

    Where exchanges had failed, the account that LCM answered last is asked for in turn with a job that waits: of those
    within reach the first of a producer whose jobs have not failed.
    """

    def __init__(
        self,
        monitor: OutageMonitor,
        sessions: Sessions,
        intake: Jobs,
        look_up: Lookup,
        log: Log,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._monitor = monitor
        self._breaker = monitor.breaker
        self._sessions = sessions
        self._intake = intake
        self._look_up = look_up
        self._log = log
        self._clock = clock
        self._takes_job = False
        self._probing: asyncio.Task[None] | None = None
        monitor.add(self)

    def outage_started(self) -> None:
        """Take no more jobs, let nobody wait for a session, and begin to probe."""
        self._takes_job = False
        self._intake.pause(PauseReason.OUTAGE)
        self._sessions.reject_waiters(self._monitor.out)
        # The probe of an outage that has just ended may still be under way: it goes on with this one.
        if self._probing is None or self._probing.done():
            self._probing = start(self._probe(), "lcm-probe")

    def outage_ended(self) -> None:
        """Take jobs again."""
        self._intake.resume(PauseReason.OUTAGE)

    async def stop(self) -> None:
        """Probe no more."""
        await cancel(self._probing)

    async def _probe(self) -> None:
        while (outage := self._breaker.outage) is not None:
            try:
                await self._probe_once(outage)
            except Exception:  # noqa: BLE001 - probing must go on, or work would never resume
                self._log.exception("lcm.probe_broke")
                await self._clock.sleep(self._breaker.probe_delay(self._clock.jitter))

    async def _probe_once(self, outage: Outage) -> None:
        if not outage.by_exchanges:
            # The pool opens one session at a time, each after a pause, for as long as somebody waits.
            await self._sessions.probe()
            return
        known = self._breaker.answered_last
        takes_job, self._takes_job = self._takes_job or not known, not self._takes_job
        if not self._sessions.backing_off:
            await self._clock.sleep(self._breaker.probe_delay(self._clock.jitter))
        if self._is_over(outage):
            return  # The next outage's first probe is timed from its own start.
        if not takes_job:
            await self._ask_again(known, outage)
        elif not await self._ask_for_job_of_others(outage):
            await self._ask_for_job(outage)

    async def _ask_for_job_of_others(self, outage: Outage) -> bool:
        """Return whether there was one among those within reach, or the outage is over."""
        left = self._breaker.reach(await self._intake.depth(), self._clock.jitter)
        if not left or self._is_over(outage):
            return self._is_over(outage)
        self._monitor.allow_probe(of_others=True)
        while left and self._monitor.may_probe and await self._intake.take_one(_AT_HAND):
            left -= 1
        return not self._monitor.may_probe

    async def _ask_again(self, account: str, outage: Outage) -> None:
        self._monitor.allow_probe()
        request = LookupRequest(account, is_wanted=lambda: not self._is_over(outage))
        with suppress(LookupFailed, Deferred, StaleDelivery):
            await self._look_up(request)

    async def _ask_for_job(self, outage: Outage) -> None:
        self._monitor.allow_probe()
        while not await self._intake.take_one(_JOB_TIMEOUT):
            # No long pause: no probe took place, and the next job that comes must not wait for it.
            await self._clock.sleep(self._breaker.look_delay(self._clock.jitter))
            if self._is_over(outage):
                return

    def _is_over(self, outage: Outage) -> bool:
        now = self._breaker.outage
        return now is None or now.since != outage.since
