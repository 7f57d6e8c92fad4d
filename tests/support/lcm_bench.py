"""A pool of sessions that do as the test says."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from tests.support.log import RecordingLog
from tests.support.settings import lcm_settings
from tests.support.waiting import settled
from worker.common.clock import Clock
from worker.contract.errors import SessionNotOpened
from worker.lcm.pool import Pool
from worker.lcm.session import LAPSED, Ended, Session
from worker.settings import OutageSettings


class Scripted:
    """A session that does as the test says."""

    def __init__(self, slot: int, on_ended: Ended) -> None:
        self.slot = slot
        self.exchanges = self.answered = 0
        self.unsolicited = 0
        self.flooded = False
        self.alive = True
        self.ended_by_us = False
        self.lapsed = False
        self.reason = ""
        self.said = ""
        self.not_opened: SessionNotOpened | None = None
        self.lasted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._on_ended = on_ended

    def exchange(self) -> None:
        self.exchanges += 1
        self.answered += 1
        self.last()

    async def lasts(self) -> bool:
        return await asyncio.shield(self.lasted)

    def last(self) -> None:
        """Let it have lasted a moment."""
        if not self.lasted.done():
            self.lasted.set_result(True)

    def refuse(self, words: str) -> None:
        """Let LCM close it as soon as it is open."""
        self.not_opened = SessionNotOpened(words, refused=True)
        self.abort(words)

    def abort(self, reason: str) -> None:
        if not self.lasted.done():
            self.lasted.set_result(False)
        self.alive, self.reason = False, reason
        self.lapsed = reason == LAPSED
        self._on_ended(cast(Session, self), reason)

    async def close(self) -> None:
        self.ended_by_us = True
        self.abort("closed by us")


class Bench:
    """A pool of scripted sessions; what it opens and how long it sleeps is the test's to see and to end."""

    def __init__(self, **settings: Any) -> None:
        self.log = RecordingLog()
        self.away: list[Exception] = []
        self.told = 0
        self.sleeps: list[float] = []
        self._awake: asyncio.Future[None] | None = None
        self.openings: list[tuple[int, Ended, asyncio.Future[Scripted]]] = []
        self.pool = Pool(
            self._open,
            lcm_settings("ws://lcm/", **settings),
            OutageSettings(probe_delay=1, probe_max_delay=30),
            self.log,
            clock=Clock(sleep=self._sleep, jitter=lambda _low, high: high),
            on_away=self.away.append,
            on_opened=self._on_opened,
        )

    def _on_opened(self) -> None:
        self.told += 1

    async def _open(self, slot: int, on_ended: Ended) -> Session:
        opening: asyncio.Future[Scripted] = asyncio.get_running_loop().create_future()
        self.openings.append((slot, on_ended, opening))
        return cast(Session, await opening)

    async def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        if self._awake is not None:
            await self._awake

    def sleeping(self) -> asyncio.Future[None]:
        """Return what ends the sleep of whoever goes to sleep from now on; others sleep no time at all."""
        self._awake = asyncio.get_running_loop().create_future()
        return self._awake

    def acquire(self, *, fresh: bool = False) -> asyncio.Task[Scripted]:
        """Ask for a session."""

        async def acquire() -> Scripted:
            return cast(Scripted, await self.pool.acquire(fresh=fresh))

        return asyncio.get_running_loop().create_task(acquire())

    async def opened(self, *, lasts: bool = True) -> Scripted:
        """Let the oldest opening succeed; without `lasts` it is open, and may still be refused."""
        await settled()
        slot, on_ended, opening = self.openings.pop(0)
        session = Scripted(slot, on_ended)
        if lasts:
            session.last()
        opening.set_result(session)
        await settled()
        return session

    async def failed(self, error: Exception | None = None) -> None:
        """Let the oldest opening fail."""
        await settled()
        self.openings.pop(0)[2].set_exception(error or SessionNotOpened("not there"))
        await settled()

    async def session(self) -> Scripted:
        """Acquire a session that has to be opened first."""
        asked = self.acquire()
        await self.opened()
        return await asked

    def used(self, session: Scripted) -> None:
        """Make an exchange on a session and give it back."""
        session.exchange()
        self.release(session)

    def release(self, session: Scripted) -> None:
        """Give a session back."""
        self.pool.release(cast(Session, session))
