"""One exchange on one session of the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.common.callbacks import ignore
from worker.common.clock import Clock
from worker.common.rate import Rate
from worker.contract.errors import ConnectionLost, LcmError, LcmRejected, LookupFailed
from worker.contract.lookup import ExchangeTiming, LookupRequest, LookupResult
from worker.lcm.pool import Pool
from worker.lcm.session import Session

_SHORTEST_TIMEOUT = 0.001


class Exchange:
    """Asks LCM once for each request, no faster than `rate`, which may change.

    `budget` is in seconds of exchanges and pauses for one delivery. `count` is told how each exchange ended,
    `answered`, also by an error about the account, or the transient error's code, and how many seconds LCM was asked.
    """

    def __init__(
        self,
        pool: Pool,
        rate: Rate,
        reply_timeout: float,
        budget: float,
        *,
        clock: Clock,
        count: Callable[[str, float], object] = ignore,
    ) -> None:
        self._pool = pool
        self._rate = rate
        self._reply_timeout = reply_timeout
        self._budget = budget
        self._clock = clock
        self._count = count
        self._turn = asyncio.Lock()
        self._witness = ""  # the account that LCM answered last

    async def __call__(self, request: LookupRequest) -> LookupResult:
        """Ask LCM once.

        A session that was used before may have been cut while it was idle, which says nothing about LCM or the
        account: then the exchange is repeated once on a fresh session, and counted once. One that LCM turned away for
        want of room, or whose session had to be given up for other workers, is repeated on whichever session comes,
        and not counted: the pool sees that it is not often.

        LCM may say so over some accounts, or end sessions over them, which tells nothing of other accounts. Hence one
        over which it ended a session that had answered nothing is repeated where LCM has answered before: on a session
        of its own it asks first for the account that LCM answered last.
        """
        with self._counted(request):
            return await self._until_let_in(request)

    @contextmanager
    def _counted(self, request: LookupRequest) -> Iterator[None]:
        before = request.spent
        try:
            yield
        except LookupFailed as error:
            request.note_failure(error)
            self._count(error.code if error.transient else "answered", request.spent - before)
            raise
        self._count("answered", request.spent - before)

    async def _until_let_in(self, request: LookupRequest) -> LookupResult:
        fresh = False
        while True:
            try:
                return await self._on_session(request, fresh=fresh)
            except _CutWhileIdle:
                fresh = True
            except _TurnedAway as turned_away:
                request.turned_away = request.turned_away or turned_away.by_lcm
            except (_TooLate, _NoWitness):
                pass

    async def _on_session(self, request: LookupRequest, *, fresh: bool) -> LookupResult:
        session = await self._pool.acquire(fresh=fresh, urgent=request.urgent)
        try:
            if request.turned_away and self._witness and self._pool.may_prove(session):
                await self._prove(session)
                return await self._ask_where_let_in(session, request)
            return await self._in_turn(session, request, fresh=fresh)
        finally:
            self._pool.release(session)

    async def _prove(self, session: Session) -> None:
        """Have LCM answer on this session for another account; one that fails is asked for no more."""
        witness = LookupRequest(self._witness)
        try:
            with self._counted(witness):
                await self._in_turn(session, witness, fresh=True)
        except LcmRejected:
            pass
        except LookupFailed as error:
            if self._witness == witness.account:
                self._witness = ""
            raise _NoWitness from error
        self._pool.answered_on(session)

    async def _ask_where_let_in(self, session: Session, request: LookupRequest) -> LookupResult:
        try:
            return await self._in_turn(session, request, fresh=True)
        except (ConnectionLost, LcmError):
            self._pool.not_full()
            raise

    async def _in_turn(self, session: Session, request: LookupRequest, *, fresh: bool) -> LookupResult:
        # With the session in hand: places reserved before it would all be due at once when LCM comes back.
        if self._rate.limited:
            await self._wait_for_turn()
            if not self._pool.may_ask():
                raise _TooLate
        return await self._ask(session, request, fresh=fresh)

    async def _wait_for_turn(self) -> None:
        # One takes its place at a time, so that a new rate holds for all the others.
        async with self._turn:
            if wait := self._rate.reserve(self._clock.monotonic()):
                await self._clock.sleep(wait)
                self._rate.begin(self._clock.monotonic())

    async def _ask(self, session: Session, request: LookupRequest, *, fresh: bool) -> LookupResult:
        first = session.exchanges == 0 and session.alive
        asked_at = self._clock.now()
        request.check(asked_at)
        request.exchanges += 1
        timeout = min(self._reply_timeout, max(self._budget - request.spent, _SHORTEST_TIMEOUT))
        started = self._clock.monotonic()
        try:
            items = await session.exchange(request.account, timeout)
        except (ConnectionLost, LcmError) as lost:
            turned_away = self._pool.turned_away(session)
            if not turned_away and (first or fresh or isinstance(lost, LcmError)):
                request.turned_away = request.turned_away or not session.answered
                raise
            request.exchanges -= 1
            if turned_away:
                raise _TurnedAway(by_lcm=not session.lapsed) from lost
            raise _CutWhileIdle from lost
        finally:
            seconds = self._clock.monotonic() - started
            request.spent += seconds
            timing = request.last_exchange = ExchangeTiming(session.slot, session.exchanges, seconds)
        self._witness = request.account
        return LookupResult(items, asked_at, self._clock.now(), timing)


class _CutWhileIdle(Exception):
    """A session that had served before closed in mid-exchange."""


class _TurnedAway(Exception):
    """LCM has no room for one more session, while others of ours are open; or the session is ours no more."""

    def __init__(self, *, by_lcm: bool) -> None:
        super().__init__()
        self.by_lcm = by_lcm


class _NoWitness(Exception):
    """The account that LCM answered last was not answered again."""


class _TooLate(Exception):
    """The time in which exchanges may begin was over when the turn came."""
