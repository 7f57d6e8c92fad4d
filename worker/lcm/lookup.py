"""One inquiry's way to LCM: share( retry( break( count( exchange( pool ))))).

Each layer is one concern, takes an `Inquiry` and returns an `Answer` or raises a `LookupFailed`; they are put
together in `build_lookup` and nowhere else.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)
from tenacity.stop import stop_base

from worker.backoff import Jitter
from worker.errors import ConnectionLost, LookupFailed, PutOff
from worker.inquiry import Answer, Asked, Inquiry
from worker.lcm.pacing import ExchangeRate
from worker.lcm.pool import Pool, Sleep
from worker.lcm.session import Session
from worker.settings import LcmSettings, RetrySettings

Lookup = Callable[[Inquiry], Awaitable[Answer]]


@dataclass(slots=True, frozen=True)
class Clock:
    """Where time comes from, how it is waited for, and how pauses are drawn; tests bring their own."""

    now: Callable[[], datetime] = field(default=partial(datetime.now, UTC))
    monotonic: Callable[[], float] = time.monotonic
    sleep: Sleep = asyncio.sleep
    jitter: Jitter = random.uniform


SYSTEM_CLOCK = Clock()


def _ignore(_: str) -> None:
    """Nobody counts."""


def build_lookup(
    pool: Pool,
    lcm: LcmSettings,
    retry: RetrySettings,
    *,
    keeper: Keeper | None = None,
    count: Callable[[str], object] = _ignore,
    clock: Clock = SYSTEM_CLOCK,
) -> Lookup:
    """Compose the layers as the settings ask; `count` is told how each exchange ended."""
    exchange: Lookup = Exchange(pool, ExchangeRate(lcm.max_rate), lcm.reply_timeout, retry.budget, clock)
    exchange = Count(exchange, count)
    if keeper is not None:
        exchange = Break(exchange, keeper)
    retried = Retry(exchange, retry, clock)
    return Share(retried) if lcm.share else retried


class Exchange:
    """One exchange on one session of the pool."""

    def __init__(
        self, pool: Pool, rate: ExchangeRate, reply_timeout: float, budget: float, clock: Clock
    ) -> None:
        self._pool = pool
        self._rate = rate
        self._reply_timeout = reply_timeout
        self._budget = budget
        self._clock = clock

    async def __call__(self, inquiry: Inquiry) -> Answer:
        """Ask LCM once.

        A session that was used before may have been cut while it lay idle, which says nothing about LCM or the
        account: then the exchange is repeated once on a fresh session, and counted once.
        """
        try:
            return await self._on_session(inquiry, fresh=False)
        except _CutWhileIdle:
            inquiry.exchanges -= 1
            return await self._on_session(inquiry, fresh=True)

    async def _on_session(self, inquiry: Inquiry, *, fresh: bool) -> Answer:
        session = await self._pool.acquire(fresh=fresh)
        try:
            # With the session in hand: places taken before it would all be due at once when LCM comes back.
            if wait := self._rate.reserve(self._clock.monotonic()):
                await self._clock.sleep(wait)
            return await self._ask(session, inquiry, fresh=fresh)
        finally:
            self._pool.release(session)

    async def _ask(self, session: Session, inquiry: Inquiry, *, fresh: bool) -> Answer:
        first = session.exchanges == 0 and session.alive
        asked_at = self._clock.now()
        inquiry.check(asked_at)
        inquiry.exchanges += 1
        timeout = min(self._reply_timeout, max(self._budget - inquiry.spent, 0.001))
        started = self._clock.monotonic()
        try:
            items = await session.exchange(inquiry.account, timeout)
        except ConnectionLost as lost:
            if first or fresh:
                raise
            raise _CutWhileIdle(str(lost)) from lost
        finally:
            seconds = self._clock.monotonic() - started
            inquiry.spent += seconds
            inquiry.asked = Asked(session.slot, session.exchanges, seconds)
        return Answer(items, asked_at, self._clock.now(), seconds, session.slot, session.exchanges)


class _CutWhileIdle(Exception):
    """A session that had served before closed in mid-exchange."""


class Count:
    """Tells how each exchange ended: `answered`, also by an error about the account, or the transient error's code."""

    def __init__(self, exchange: Lookup, count: Callable[[str], object]) -> None:
        self._exchange = exchange
        self._count = count

    async def __call__(self, inquiry: Inquiry) -> Answer:
        try:
            answer = await self._exchange(inquiry)
        except LookupFailed as error:
            self._count(error.code if error.transient else "answered")
            raise
        self._count("answered")
        return answer


class Keeper(Protocol):
    """Knows whether LCM is out, and is told how exchanges fare."""

    @property
    def out(self) -> str:
        """Why LCM is out, "" where it isn't."""

    def admit_probe(self) -> bool:
        """Whether this exchange may take place all the same, as the one that probes."""

    def answered(self, account: str) -> None: ...
    def not_answered(self, account: str, error: LookupFailed) -> None: ...


class Break:
    """Lets no exchange take place while LCM is out, but the one that probes.

    Whoever meets an outage is put off. What it had been charged before stays charged; a probe is not charged.
    """

    def __init__(self, exchange: Lookup, keeper: Keeper) -> None:
        self._exchange = exchange
        self._keeper = keeper

    async def __call__(self, inquiry: Inquiry) -> Answer:
        probing = False
        if self._keeper.out:
            probing = self._keeper.admit_probe()
            if not probing:
                raise PutOff(self._keeper.out)
        made = inquiry.exchanges
        try:
            answer = await self._exchange(inquiry)
        except LookupFailed as error:
            self._tell(inquiry.account, error, probing=probing)
            if not self._keeper.out:
                raise
            if probing:
                inquiry.exchanges = made
            inquiry.last_error = f"{error.code}: {error.message}"
            raise PutOff(self._keeper.out) from error
        self._keeper.answered(inquiry.account)
        return answer

    def _tell(self, account: str, error: LookupFailed, *, probing: bool) -> None:
        # An error about the account, or a reply that is too large, is an answer.
        if not error.transient:
            self._keeper.answered(account)
        # What was under way when the outage began is no probe: the first of those comes soon all the same.
        elif probing or not self._keeper.out:
            self._keeper.not_answered(account, error)


class Retry:
    """Repeats an exchange after a transient error, at once but for a jittered pause.

    Tenacity comes in only after a first failure, which it is told as its first attempt: a good job pays nothing.
    """

    def __init__(self, exchange: Lookup, settings: RetrySettings, clock: Clock) -> None:
        self._exchange = exchange
        self._settings = settings
        self._clock = clock

    async def __call__(self, inquiry: Inquiry) -> Answer:
        try:
            return await self._remembering(inquiry)
        except LookupFailed as error:
            if not error.transient:
                raise
            return await self._again(inquiry, error)

    async def _remembering(self, inquiry: Inquiry) -> Answer:
        try:
            return await self._exchange(inquiry)
        except LookupFailed as error:
            inquiry.last_error = f"{error.code}: {error.message}"
            raise

    async def _again(self, inquiry: Inquiry, first: LookupFailed) -> Answer:
        settings = self._settings
        retrying = AsyncRetrying(
            # Listed, since tenacity would else repeat a cancelled task.
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(settings.attempts) | _BudgetSpent(inquiry, settings.budget),
            wait=_FullJitter(settings, self._clock.jitter),
            sleep=partial(self._pause, inquiry),
            reraise=True,
        )
        failed: list[LookupFailed] = [first]

        async def attempt() -> Answer:
            if failed:
                raise failed.pop()
            return await self._remembering(inquiry)

        return await retrying(attempt)

    async def _pause(self, inquiry: Inquiry, seconds: float) -> None:
        later = self._clock.now().timestamp() + seconds
        inquiry.check(datetime.fromtimestamp(later, UTC))
        inquiry.spent += seconds
        await self._clock.sleep(seconds)


class _FullJitter(wait_exponential):
    """Waits between nothing and all of a doubling, as wait_random_exponential does, which draws by itself."""

    def __init__(self, settings: RetrySettings, jitter: Jitter) -> None:
        super().__init__(multiplier=settings.first_delay, max=settings.max_delay)
        self._jitter = jitter

    def __call__(self, retry_state: RetryCallState) -> float:
        return self._jitter(0.0, super().__call__(retry_state))


class _BudgetSpent(stop_base):
    """Stops before a pause that would pass the budget, in which waiting for a session doesn't count."""

    def __init__(self, inquiry: Inquiry, budget: float) -> None:
        self._inquiry = inquiry
        self._budget = budget

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self._inquiry.spent + retry_state.upcoming_sleep >= self._budget


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, LookupFailed) and error.transient


_Landing = asyncio.Future[Answer | LookupFailed | None]


class Share:
    """Lets jobs for one account that are in flight at the same time share one exchange.

    The first to ask leads and asks LCM in its own task. Whatever LCM said or failed to say goes to all; when
    the leader leaves for a reason of its own (cancelled, expired, not wanted), the next one leads. Nothing is
    kept: who comes after the end asks anew.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._flights: dict[str, list[_Landing]] = {}

    async def __call__(self, inquiry: Inquiry) -> Answer:
        while (flight := self._flights.get(inquiry.account)) is not None:
            landing: _Landing = asyncio.get_running_loop().create_future()
            flight.append(landing)
            shared = await landing
            if isinstance(shared, LookupFailed):
                inquiry.last_error = f"{shared.code}: {shared.message}"
                raise type(shared)(str(shared), said=shared.said)
            if shared is not None:
                # As if it had asked by itself: an exchange that began past its deadline is none of its own.
                inquiry.check(shared.asked_at)
                return shared
        return await self._lead(inquiry)

    async def _lead(self, inquiry: Inquiry) -> Answer:
        followers = self._flights[inquiry.account] = []
        end: Answer | LookupFailed | None = None
        try:
            answer = await self._lookup(inquiry)
            end = replace(answer, shared=True) if followers else None
        except LookupFailed as error:
            end = error
            raise
        finally:
            del self._flights[inquiry.account]
            for follower in followers:
                if not follower.done():
                    follower.set_result(end)
        return answer
