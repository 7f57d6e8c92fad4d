"""One exchange: its session, its timeout, its rate, and a session that was cut while it was idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import cast

import pytest

from tests.support.lcm import START, SetClock
from tests.support.waiting import outcome_of, settled
from worker.common.callbacks import ignore
from worker.common.rate import Rate
from worker.contract.errors import (
    ConnectionLost,
    Expired,
    LcmError,
    LcmRejected,
    ReplyTimeout,
    ReplyTooLarge,
    StaleDelivery,
)
from worker.contract.lookup import ExchangeTiming, LookupRequest, LookupResult
from worker.contract.outcomes import OutcomeList
from worker.lcm.exchange import Exchange
from worker.lcm.pool import Pool
from worker.lcm.session import Session

ITEMS = OutcomeList([("7", "Busy")])


class OneSession:
    """Takes the place of the pool and of its sessions, each of which is made with what it will say."""

    def __init__(self, *script: OutcomeList | BaseException, clock: SetClock, takes: float = 0.0) -> None:
        self.script = list(script)
        self.asked: list[tuple[str, float]] = []
        self.started: list[float] = []
        self.acquired: list[bool] = []
        self.urgent: list[bool] = []
        self.released = 0
        self.slot, self.exchanges, self.alive, self.lapsed = 3, 0, True, False
        self.answered = 0
        self.proves = True
        self.told: list[str] = []
        self.waits = 0.0
        self.turns_away = 0
        self.back = asyncio.Event()
        self.back.set()
        self._clock = clock
        self._takes = takes

    async def acquire(self, *, fresh: bool = False, urgent: bool = False) -> Session:
        self.acquired.append(fresh)
        self.urgent.append(urgent)
        self._clock.seconds += self.waits
        await self.back.wait()
        if fresh:
            self.exchanges = self.answered = 0
        return cast(Session, self)

    def may_ask(self) -> bool:
        return True

    def release(self, _session: Session) -> None:
        self.released += 1

    def turned_away(self, session: object) -> bool:
        return session is self and self.exchanges <= self.turns_away

    def may_prove(self, _session: object) -> bool:
        return self.proves and not self.answered

    def answered_on(self, _session: object) -> None:
        self.told.append("answered")

    def not_full(self) -> None:
        self.told.append("not full")

    async def exchange(self, account: str, timeout: float) -> OutcomeList:  # noqa: ASYNC109 - a session's
        self.asked.append((account, timeout))
        self.started.append(self._clock.seconds)
        self.exchanges += 1
        self._clock.seconds += self._takes
        said = self.script.pop(0)
        self.answered += isinstance(said, OutcomeList | LcmRejected)
        if isinstance(said, BaseException):
            raise said
        return said


def exchanging(
    pool: OneSession,
    clock: SetClock,
    *,
    rate: float = 0,
    budget: float = 60,
    count: Callable[[str, float], object] = ignore,
) -> Exchange:
    """Return the exchange layer above this pool."""
    return Exchange(cast(Pool, pool), Rate(rate), 10, budget, clock=clock.clock, count=count)


async def test_an_exchange_tells_when_and_where_it_took_place() -> None:
    """The answer has LCM's items, the times of asking and answering, and the session's numbers."""
    clock = SetClock()
    pool = OneSession(ITEMS, clock=clock, takes=2)
    request = LookupRequest("a")
    answer = await exchanging(pool, clock)(request)
    assert answer == LookupResult(ITEMS, START, START + timedelta(seconds=2), ExchangeTiming(3, 1, 2))
    assert (request.exchanges, request.spent, pool.released) == (1, 2, 1)


async def test_an_exchange_in_vain_tells_where_it_took_place_and_why() -> None:
    """Whoever fails knows the session of the last exchange, which one it was there, how long it took, and the error."""
    clock = SetClock()
    pool = OneSession(ReplyTimeout("late"), clock=clock, takes=10)
    pool.exchanges = 4
    request = LookupRequest("a")
    with pytest.raises(ReplyTimeout):
        await exchanging(pool, clock)(request)
    assert request.last_exchange == ExchangeTiming(session=3, exchange=5, seconds=10)
    assert request.last_error == "timeout: late"


async def test_waiting_for_a_session_costs_no_budget() -> None:
    """Only exchanges and pauses are spent; the last exchange gets what is left of the budget as its timeout."""
    clock = SetClock()
    pool = OneSession(ITEMS, ITEMS, clock=clock, takes=55)
    pool.waits = 1000
    request = LookupRequest("a")
    for _ in range(2):
        await exchanging(pool, clock)(request)
    assert pool.asked == [("a", 10), ("a", 5)]
    assert request.spent == 110


@pytest.mark.parametrize(
    ("lookup_request", "error"),
    [
        (LookupRequest("a", deadline=START + timedelta(seconds=5)), Expired),
        (LookupRequest("a", is_wanted=lambda: False), StaleDelivery),
    ],
)
async def test_whether_to_ask_is_decided_with_the_session_in_hand(
    lookup_request: LookupRequest, error: type[Exception]
) -> None:
    """A deadline that passed in the wait for a session, or a delivery that went stale, never reaches LCM."""
    clock = SetClock()
    pool = OneSession(ITEMS, clock=clock)
    pool.waits = 6
    with pytest.raises(error):
        await exchanging(pool, clock)(lookup_request)
    assert (pool.asked, pool.released, lookup_request.exchanges) == ([], 1, 0)


async def test_a_session_cut_while_idle_is_repeated_once_uncounted() -> None:
    """Pitfall `idle sessions cut by a load balancer`: once more on a fresh session, and one attempt in all."""
    clock = SetClock()
    pool = OneSession(ConnectionLost("cut"), ITEMS, clock=clock)
    pool.exchanges = 5
    request = LookupRequest("a")
    await exchanging(pool, clock)(request)
    assert (pool.acquired, request.exchanges, pool.released) == ([False, True], 1, 2)


@pytest.mark.parametrize("urgent", [False, True])
async def test_who_is_urgent_has_each_of_its_sessions_before_others(urgent: bool) -> None:
    """Also the fresh one, on which it is repeated."""
    clock = SetClock()
    pool = OneSession(ConnectionLost("cut"), ITEMS, clock=clock)
    pool.exchanges = 5
    await exchanging(pool, clock)(LookupRequest("a", urgent=urgent))
    assert pool.urgent == [urgent] * 2


@pytest.mark.parametrize("used_before", [0, 5])
async def test_a_fresh_session_that_is_cut_is_a_failure(used_before: int) -> None:
    """Closed in mid-exchange on a session of its own, an exchange has failed, and counts."""
    clock = SetClock()
    pool = OneSession(*(ConnectionLost("cut") for _ in range(2)), clock=clock)
    pool.exchanges = used_before
    request = LookupRequest("a")
    with pytest.raises(ConnectionLost):
        await exchanging(pool, clock)(request)
    assert (request.exchanges, pool.released) == (1, len(pool.acquired))
    assert len(pool.acquired) == (2 if used_before else 1)


async def test_other_errors_are_not_repeated_by_the_exchange() -> None:
    """What LCM said, or did not say, on a used session is no sign of a connection that had been cut."""
    clock = SetClock()
    pool = OneSession(ReplyTimeout("slow"), clock=clock)
    pool.exchanges = 5
    with pytest.raises(ReplyTimeout):
        await exchanging(pool, clock)(LookupRequest("a"))
    assert (pool.acquired, pool.released) == ([False], 1)


async def test_exchanges_keep_to_the_rate() -> None:
    """With `max_rate` exchanges start evenly spaced, those as well that waited until LCM was back."""
    clock = SetClock()
    pool = OneSession(*([ITEMS] * 5), clock=clock)
    pool.back.clear()
    exchange = exchanging(pool, clock, rate=4)
    asking = [asyncio.ensure_future(exchange(LookupRequest("a"))) for _ in range(5)]
    await settled()
    clock.seconds = 100
    pool.back.set()
    await asyncio.gather(*asking)
    assert pool.started == [100, 100.25, 100.5, 100.75, 101]


class Oversleeping(SetClock):
    """Every sleep lasts a second longer, as on a busy machine."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds + 1)


async def test_an_exchange_that_is_late_brings_no_other_at_once() -> None:
    """What others count within any second has no more than one for each worker beyond the rate."""
    clock = Oversleeping()
    pool = OneSession(*([ITEMS] * 4), clock=clock)
    exchange = exchanging(pool, clock, rate=4)
    await asyncio.gather(*(exchange(LookupRequest("a")) for _ in range(4)))
    assert [round(later - earlier, 3) for earlier, later in pairwise(pool.started)] == [1.25, 1.245, 1.245]


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        (ITEMS, "answered"),
        (LcmRejected("no"), "answered"),
        (ReplyTooLarge("2 MiB"), "answered"),
        (ReplyTimeout("late"), "timeout"),
        (ConnectionLost("cut"), "connection_lost"),
    ],
    ids=["a list", "rejected", "too large", "timeout", "cut"],
)
async def test_each_exchange_is_counted_by_how_it_ended(said: OutcomeList | Exception, counted: str) -> None:
    """Whatever LCM said of the account is an answer; what failed to come counts by its code, with its time."""
    told: list[tuple[str, float]] = []
    clock = SetClock()
    pool = OneSession(said, clock=clock, takes=2)
    ended = await outcome_of(exchanging(pool, clock, count=lambda *how: told.append(how))(LookupRequest("a")))
    assert ended is said or (isinstance(ended, LookupResult) and ended.items is said)
    assert told == [(counted, 2)]


async def test_an_exchange_that_is_repeated_on_a_fresh_session_counts_once() -> None:
    """A session that was cut while it was idle is no exchange of its own; LCM was asked for both times together."""
    told: list[tuple[str, float]] = []
    clock = SetClock()
    pool = OneSession(ConnectionLost("cut"), ITEMS, clock=clock, takes=2)
    pool.exchanges = 4
    await exchanging(pool, clock, count=lambda *how: told.append(how))(LookupRequest("a"))
    assert told == [("answered", 4)]


async def test_an_exchange_that_lcm_had_no_room_for_is_repeated_uncounted() -> None:
    """However often LCM turns a session away while others of ours are open, the job is charged for its answer alone."""
    told: list[tuple[str, float]] = []
    clock = SetClock()
    pool = OneSession(ConnectionLost("closed"), LcmError("full"), ITEMS, clock=clock)
    pool.turns_away = 2
    request = LookupRequest("a")
    await exchanging(pool, clock, count=lambda *how: told.append(how))(request)
    assert (request.exchanges, told, pool.acquired, pool.released) == (1, [("answered", 0)], [False] * 3, 3)


async def asked_after_refusal(
    *script: OutcomeList | BaseException, refusals: int = 1, proves: bool = True
) -> tuple[OneSession, LookupRequest, object, list[str]]:
    """Have LCM answer for `known`, and turn away the request for another account on a session of its own.

    The next of so many `refusals` are in the script. Without `proves`, a session takes one exchange.
    """
    counted: list[str] = []
    clock = SetClock()
    pool = OneSession(ITEMS, LcmError("full"), *script, clock=clock)
    exchange = exchanging(pool, clock, count=lambda how, _: counted.append(how))
    await exchange(LookupRequest("known"))
    pool.exchanges = pool.answered = 0
    pool.turns_away, pool.proves = refusals, proves
    request = LookupRequest("a")
    return pool, request, await outcome_of(exchange(request)), counted


@pytest.mark.parametrize("known", [ITEMS, LcmRejected("closed")])
async def test_who_was_turned_away_asks_behind_an_account_that_lcm_answers(
    known: OutcomeList | BaseException,
) -> None:
    """On a session of its own LCM is to answer first for the one it answered last; then it has room."""
    pool, request, ended, counted = await asked_after_refusal(known, ITEMS)
    assert [account for account, _ in pool.asked] == ["known", "a", "known", "a"]
    assert isinstance(ended, LookupResult)
    assert (request.exchanges, request.turned_away, pool.told) == (1, True, ["answered"])
    assert counted == ["answered"] * 3


async def test_what_lcm_says_of_room_behind_an_answer_is_charged() -> None:
    """It says so of the account: that fails, and the pool has room for all."""
    pool, request, ended, counted = await asked_after_refusal(ITEMS, LcmError("full"))
    assert isinstance(ended, LcmError)
    assert (request.exchanges, pool.told) == (1, ["answered", "not full"])
    assert counted == ["answered", "answered", "lcm_error"]


@pytest.mark.parametrize("error", [ConnectionLost("closed"), LcmError("unwell")])
@pytest.mark.parametrize("answered_before", [False, True])
async def test_who_had_lcm_end_an_unused_session_asks_behind_another_as_well(
    error: Exception, answered_before: bool
) -> None:
    """Tried again, it has LCM show that it answers there: what it ends then says nothing about sessions."""
    clock = SetClock()
    pool = OneSession(ITEMS, error, ITEMS, ITEMS, clock=clock)
    exchange = exchanging(pool, clock)
    await exchange(LookupRequest("known"))
    pool.exchanges, pool.answered = 0, int(answered_before)
    request = LookupRequest("a")
    assert await outcome_of(exchange(request)) is error
    pool.answered = 0
    await exchange(request)
    asked_again = ["a"] if answered_before else ["known", "a"]
    assert [account for account, _ in pool.asked] == ["known", "a", *asked_again]
    assert request.exchanges == 2


async def test_an_account_that_is_answered_no_more_proves_nothing() -> None:
    """Its failure is not the job's, which is asked for by itself then."""
    pool, request, ended, counted = await asked_after_refusal(ReplyTimeout("late"), ITEMS)
    assert [account for account, _ in pool.asked] == ["known", "a", "known", "a"]
    assert isinstance(ended, LookupResult)
    assert (request.exchanges, request.last_error, pool.told) == (1, "", [])
    assert counted == ["answered", "timeout", "answered"]


async def test_where_a_session_takes_one_exchange_nobody_asks_ahead() -> None:
    """There every session is for one account, and LCM is believed."""
    pool, request, ended, _ = await asked_after_refusal(LcmError("full"), ITEMS, refusals=2, proves=False)
    assert isinstance(ended, LookupResult)
    assert [account for account, _ in pool.asked] == ["known", "a", "a", "a"]
    assert (request.exchanges, pool.told) == (1, [])


async def test_an_lcm_without_room_for_either_is_full() -> None:
    """Turned away for the account that LCM answered last, too, the job waits uncharged until there is room."""
    full = [LcmError("full") for _ in range(3)]
    pool, request, ended, _ = await asked_after_refusal(*full, ITEMS, ITEMS, refusals=4)
    assert isinstance(ended, LookupResult)
    assert [account for account, _ in pool.asked] == ["known", "a", "known", "known", "known", "known", "a"]
    assert (request.exchanges, pool.told) == (1, ["answered"])


@pytest.mark.parametrize(
    "request_",
    [
        LookupRequest("a", deadline=START),
        LookupRequest("a", is_wanted=lambda: False),
        LookupRequest("a"),
    ],
    ids=["late", "gone", "cancelled"],
)
async def test_what_was_no_exchange_is_not_counted(request_: LookupRequest) -> None:
    """Who came too late, is not wanted or was cancelled before LCM said anything is nobody's exchange."""
    told: list[tuple[str, float]] = []
    clock = SetClock()
    pool = OneSession(asyncio.CancelledError(), clock=clock)
    ended = await outcome_of(exchanging(pool, clock, count=lambda *how: told.append(how))(request_))
    assert isinstance(ended, Expired | StaleDelivery | asyncio.CancelledError)
    assert told == []
