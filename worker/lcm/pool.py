"""The sessions of one worker: who gets which, and when another is opened.

Assignment is synchronous, so that no session can be promised twice: `_assign` looks at who waits and what is
idle, hands over, and starts openings. Only openings and closings do I/O, in tasks of their own, and each ends
in `_assign`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from worker.backoff import Jitter
from worker.errors import PutOff, SessionNotOpened
from worker.lcm.pacing import ReconnectPace
from worker.lcm.session import Ended, Session
from worker.settings import LcmSettings, OutageSettings
from worker.telemetry import Log

OpenSession = Callable[[int, Ended], Awaitable[Session]]
"""Opens the session of a slot, or raises SessionNotOpened."""

Sleep = Callable[[float], Awaitable[object]]
_NO_ATTEMPT = -1


@dataclass(slots=True, eq=False)
class _Waiter:
    session: asyncio.Future[Session]
    fresh: bool


def _ignore(*_: object) -> None:
    """Nobody has asked to be told."""


class Pool:
    """Up to `lcm.sessions` sessions, opened as they are needed and paced while LCM is away.

    `on_opened` is called when a session was opened, `on_away` each time when none could be and none is left;
    openings that fail together are one.

    The caller's duties: every session that `acquire` returned goes back by `release`, whatever became of it.
    """

    def __init__(
        self,
        open_session: OpenSession,
        lcm: LcmSettings,
        outage: OutageSettings,
        log: Log,
        *,
        sleep: Sleep = asyncio.sleep,
        jitter: Jitter = random.uniform,
        on_away: Callable[[SessionNotOpened], object] = _ignore,
        on_opened: Callable[[], object] = _ignore,
    ) -> None:
        self._open_session = open_session
        self._size = lcm.sessions
        self._max_exchanges = lcm.max_exchanges
        self._hold = outage.hold
        self._pace = ReconnectPace(outage.probe_delay, outage.probe_max_delay)
        self._log = log
        self._sleep = sleep
        self._jitter = jitter
        self._on_away = on_away
        self._on_opened = on_opened
        self._idle: list[Session] = []
        self._busy: set[Session] = set()
        self._waiters: list[_Waiter] = []
        self._free_slots = list(range(self._size, 0, -1))
        self._attempts: dict[int, int] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Pool {', '.join(f'{count} {state}' for state, count in self.counts().items())}>"

    def counts(self) -> dict[str, int]:
        """Return how many sessions are busy, idle and opening, and how many callers are waiting for one."""
        return {
            "busy": len(self._busy),
            "idle": len(self._idle),
            "opening": len(self._opening),
            "waiting": self.waiting,
        }

    @property
    def waiting(self) -> int:
        """How many callers wait for a session."""
        return sum(not waiter.session.done() for waiter in self._waiters)

    async def acquire(self, *, fresh: bool = False) -> Session:
        """Return a session for one exchange, waiting for it up to `outage.hold`.

        With `fresh`, one on which no exchange has taken place yet.

        Raises:
            PutOff: it took too long, or who waits was turned away.
        """
        if self._idle and not fresh and not self._waiters:
            session = self._idle.pop()
            self._busy.add(session)
            return session
        waiter = _Waiter(asyncio.get_running_loop().create_future(), fresh)
        self._waiters.append(waiter)
        self._assign()
        limit = asyncio.get_running_loop().call_later(self._hold, self._held_too_long, waiter)
        try:
            return await waiter.session
        except asyncio.CancelledError:
            promised = waiter.session
            if promised.done() and not promised.cancelled() and promised.exception() is None:
                self.release(promised.result())
            raise
        finally:
            limit.cancel()

    def release(self, session: Session) -> None:
        """Take a session back, to be used again if it is still good."""
        self._busy.discard(session)
        if session.alive:
            # Alive after an exchange means answered: everything else ends a session.
            if session.exchanges and self._pace.failing:
                self._pace.good_exchange()
            if self._max_exchanges and session.exchanges >= self._max_exchanges:
                self._start_closing(session)
            else:
                self._idle.append(session)
        self._assign()

    @property
    def paced(self) -> bool:
        """Whether the next session is opened only after a pause, because the last ones fared badly."""
        return self._pace.failing

    async def try_one(self) -> bool:
        """Wait for a session and give it back; return whether there was one before the waiting was ended."""
        try:
            self.release(await self.acquire())
        except PutOff:
            return False
        return True

    async def look(self) -> None:
        """Open a session where there is none, so that it shows whether LCM is in reach; it is kept for the next job."""
        if self._busy or self._idle or self._opening:
            return
        try:
            session = await self.acquire()
        except PutOff:
            return
        # It may be cut while it lies idle, again and again: that is not to slow down the next job's.
        self._attempts[session.slot] = _NO_ATTEMPT
        self.release(session)

    def turn_away(self, reason: str) -> None:
        """End the waiting of all who wait for a session, by PutOff."""
        for waiter in self._waiters:
            if not waiter.session.done():
                waiter.session.set_exception(PutOff(reason))
        self._waiters.clear()

    async def close(self) -> None:
        """Close every session: idle ones with a goodbye, busy ones at once."""
        for waiter in self._waiters:
            waiter.session.cancel()
        for task in self._opening:
            task.cancel()
        for session in self._busy:
            session.abort("the worker stops")
        for session in self._idle:
            self._start_closing(session)
        self._idle.clear()
        await asyncio.gather(*self._opening, *self._closing, return_exceptions=True)

    def _assign(self) -> None:
        """Hand idle sessions to those who wait, then open as many more as are needed and allowed."""
        # Whoever needs a fresh session comes first, or those who take any would leave none.
        waiting = sorted((w for w in self._waiters if not w.session.done()), key=lambda w: not w.fresh)
        for waiter in waiting if self._idle else ():
            session = self._fitting(waiter)
            if session is not None:
                self._busy.add(session)
                waiter.session.set_result(session)
        self._waiters = [waiter for waiter in self._waiters if not waiter.session.done()]
        allowed = 1 if self._pace.failing else self._size
        while self._free_slots and len(self._opening) < min(len(self._waiters), allowed):
            self._start_opening()
        # Who still waits beside an idle session needs a fresh one, for which a place must become free.
        if self._waiters and self._idle and not (self._free_slots or self._opening or self._closing):
            self._start_closing(self._idle.pop(0))

    def _held_too_long(self, waiter: _Waiter) -> None:
        if not waiter.session.done():
            waiter.session.set_exception(PutOff(f"no session was free within {self._hold:g} s (outage.hold)"))
            self._waiters.remove(waiter)

    def _fitting(self, waiter: _Waiter) -> Session | None:
        # The one used last is the least likely to have been cut by a load balancer meanwhile.
        for index in range(len(self._idle) - 1, -1, -1):
            if not (waiter.fresh and self._idle[index].exchanges):
                return self._idle.pop(index)
        return None

    def _start_opening(self) -> None:
        slot = self._free_slots.pop()
        task = asyncio.get_running_loop().create_task(self._open(slot), name=f"lcm-open-{slot}")
        self._opening.add(task)

    async def _open(self, slot: int) -> None:
        self._attempts[slot] = self._pace.attempt
        session: Session | None = None
        try:
            if delay := self._pace.delay(self._jitter):
                await self._sleep(delay)
            session = await self._open_session(slot, self._session_ended)
        except SessionNotOpened as error:
            self._not_opened(slot, error)
        except Exception as error:  # noqa: BLE001 - tried again at once, a defect would be tried without end
            self._log.exception("lcm.opening_broke", session=slot)
            self._not_opened(slot, SessionNotOpened(f"a defect of the worker: {type(error).__name__}"))
        else:
            self._log.info("lcm.session_opened", session=slot)
            self._idle.append(session)
            self._on_opened()
        finally:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - this is a task
            self._opening.discard(task)
            if session is None:
                self._free_slots.append(slot)
            if not task.cancelling():
                self._assign()

    def _start_closing(self, session: Session) -> None:
        task = asyncio.get_running_loop().create_task(session.close(), name=f"lcm-close-{session.slot}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _session_ended(self, session: Session, reason: str) -> None:
        """Called by a session, once, when it has ended for whatever reason."""
        if session in self._idle:
            self._idle.remove(session)
        self._free_slots.append(session.slot)
        self._log.info(
            "lcm.session_closed",
            session=session.slot,
            reason=reason,
            exchanges=session.exchanges,
            unasked=session.unasked.total(),
        )
        if not session.answered and not session.ended_by_us:
            self._pace.failed(self._attempts[session.slot])
        self._assign()

    def _not_opened(self, slot: int, error: SessionNotOpened) -> None:
        counts = self._pace.failed(self._attempts[slot], refused=error.refused)
        level = self._log.error if error.refused else self._log.warning
        level("lcm.session_failed", error=str(error), waiting=self.waiting)
        # Of those that fail together one says it: the others were under way as well, and are no probes.
        if counts and not self._busy and not self._idle:
            self._on_away(error)
