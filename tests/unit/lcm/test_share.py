"""A worker that keeps to its share: its sessions, its rate, and whether it takes jobs."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.support.lcm import SetClock
from tests.support.lcm_bench import Bench
from tests.support.settings import lcm_settings
from tests.support.waiting import settled
from worker.common.clock import SYSTEM_CLOCK
from worker.common.rate import Rate
from worker.contract.errors import Deferred
from worker.contract.intake import Intake, PauseReason
from worker.fleet.beat import Amounts, Beat
from worker.lcm.share import Part, ShareKeeper, seat_for


class Taking:
    """The intake, as far as it is paused and resumed."""

    def __init__(self) -> None:
        self.paused: set[PauseReason] = set()

    def pause(self, reason: PauseReason) -> None:
        self.paused.add(reason)

    def resume(self, reason: PauseReason) -> None:
        self.paused.discard(reason)


class Desk:
    """A worker of which all is scripted but its seat; `others` are what other workers say."""

    def __init__(self, **settings: Any) -> None:
        lcm = lcm_settings("ws://lcm/", **settings)
        self.clock = SetClock()
        self.clock.seconds = SYSTEM_CLOCK.monotonic()  # the pool's
        self.bench = Bench(**settings)
        self.pool = self.bench.pool
        self.rate = Rate(lcm.max_rate)
        self.intake = Taking()
        self.seat = seat_for(lcm, "w-1")
        self.keeper = ShareKeeper(
            self.seat,
            lcm,
            self.pool,
            self.rate,
            intake=cast(Intake, self.intake),
            log=self.bench.log,
            clock=self.clock.clock,
        )
        self._offset = 0

    @property
    def now(self) -> float:
        return self.clock.seconds

    def read(self, beat: Beat) -> None:
        """Read a beat, and keep to what follows."""
        self.seat.read(beat, self._offset, self.now)
        self._offset += 1
        self.keeper()

    def beat(self) -> None:
        """Beat, and read it back."""
        self.read(self.seat.beat(self.now, self.pool.held))

    def other(self, number: int = 1, **said: Any) -> None:
        """Read the beat of another worker."""
        told: dict[str, Any] = {"limit": Amounts(4), "want": Amounts(8), "claim": Amounts(2)} | said
        self.read(Beat(id="other", name="w-2", number=number, hold=20.0, **told))


async def test_without_a_limit_nothing_is_kept_to() -> None:
    """A worker that shares no limit has no part, hears whatever happens, and opens what it likes."""
    desk = Desk(sessions=2)
    desk.keeper()
    assert (desk.keeper.part(), desk.keeper.hears, desk.intake.paused) == (None, True, set())
    await desk.bench.session()


async def test_no_session_is_opened_before_a_share_is_known() -> None:
    """What waits is served once the own beat has been read back, and no further than the share."""
    desk = Desk(sessions=8, fleet_sessions=4)
    asked = [desk.bench.acquire() for _ in range(8)]
    await settled()
    assert desk.bench.openings == []
    desk.beat()
    await settled()
    assert len(desk.bench.openings) == 4
    assert desk.keeper.part() == Part(1, 4, None)
    for each in asked:
        each.cancel()


async def test_sessions_are_given_up_as_they_become_idle() -> None:
    """A share that falls closes idle sessions at once, and a busy one when its exchange is done."""
    desk = Desk(sessions=8, fleet_sessions=4)
    desk.beat()
    sessions = [await desk.bench.session() for _ in range(4)]
    desk.bench.used(sessions[0])
    desk.other()
    await settled()
    assert (sessions[0].alive, desk.pool.held) == (False, 3)
    desk.bench.used(sessions[1])
    await settled()
    assert (sessions[1].alive, desk.pool.held) == (False, 2)


async def test_without_a_share_no_job_is_taken_and_what_waits_is_deferred() -> None:
    """Where other workers have all sessions, this one stands by."""
    desk = Desk(sessions=8, fleet_sessions=1)
    desk.other(claim=Amounts(1))
    waiting = desk.bench.acquire()
    await settled()
    desk.beat()
    assert desk.intake.paused == {PauseReason.NO_SHARE}
    with pytest.raises(Deferred, match="other workers have all sessions"):
        await waiting
    desk.other(2, leaves=True)
    desk.beat()
    assert desk.intake.paused == set()


async def test_a_share_that_lapses_ends_every_session_and_its_exchange_is_not_charged() -> None:
    """Without a beat read back in time, nothing may be asked, then nothing be held."""
    desk = Desk(sessions=8, fleet_sessions=4)
    desk.beat()
    session = await desk.bench.session()
    desk.clock.seconds = desk.seat.ends_at
    desk.keeper()
    assert (session.lapsed, desk.pool.held) == (True, 0)
    assert desk.pool.turned_away(cast(Any, session))
    [told] = desk.bench.log.of("fleet.share_lapsed")
    assert told["sessions"] == 1
    desk.keeper()
    assert len(desk.bench.log.of("fleet.share_lapsed")) == 1


async def test_the_rate_follows_the_share_and_the_own_limit() -> None:
    """The less of both holds; where nobody limits the rate of all any more, the own one."""
    desk = Desk(sessions=8, fleet_sessions=4, max_rate=30)
    limited: dict[str, Any] = {
        "limit": Amounts(4, 20_000),
        "want": Amounts(8, 10**6),
        "claim": Amounts(2, 10_000),
    }
    desk.beat()
    desk.rate.reserve(0.0)
    assert desk.rate.reserve(0.0) == pytest.approx(1 / 30)
    desk.other(**limited)
    desk.beat()
    part = desk.keeper.part()
    assert part is not None
    assert part.rate == 10.0
    desk.other(2, leaves=True, **limited)
    desk.beat()
    after = desk.keeper.part()
    assert after is not None
    assert after.rate is None
    desk.rate.reserve(100.0)
    assert desk.rate.reserve(100.0) == pytest.approx(1 / 30)


async def test_differing_limits_are_told_once() -> None:
    """With each worker's name and limits, and again only after they agreed, and a minute later."""
    desk = Desk(sessions=8, fleet_sessions=4)
    desk.beat()
    desk.other(limit=Amounts(3))
    desk.other(2, limit=Amounts(3))
    assert len(desk.bench.log.of("fleet.limits_differ")) == 1
    desk.other(3)
    desk.other(4, limit=Amounts(3))
    assert len(desk.bench.log.of("fleet.limits_differ")) == 1
    desk.clock.seconds += 60.0
    desk.other(5)
    desk.other(6, limit=Amounts(3))
    assert len(desk.bench.log.of("fleet.limits_differ")) == 2
