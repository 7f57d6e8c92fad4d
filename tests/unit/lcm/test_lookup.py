"""Exchanging and retrying: budgets, deadlines, cut sessions and the rate, on a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from tests.lcm_support import START, SetClock, outcome_of, settled
from worker.errors import (
    ConnectionLost,
    Expired,
    LcmError,
    LcmRejected,
    LookupFailed,
    MalformedReply,
    PutOff,
    ReplyTimeout,
    ReplyTooLarge,
    StaleDelivery,
)
from worker.inquiry import Answer, Asked, Inquiry
from worker.lcm.lookup import Break, Count, Exchange, Retry
from worker.lcm.pacing import ExchangeRate
from worker.lcm.pool import Pool
from worker.lcm.session import Session
from worker.settings import RetrySettings

ITEMS = [("7", "Busy")]
ANSWER = Answer(ITEMS, START, START, 0.5, session=1, exchange=1)


Ask = Callable[[Inquiry], Awaitable[Answer]]


def failing(*errors: Exception, clock: SetClock | None = None, takes: float = 0.0) -> tuple[Ask, list[float]]:
    """Give a lookup that raises these errors, then answers; and the times at which it was called."""
    left, calls = list(errors), list[float]()

    async def ask(inquiry: Inquiry) -> Answer:
        now = clock.seconds if clock else 0.0
        calls.append(now)
        inquiry.exchanges += 1
        inquiry.spent += takes
        if clock:
            clock.seconds += takes
        if left:
            raise left.pop(0)
        return ANSWER

    return ask, calls


def retry_settings(**settings: Any) -> RetrySettings:
    """Return the retry section."""
    return RetrySettings.model_validate(settings)


TRANSIENT: list[type[LookupFailed]] = [LcmError, ReplyTimeout, ConnectionLost, MalformedReply]


@pytest.mark.parametrize("error", TRANSIENT)
async def test_transient_errors_are_retried(error: type[LookupFailed]) -> None:
    """Within its attempts an exchange is repeated after a pause, and then succeeds."""
    clock = SetClock()
    ask, calls = failing(error("1"), error("2"), clock=clock)
    inquiry = Inquiry("a")
    assert await Retry(ask, retry_settings(attempts=3), clock.clock)(inquiry) == ANSWER
    assert (len(calls), len(clock.sleeps), inquiry.exchanges) == (3, 2, 3)
    assert inquiry.last_error == f"{error.code}: 2"


@pytest.mark.parametrize(
    "error", [LcmRejected("no"), ReplyTooLarge("no"), Expired("no"), StaleDelivery("no"), RuntimeError("no")]
)
async def test_everything_else_is_raised_at_once(error: Exception) -> None:
    """What is permanent, or says nothing about LCM, is not repeated, at first or after a transient error."""
    for before in ([], [ReplyTimeout("1")]):
        ask, calls = failing(*before, error)
        with pytest.raises(type(error), match="no"):
            await Retry(ask, retry_settings(attempts=5), SetClock().clock)(Inquiry("a"))
        assert len(calls) == len(before) + 1


async def test_a_cancelled_exchange_is_not_repeated() -> None:
    """Pitfall `tenacity retries a cancelled task unless the exceptions to retry are listed`: these are listed."""
    for before in ([], [ReplyTimeout("1")]):
        ask, calls = failing(*before, cast(Exception, asyncio.CancelledError()))
        retry = Retry(ask, retry_settings(attempts=5), SetClock().clock)
        assert isinstance(await outcome_of(_as_coroutine(retry(Inquiry("a")))), asyncio.CancelledError)
        assert len(calls) == len(before) + 1


async def _as_coroutine(work: Awaitable[Answer]) -> Answer:
    return await work


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_attempts_are_limited(attempts: int) -> None:
    """The last error is raised, as it was, once the attempts are used up."""
    errors = [ReplyTimeout(str(n)) for n in range(9)]
    ask, calls = failing(*errors)
    with pytest.raises(ReplyTimeout) as raised:
        await Retry(ask, retry_settings(attempts=attempts), SetClock().clock)(Inquiry("a"))
    assert raised.value is errors[attempts - 1]
    assert len(calls) == attempts


async def test_pauses_are_drawn_at_random_below_a_doubling() -> None:
    """Pitfall `wait_exponential_jitter saturates to one value for everyone`: at the ceiling pauses still differ."""
    clock = SetClock()
    ask, _ = failing(*(ReplyTimeout("x") for _ in range(99)))
    with pytest.raises(ReplyTimeout):
        await Retry(ask, retry_settings(attempts=40, first_delay=1, max_delay=8, budget=1500), clock.clock)(
            Inquiry("a")
        )
    ceilings = [min(8, 2**n) for n in range(39)]
    assert all(0 <= pause <= ceiling for pause, ceiling in zip(clock.sleeps, ceilings, strict=True))
    assert len(set(clock.sleeps[4:])) > 30


async def test_the_budget_ends_the_retries_before_a_pause() -> None:
    """Pitfall `stop_after_delay(1) ran 2.1 s`: exchanges and pauses together stay within the budget."""
    clock = SetClock()
    ask, calls = failing(*(ReplyTimeout("x") for _ in range(99)), clock=clock, takes=3)
    inquiry = Inquiry("a")
    with pytest.raises(ReplyTimeout):
        await Retry(ask, retry_settings(attempts=99, first_delay=0, max_delay=0, budget=10), clock.clock)(
            inquiry
        )
    assert calls == [0, 3, 6, 9]
    assert inquiry.spent == 12


async def test_no_pause_passes_the_deadline() -> None:
    """A job whose deadline would pass in the pause ends at once, with the last error in its text."""
    clock = SetClock()
    ask, calls = failing(ReplyTimeout("slow"))
    inquiry = Inquiry("a", deadline=START)
    with pytest.raises(Expired) as expired:
        await Retry(ask, retry_settings(), clock.clock)(inquiry)
    assert expired.value.message.endswith("last error: timeout: slow")
    assert (len(calls), clock.sleeps) == (1, [])


class OneSession:
    """Takes the place of the pool and of its sessions, each of which is made with what it will say."""

    def __init__(
        self, *script: list[tuple[str, str]] | Exception, clock: SetClock, takes: float = 0.0
    ) -> None:
        self.script = list(script)
        self.asked: list[tuple[str, float]] = []
        self.started: list[float] = []
        self.acquired: list[bool] = []
        self.released = 0
        self.slot, self.exchanges, self.alive = 3, 0, True
        self.waits = 0.0
        self.back = asyncio.Event()
        self.back.set()
        self._clock = clock
        self._takes = takes

    async def acquire(self, *, fresh: bool = False) -> Session:
        self.acquired.append(fresh)
        self._clock.seconds += self.waits
        await self.back.wait()
        if fresh:
            self.exchanges = 0
        return cast(Session, self)

    def release(self, _session: Session) -> None:
        self.released += 1

    async def exchange(self, account: str, timeout: float) -> list[tuple[str, str]]:  # noqa: ASYNC109 - a session's
        self.asked.append((account, timeout))
        self.started.append(self._clock.seconds)
        self.exchanges += 1
        self._clock.seconds += self._takes
        said = self.script.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


def exchanging(pool: OneSession, clock: SetClock, *, rate: float = 0, budget: float = 60) -> Exchange:
    """Return the exchange layer above this pool."""
    return Exchange(cast(Pool, pool), ExchangeRate(rate), 10, budget, clock.clock)


async def test_an_exchange_tells_when_and_where_it_took_place() -> None:
    """The answer has LCM's items, the times of asking and answering, and the session's numbers."""
    clock = SetClock()
    pool = OneSession(ITEMS, clock=clock, takes=2)
    inquiry = Inquiry("a")
    answer = await exchanging(pool, clock)(inquiry)
    assert answer == Answer(ITEMS, START, START + timedelta(seconds=2), 2, session=3, exchange=1)
    assert (inquiry.exchanges, inquiry.spent, pool.released) == (1, 2, 1)


async def test_an_exchange_in_vain_tells_where_it_took_place() -> None:
    """Whoever fails knows the session of the last exchange, which one it was there, and how long it took."""
    clock = SetClock()
    pool = OneSession(ReplyTimeout("late"), clock=clock, takes=10)
    pool.exchanges = 4
    inquiry = Inquiry("a")
    with pytest.raises(ReplyTimeout):
        await exchanging(pool, clock)(inquiry)
    assert inquiry.asked == Asked(session=3, exchange=5, seconds=10)


async def test_waiting_for_a_session_costs_no_budget() -> None:
    """Only exchanges and pauses are spent; the last exchange gets what is left of the budget as its timeout."""
    clock = SetClock()
    pool = OneSession(ITEMS, ITEMS, clock=clock, takes=55)
    pool.waits = 1000
    inquiry = Inquiry("a")
    for _ in range(2):
        await exchanging(pool, clock)(inquiry)
    assert pool.asked == [("a", 10), ("a", 5)]
    assert inquiry.spent == 110


@pytest.mark.parametrize(
    ("inquiry", "error"),
    [
        (Inquiry("a", deadline=START + timedelta(seconds=5)), Expired),
        (Inquiry("a", is_wanted=lambda: False), StaleDelivery),
    ],
)
async def test_whether_to_ask_is_decided_with_the_session_in_hand(
    inquiry: Inquiry, error: type[Exception]
) -> None:
    """A deadline that passed in the wait for a session, or a delivery that went stale, never reaches LCM."""
    clock = SetClock()
    pool = OneSession(ITEMS, clock=clock)
    pool.waits = 6
    with pytest.raises(error):
        await exchanging(pool, clock)(inquiry)
    assert (pool.asked, pool.released, inquiry.exchanges) == ([], 1, 0)


async def test_a_session_cut_while_idle_is_repeated_once_uncounted() -> None:
    """Pitfall `idle sessions cut by a load balancer`: once more on a fresh session, and one attempt in all."""
    clock = SetClock()
    pool = OneSession(ConnectionLost("cut"), ITEMS, clock=clock)
    pool.exchanges = 5
    inquiry = Inquiry("a")
    await exchanging(pool, clock)(inquiry)
    assert (pool.acquired, inquiry.exchanges, pool.released) == ([False, True], 1, 2)


@pytest.mark.parametrize("used_before", [0, 5])
async def test_a_fresh_session_that_is_cut_is_a_failure(used_before: int) -> None:
    """Closed in mid-exchange on a session of its own, an exchange has failed, and counts."""
    clock = SetClock()
    pool = OneSession(*(ConnectionLost("cut") for _ in range(2)), clock=clock)
    pool.exchanges = used_before
    inquiry = Inquiry("a")
    with pytest.raises(ConnectionLost):
        await exchanging(pool, clock)(inquiry)
    assert (inquiry.exchanges, pool.released) == (1, len(pool.acquired))
    assert len(pool.acquired) == (2 if used_before else 1)


async def test_other_errors_are_not_repeated_by_the_exchange() -> None:
    """What LCM said, or did not say, on a used session is no sign of a connection that had been cut."""
    clock = SetClock()
    pool = OneSession(ReplyTimeout("slow"), clock=clock)
    pool.exchanges = 5
    with pytest.raises(ReplyTimeout):
        await exchanging(pool, clock)(Inquiry("a"))
    assert (pool.acquired, pool.released) == ([False], 1)


async def test_exchanges_keep_to_the_rate() -> None:
    """With `max_rate` exchanges start evenly spaced, those as well that waited until LCM was back."""
    clock = SetClock()
    pool = OneSession(*([ITEMS] * 5), clock=clock)
    pool.back.clear()
    exchange = exchanging(pool, clock, rate=4)
    asking = [asyncio.ensure_future(exchange(Inquiry("a"))) for _ in range(5)]
    await settled()
    clock.seconds = 100
    pool.back.set()
    await asyncio.gather(*asking)
    assert pool.started == [100, 100.25, 100.5, 100.75, 101]


class Keeper:
    """Says that LCM is out as told, and notes what it is told."""

    def __init__(self, out: str = "", *, probes: int = 0, goes_out: bool = False) -> None:
        self.out = out
        self.told: list[str] = []
        self._probes = probes
        self._goes_out = goes_out

    def admit_probe(self) -> bool:
        self._probes -= 1
        return self._probes >= 0

    def answered(self, _account: str) -> None:
        self.told.append("answered")
        self.out = ""

    def not_answered(self, account: str, error: LookupFailed) -> None:
        self.told.append(f"{account}: {error.code}")
        if self._goes_out:
            self.out = "LCM is out"


async def test_while_lcm_is_out_no_exchange_takes_place() -> None:
    """Who asks is put off before LCM is asked, and not charged."""
    ask, calls = failing()
    inquiry = Inquiry("a")
    with pytest.raises(PutOff, match="LCM is out"):
        await Break(ask, Keeper("LCM is out"))(inquiry)
    assert (calls, inquiry.exchanges) == ([], 0)


async def test_a_probe_is_not_charged() -> None:
    """The one that is let through and fails is put off as if it had not been asked."""
    keeper = Keeper("LCM is out", probes=1)

    async def ask(inquiry: Inquiry) -> Answer:
        inquiry.exchanges += 1
        raise ReplyTimeout("slow")

    inquiry = Inquiry("a", exchanges=2)
    with pytest.raises(PutOff):
        await Break(ask, keeper)(inquiry)
    assert (inquiry.exchanges, inquiry.last_error, keeper.told) == (2, "timeout: slow", ["a: timeout"])


async def test_the_failure_that_starts_an_outage_defers_its_job() -> None:
    """It stays charged, and costs the job no retry."""
    keeper = Keeper(goes_out=True)

    async def ask(inquiry: Inquiry) -> Answer:
        inquiry.exchanges += 1
        raise ReplyTimeout("slow")

    inquiry = Inquiry("a")
    with pytest.raises(PutOff):
        await Break(ask, keeper)(inquiry)
    assert inquiry.exchanges == 1


async def test_what_was_under_way_when_the_outage_began_is_no_probe() -> None:
    """It is put off like the others, and the breaker is not told: each such failure would double the wait for LCM."""
    keeper = Keeper()

    async def ask(inquiry: Inquiry) -> Answer:
        inquiry.exchanges += 1
        keeper.out = "LCM is out"
        raise ReplyTimeout("slow")

    inquiry = Inquiry("a")
    with pytest.raises(PutOff):
        await Break(ask, keeper)(inquiry)
    assert (inquiry.exchanges, keeper.told) == (1, [])


async def test_a_rejection_is_an_answer() -> None:
    """An error about the account shows that LCM is there: it ends an outage, and fails the job as ever."""
    keeper = Keeper("LCM is out", probes=1)
    ask, _ = failing(LcmRejected("no"))
    with pytest.raises(LcmRejected):
        await Break(ask, keeper)(Inquiry("a"))
    assert keeper.told == ["answered"]


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        (None, "answered"),
        (LcmRejected("no"), "answered"),
        (ReplyTooLarge("2 MiB"), "answered"),
        (ReplyTimeout("late"), "timeout"),
        (ConnectionLost("cut"), "connection_lost"),
    ],
    ids=["a list", "rejected", "too large", "timeout", "cut"],
)
async def test_each_exchange_is_counted_by_how_it_ended(said: Exception | None, counted: str) -> None:
    """Whatever LCM said of the account is an answer; what failed to come counts by its code, and goes on."""
    told: list[str] = []
    ask, _ = failing(*([said] if said else []))
    assert await outcome_of(_as_coroutine(Count(ask, told.append)(Inquiry("a")))) is (said or ANSWER)
    assert told == [counted]


async def test_what_was_no_exchange_is_not_counted() -> None:
    """Who was put off, came too late or was cancelled before LCM said anything is nobody's exchange."""
    told: list[str] = []
    for end in (PutOff("out"), Expired("late"), StaleDelivery("gone"), asyncio.CancelledError()):
        ask, _ = failing(cast(Exception, end))
        ended = await outcome_of(_as_coroutine(Count(ask, told.append)(Inquiry("a"))))
        assert type(ended) is type(end)
    assert told == []
