"""The pool of sessions: which caller gets which session, and when another is opened.

Assignment is synchronous, so that no session can be given to two callers: `_assign` gives idle sessions to waiters
and starts openings. Only openings and closings do I/O, in tasks of their own, and each ends in `_assign`.

Where workers share a limit, `limit` tells how many sessions may be held, and until when exchanges may begin. Sessions
beyond it are closed as they become idle.

An opening that fails while other sessions are open is no outage: LCM may be full. Work goes on with those that there
are, and one more is tried now and then, see `Room`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from worker.common.backoff import Telling
from worker.common.callbacks import ignore
from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.common.tasks import TaskSet, start
from worker.contract.errors import Deferred, SessionNotOpened
from worker.lcm.pacing import ReconnectPace, Room
from worker.lcm.session import LAPSED, Ended, Session
from worker.lcm.waiters import Waiters
from worker.observability.log import Log
from worker.settings import LcmSettings, OutageSettings

OpenSession = Callable[[int, Ended], Awaitable[Session]]
"""Opens the session of a slot, or raises SessionNotOpened."""


class _Attempt(NamedTuple):
    """Which try an opening is, for either pace."""

    pace: int
    room: int


class _NoMore(Exception):
    """The session that was to be opened is another worker's by now, or LCM is away, and one at a time is opened."""


_NO_ATTEMPT = _Attempt(-1, -1)
_STOPS = "the worker stops"


class Pool:
    """Up to `lcm.sessions` sessions, opened as they are needed and paced while LCM is away.

    `on_opened` is called when opening a session has succeeded, `on_away` each time when it has not and none is
    left; openings that fail together are one. A session is given out as soon as it is open, but where the one
    before has not lasted, only once it has: its request would hide whether LCM ends sessions for requests or for
    what we are.

    The caller's duties: every session that `acquire` returned goes back by `release`, whatever became of it.
    """

    def __init__(
        self,
        open_session: OpenSession,
        lcm: LcmSettings,
        outage: OutageSettings,
        log: Log,
        *,
        clock: Clock = SYSTEM_CLOCK,
        on_away: Callable[[SessionNotOpened], object] = ignore,
        on_opened: Callable[[], object] = ignore,
    ) -> None:
        self._open_session = open_session
        self._size = self._limit = lcm.sessions
        self._asks_until = math.inf
        self._max_exchanges = lcm.max_exchanges
        self._pace = ReconnectPace(outage.probe_delay, outage.probe_max_delay)
        self._room = Room(self._size, outage.probe_delay, outage.probe_max_delay)
        self._log = log
        self._clock = clock
        self._on_away = on_away
        self._on_opened = on_opened
        self._idle: list[Session] = []
        self._busy: set[Session] = set()
        self._waiters = Waiters(outage.hold)
        self._free_slots = list(range(self._size, 0, -1))
        self._attempts: dict[int, _Attempt] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._connecting: set[int] = set()
        self._pausing = 0
        # The slot of the one session beyond the room, until LCM has answered on it; and whether its opening waits.
        self._beyond: int | None = None
        self._trying_later = False
        self._closing = TaskSet()
        self._leaving: set[Session] = set()
        self._in_doubt = False
        self._telling = Telling()
        self._trials = TaskSet()

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
        return len(self._waiters)

    @property
    def held(self) -> int:
        """How many sessions LCM may count: open, being opened, or saying goodbye."""
        return self._size - len(self._free_slots) - self._pausing

    def limit(self, sessions: int, asks_until: float) -> None:
        """Hold so many sessions at most, and let exchanges begin until then, as the clock for intervals counts."""
        self._limit, self._asks_until = sessions, asks_until
        while self._idle and self.held - len(self._leaving) > sessions:
            self._start_closing(self._idle.pop(0))
        self._assign()

    def may_ask(self) -> bool:
        """Whether an exchange may begin now."""
        return self._clock.monotonic() < self._asks_until

    def lapse(self) -> None:
        """Give up every session at once: others may open theirs from now on."""
        self._limit, self._asks_until = 0, -math.inf
        for task in self._opening:
            task.cancel()
        for session in (*self._busy, *self._idle):
            session.abort(LAPSED)

    async def acquire(self, *, fresh: bool = False, urgent: bool = False) -> Session:
        """Return a session for one exchange, waiting for it up to `outage.hold`.

        With `fresh`, one on which no exchange has taken place yet; with `urgent`, before all others that wait.

        Raises:
            Deferred: it took too long, or the waiters were rejected.
        """
        if self._idle and not fresh and not self._waiters and self.may_ask():
            session = self._idle.pop()
            self._busy.add(session)
            return session
        promised = self._waiters.join(fresh=fresh, urgent=urgent)
        self._assign()
        try:
            return await promised
        except asyncio.CancelledError:
            if promised.done() and not promised.cancelled() and promised.exception() is None:
                self.release(promised.result())
            raise

    def release(self, session: Session) -> None:
        """Take a session back, to be used again if it is still good."""
        self._busy.discard(session)
        if session.alive:
            # A session that is alive after an exchange was answered: everything else ends it.
            if session.exchanges:
                self.answered_on(session)
            used_up = self._max_exchanges and session.exchanges >= self._max_exchanges
            if used_up or self.held - len(self._leaving) > self._limit:
                self._start_closing(session)
            else:
                self._idle.append(session)
        self._assign()

    def may_prove(self, session: Session) -> bool:
        """Whether LCM has not answered on this session yet, and two exchanges may take place on it."""
        return not session.answered and self._max_exchanges != 1

    def answered_on(self, session: Session) -> None:
        """Take note that LCM has answered on this session."""
        if self._pace.failing:
            self._pace.good_exchange()
        if session.slot == self._beyond:
            self._beyond = None
            self._room.answered(self._taken)

    def not_full(self) -> None:
        """Take note that what LCM says of its room was said of an account."""
        self._room.not_full()

    @property
    def backing_off(self) -> bool:
        """Whether the next session is opened only after a backoff, because the last ones failed."""
        return self._pace.failing

    def turned_away(self, session: Session) -> bool:
        """Whether it ended for want of room: LCM's, while others of ours are open, or ours beside other workers.

        Nothing was wrong with its request.
        """
        error = session.not_opened
        return session.lapsed or (error is not None and error.full and self._has_others(session.slot, error))

    async def probe(self) -> bool:
        """Wait for a session and give it back; return whether one was opened, before the waiters were rejected."""
        try:
            session = await self.acquire()
        except Deferred:
            return False
        self.release(session)
        return await session.lasts()

    async def ensure_session(self) -> None:
        """Open a session where there is none, to see whether LCM can be reached; it is kept for the next job."""
        if self._busy or self._idle or self._under_way:
            return
        try:
            session = await self.acquire()
        except Deferred:
            return
        self.release(session)
        if await session.lasts() and session.alive:
            # A load balancer may cut it while it is idle: that must not cause a backoff for the next job's session.
            self._attempts[session.slot] = _NO_ATTEMPT

    def reject_waiters(self, reason: str) -> None:
        """Raise Deferred in all callers that wait for a session."""
        self._waiters.reject(reason)

    async def close(self) -> None:
        """Close every session: idle ones by the closing handshake, busy ones at once."""
        self._waiters.cancel()
        for task in self._opening:
            task.cancel()
        for session in self._busy:
            session.abort(_STOPS)
        for session in self._idle:
            self._start_closing(session)
        self._idle.clear()
        await asyncio.gather(*self._opening, *self._closing, *self._trials, return_exceptions=True)

    def _assign(self) -> None:
        """Give idle sessions to waiters, then open as many more as are needed and allowed."""
        if not self._waiters or not self.may_ask():
            return
        # The one used last is the least likely to have been cut by a load balancer meanwhile.
        for index in range(len(self._idle) - 1, -1, -1):
            if self._waiters.serve(self._idle[index]):
                self._busy.add(self._idle.pop(index))
        self._open_more()
        # A waiter beside an idle session needs a fresh one: close an idle one to make room.
        if self._idle and not (self._under_way or self._closing) and self.waiting:
            self._start_closing(self._idle.pop(0))

    @property
    def _under_way(self) -> int:
        """How many openings will soon succeed or fail."""
        return len(self._opening) - self._trying_later

    @property
    def _taken(self) -> int:
        """How many sessions are open, soon will be, or are saying goodbye."""
        return self._size - len(self._free_slots) - self._trying_later

    def _open_more(self) -> None:
        needed = min(self.waiting, 1 if self._pace.failing else self._size)
        while self._free_slots and self._under_way < needed and self._taken < self._limit:
            beyond = self._taken >= self._room.places
            if beyond and (self._beyond is not None or self._pace.failing):
                return
            self._start_opening(beyond=beyond)

    def _start_opening(self, *, beyond: bool) -> None:
        slot = self._free_slots.pop()
        if beyond:
            self._beyond, self._trying_later = slot, True
        self._opening.add(start(self._open(slot, beyond=beyond), f"lcm-open-{slot}"))

    async def _open(self, slot: int, *, beyond: bool) -> None:
        self._attempts[slot] = _Attempt(self._pace.attempt, self._room.attempt)
        session: Session | None = None
        try:
            await self._wait_to_open(beyond=beyond)
            session = await self._connect(slot)
            self._trials.start(self._try(session), f"lcm-trial-{slot}")
            if self._in_doubt or beyond:
                await session.lasts()
            if session.alive:
                self._idle.append(session)
        except SessionNotOpened as error:
            self._not_opened(slot, error)
        except _NoMore:
            self._leave(slot)
        except Exception as error:  # noqa: BLE001 - tried again at once, a defect would be tried without end
            self._log.exception("lcm.opening_broke", session=slot)
            self._not_opened(slot, SessionNotOpened(f"a defect of the worker: {type(error).__name__}"))
        finally:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - this is a task
            self._opening.discard(task)
            if session is None:
                self._free_slots.append(slot)
            if not task.cancelling():
                self._assign()
            elif session is not None:
                session.abort(_STOPS)
            else:
                self._leave(slot)

    async def _wait_to_open(self, *, beyond: bool) -> None:
        self._pausing += 1
        try:
            if delay := (self._room if beyond else self._pace).delay(self._clock.jitter):
                await self._clock.sleep(delay)
        finally:
            self._pausing -= 1
            if beyond:
                self._trying_later = False
        if self.held > self._limit or (beyond and self._pace.failing):
            raise _NoMore

    async def _connect(self, slot: int) -> Session:
        self._connecting.add(slot)
        try:
            return await self._open_session(slot, self._session_ended)
        finally:
            self._connecting.discard(slot)

    async def _try(self, session: Session) -> None:
        if await session.lasts():
            self._in_doubt = False
            self._log.info("lcm.session_opened", session=session.slot)
            self._on_opened()

    def _start_closing(self, session: Session) -> None:
        self._leaving.add(session)
        self._closing.start(session.close(), f"lcm-close-{session.slot}")

    def _session_ended(self, session: Session, reason: str) -> None:
        """Called by a session, once, when it has ended for whatever reason."""
        if session in self._idle:
            self._idle.remove(session)
        self._leaving.discard(session)
        self._free_slots.append(session.slot)
        self._log.info(
            "lcm.session_closed",
            session=session.slot,
            reason=reason,
            exchanges=session.exchanges,
            unasked=session.unsolicited,
            **({"said": session.said} if session.said else {}),
        )
        turned_away = self.turned_away(session)
        self._in_doubt = self._in_doubt or (session.not_opened is not None and not turned_away)
        if session.not_opened is not None and (turned_away or not session.exchanges):
            self._not_opened(session.slot, session.not_opened)
        elif session.flooded:
            self._pace.failed(self._pace.attempt)
        elif not (session.answered or session.ended_by_us):
            self._pace.failed(self._attempts[session.slot].pace)
            if session.not_opened is not None:
                self._room.forget()
        self._leave(session.slot)
        self._assign()

    def _not_opened(self, slot: int, error: SessionNotOpened) -> None:
        # Beyond the room there is one try at a time, which fails together with no other.
        attempt = self._pace.attempt if slot == self._beyond else self._attempts[slot].pace
        self._leave(slot)
        if self._has_others(slot, error):
            self._no_room(slot, error)
            return
        self._in_doubt = True
        self._room.forget()
        counts = self._pace.not_opened(attempt, error)
        if self._telling.tells(error.message, self._pace.attempt, fast=error.nobody_listens):
            level = self._log.error if error.refused else self._log.warning
            level("lcm.session_failed", error=error, waiting=self.waiting)
        # Openings that fail together are reported once: the others were no probes.
        if counts:
            self._on_away(error)

    def _no_room(self, slot: int, error: SessionNotOpened) -> None:
        """Go on with the other sessions."""
        held = self._open_now + len(self._connecting - {slot}) + len(self._closing)
        counts = self._room.refused(self._attempts[slot].room, held, error)
        # A full LCM may ask for another pause each time.
        why = "full" if error.full else error.message
        if counts and self._telling.tells(why, self._room.refusals, fast=not error.refused):
            level = self._log.error if error.refused else self._log.warning
            level(
                "lcm.session_failed",
                error=error,
                waiting=self.waiting,
                open=self._open_now,
                wanted=self._size,
            )

    def _leave(self, slot: int) -> None:
        if slot == self._beyond:
            self._beyond = None

    def _has_others(self, slot: int, error: SessionNotOpened) -> bool:
        """Whether there are other sessions than this to go on with.

        Where LCM is full, those that are being opened count: they may have come first, and be what leaves no room.
        """
        return bool(self._open_now or len(self._closing) or (error.full and self._connecting - {slot}))

    @property
    def _open_now(self) -> int:
        return len(self._idle) + sum(session.alive for session in self._busy)
