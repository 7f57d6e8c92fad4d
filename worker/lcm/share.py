"""Keeps this worker to its share of what the fleet may use: its sessions, its rate, and whether it takes jobs."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.common.rate import Rate
from worker.contract.intake import Intake, PauseReason
from worker.fleet.beat import PER_RATE, Amounts
from worker.fleet.roster import UNLIMITED
from worker.fleet.seat import Seat
from worker.lcm.pool import Pool
from worker.observability.log import Log
from worker.settings import LcmSettings

_PAUSE = 60.0  # seconds between two lines on one matter that others' beats can change at any time
_NO_SHARE = "other workers have all sessions with LCM, or this one can't hear from them"


def seat_for(lcm: LcmSettings, worker: str) -> Seat:
    """Return the seat of a new worker."""
    return Seat(
        f"{worker} {uuid4().hex}",
        worker,
        Amounts(lcm.fleet_sessions, _per_rate(lcm.fleet_rate)),
        Amounts(lcm.sessions, _per_rate(lcm.max_rate) or UNLIMITED),
        lcm.reply_timeout,
    )


def _per_rate(per_second: float) -> int:
    return round(per_second * PER_RATE)


@dataclass(frozen=True, slots=True)
class Part:
    """What this worker may use of the fleet's limits: sessions, and exchanges per second; None where there is none."""

    workers: int
    sessions: int | None
    rate: float | None

    @property
    def is_nothing(self) -> bool:
        """Whether nothing can be asked with it."""
        return self.sessions == 0 or self.rate == 0


class ShareKeeper:
    """Has the pool, the rate and the intake follow the seat. To be called whenever the seat may have changed."""

    def __init__(
        self,
        seat: Seat,
        lcm: LcmSettings,
        pool: Pool,
        rate: Rate,
        *,
        intake: Intake,
        log: Log,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._seat = seat
        self._lcm = lcm
        self._pool = pool
        self._rate = rate
        self._intake = intake
        self._log = log
        self._clock = clock
        self._told_differing = False
        self._tells_differing_from = 0.0
        self._joined = False
        if seat.limited:
            pool.lapse()

    def part(self) -> Part | None:
        """Return this worker's part now; None where no limit is shared."""
        if not self._seat.limited:
            return None
        share = self._seat.share(self._clock.monotonic())
        limit = self._seat.roster.limit()
        return Part(
            self._seat.size,
            share.sessions if limit.sessions or self._lcm.fleet_sessions else None,
            share.rate / PER_RATE if limit.rate or self._lcm.fleet_rate else None,
        )

    @property
    def hears(self) -> bool:
        """Whether this worker knows its part, since its beats are read back; true where no limit is shared."""
        return not self._seat.limited or self._clock.monotonic() < self._seat.ends_at

    def __call__(self) -> None:
        """Use no more than the share, and as much."""
        part = self.part()
        self._joined = self._joined or self.hears
        if part is None or not self._joined:
            return
        if part.is_nothing or not self.hears:
            self._use_nothing()
        else:
            self._use(part)
        self._tell_differing()

    def _use(self, part: Part) -> None:
        sessions = self._lcm.sessions if part.sessions is None else part.sessions
        self._pool.limit(sessions, self._seat.asks_until)
        rates = [rate for rate in (part.rate, self._lcm.max_rate) if rate]
        self._rate.set(min(rates, default=0.0))
        self._intake.resume(PauseReason.NO_SHARE)

    def _use_nothing(self) -> None:
        if not self.hears and self._pool.held:
            self._log.warning("fleet.share_lapsed", sessions=self._pool.held)
            self._pool.lapse()
        self._pool.limit(0, self._seat.asks_until)
        self._intake.pause(PauseReason.NO_SHARE)
        self._pool.reject_waiters(_NO_SHARE)

    def _tell_differing(self) -> None:
        """Say once that workers' settings differ, and again after a minute at the soonest; the least limit holds."""
        if len({member.beat.limit for member in self._seat.roster.members.values()}) <= 1:
            self._told_differing = False
        elif not self._told_differing and (now := self._clock.monotonic()) >= self._tells_differing_from:
            self._told_differing, self._tells_differing_from = True, now + _PAUSE
            limits = {
                member.beat.name: (member.beat.limit.sessions, member.beat.limit.rate / PER_RATE)
                for member in list(self._seat.roster.members.values())[:20]
            }
            self._log.warning("fleet.limits_differ", limits=limits)
