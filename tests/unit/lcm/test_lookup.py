"""The layers around an exchange: what is counted, and what is stopped while LCM is out."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.support.log import RecordingLog
from tests.support.lookup import ANSWER, failing
from tests.support.waiting import outcome_of, settled
from worker.common.clock import SYSTEM_CLOCK
from worker.contract.errors import (
    Deferred,
    LcmRejected,
    LookupFailed,
    ReplyTimeout,
)
from worker.contract.job import Producer
from worker.contract.lookup import LookupRequest, LookupResult
from worker.lcm.breaker import Breaker
from worker.lcm.lookup import CircuitBreaker
from worker.lcm.outage import OutageMonitor


class Keeper:
    """Says that LCM is out as told, is never in doubt, and notes what it is told."""

    doubted = ""

    def __init__(self, out: str = "", *, probes: int = 0, goes_out: bool = False) -> None:
        self.out = out
        self.told: list[str] = []
        self._probes = probes
        self._goes_out = goes_out

    def not_settled(self) -> None: ...

    def admit_probe(self, _producer: Producer) -> bool:
        self._probes -= 1
        return self._probes >= 0

    def answered(self, _account: str) -> None:
        self.told.append("answered")
        self.out = ""

    def not_answered(self, account: str, error: LookupFailed, _producer: Producer) -> None:
        self.told.append(f"{account}: {error.code}")
        if self._goes_out:
            self.out = "LCM is out"


async def test_while_lcm_is_out_no_exchange_takes_place() -> None:
    """Who asks is put off before LCM is asked, and not charged."""
    ask, calls = failing()
    request = LookupRequest("a")
    with pytest.raises(Deferred, match="LCM is out"):
        await CircuitBreaker(ask, Keeper("LCM is out"), SYSTEM_CLOCK)(request)
    assert (calls, request.exchanges) == ([], 0)


async def test_a_probe_is_not_charged() -> None:
    """The one that is let through and fails is put off as if it had not been asked."""
    keeper = Keeper("LCM is out", probes=1)
    ask, _ = failing(ReplyTimeout("slow"))
    request = LookupRequest("a", exchanges=2)
    with pytest.raises(Deferred):
        await CircuitBreaker(ask, keeper, SYSTEM_CLOCK)(request)
    assert (request.exchanges, request.last_error, keeper.told) == (2, "timeout: slow", ["a: timeout"])


async def test_the_failure_that_starts_an_outage_defers_its_job() -> None:
    """It stays charged, and costs the job no retry."""
    keeper = Keeper(goes_out=True)

    async def ask(request: LookupRequest) -> LookupResult:
        request.exchanges += 1
        raise ReplyTimeout("slow")

    request = LookupRequest("a")
    with pytest.raises(Deferred):
        await CircuitBreaker(ask, keeper, SYSTEM_CLOCK)(request)
    assert request.exchanges == 1


async def test_what_was_under_way_when_the_outage_began_is_no_probe() -> None:
    """It is put off like the others, and the breaker is not told: each such failure would double the wait for LCM."""
    keeper = Keeper()

    async def ask(request: LookupRequest) -> LookupResult:
        request.exchanges += 1
        keeper.out = "LCM is out"
        raise ReplyTimeout("slow")

    request = LookupRequest("a")
    with pytest.raises(Deferred):
        await CircuitBreaker(ask, keeper, SYSTEM_CLOCK)(request)
    assert (request.exchanges, keeper.told) == (1, [])


async def test_a_rejection_is_an_answer() -> None:
    """An error about the account shows that LCM is there: it ends an outage, and fails the job as ever."""
    keeper = Keeper("LCM is out", probes=1)
    ask, _ = failing(LcmRejected("no"))
    with pytest.raises(LcmRejected):
        await CircuitBreaker(ask, keeper, SYSTEM_CLOCK)(LookupRequest("a"))
    assert keeper.told == ["answered"]


class Lcm:
    """Answers for some accounts alone; each exchange ends when the test lets it go on."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.has_room = True
        self.asked = Counter[str]()
        self.goes_on = asyncio.Event()
        self.outages = OutageMonitor(Breaker(3, probe_delay=1.0, probe_max_delay=30.0), RecordingLog())
        self.outages.answered("good")
        self._breaker = CircuitBreaker(self._ask, self.outages, SYSTEM_CLOCK)

    def look_up(self, *accounts: str) -> list[asyncio.Task[LookupResult | BaseException]]:
        """Begin to look these up, one after the other."""
        return [
            asyncio.ensure_future(outcome_of(self._breaker(LookupRequest(account)))) for account in accounts
        ]

    async def doubted(self) -> list[asyncio.Task[LookupResult | BaseException]]:
        """Have three accounts fail, which have it asked whether LCM is out, and hold that exchange."""
        failing = self.look_up("bad-1", "bad-2", "bad-3")
        await settled()
        self.goes_on.set()
        self.goes_on.clear()
        await settled()
        assert self.asked == Counter(["bad-1", "bad-2", "bad-3", "good"])
        return failing

    async def _ask(self, request: LookupRequest) -> LookupResult:
        self.asked[request.account] += 1
        assert request.urgent == (request.account == "good")
        await self.goes_on.wait()
        if not self.has_room:
            raise Deferred("no session")
        if self.answers and not request.account.startswith("bad"):
            return ANSWER
        raise ReplyTimeout("slow")


def ends(tasks: list[asyncio.Task[LookupResult | BaseException]]) -> list[type]:
    """Return how each ended."""
    return [type(task.result()) for task in tasks]


async def test_accounts_that_lcm_answers_badly_are_no_outage() -> None:
    """The account that LCM answered last is asked for once; it is answered, so what failed is the accounts' own."""
    lcm = Lcm(answers=True)
    bad = await lcm.doubted()
    others = lcm.look_up("other", "bad-4")
    await settled()
    assert lcm.asked["other"] == 0
    lcm.goes_on.set()
    await settled()
    assert ends(bad) == [ReplyTimeout] * 3
    assert ends(others) == [LookupResult, ReplyTimeout]
    assert (lcm.asked["good"], lcm.outages.out) == (1, "")


async def test_an_outage_begins_where_the_account_that_lcm_answered_last_fails_too() -> None:
    """Who failed last is deferred, and so is who waited for that, without asking LCM."""
    lcm = Lcm(answers=False)
    bad = await lcm.doubted()
    others = lcm.look_up("other", "bad-4")
    await settled()
    lcm.goes_on.set()
    await settled()
    assert ends(bad) == [ReplyTimeout, ReplyTimeout, Deferred]
    assert ends(others) == [Deferred, Deferred]
    assert lcm.outages.out
    assert lcm.asked == Counter(["bad-1", "bad-2", "bad-3", "good"])


async def test_all_that_wait_are_deferred_where_there_is_no_session_to_ask() -> None:
    """As who waits for a session himself: each would else wait as long again for a try of its own."""
    lcm = Lcm(answers=True)
    bad = await lcm.doubted()
    others = lcm.look_up("other")
    await settled()
    lcm.has_room = False
    lcm.goes_on.set()
    await settled()
    assert ends([bad[2], *others]) == [Deferred] * 2
    assert lcm.asked["good"] == 1
    lcm.has_room = True
    after = lcm.look_up("other")
    await settled()
    assert ends(after) == [LookupResult]


async def test_who_is_cancelled_while_it_asks_leaves_that_to_the_next() -> None:
    """A job whose channel is gone takes the question with it; the others still get their answer."""
    lcm = Lcm(answers=True)
    bad = await lcm.doubted()
    others = lcm.look_up("other")
    await settled()
    bad[2].cancel()
    await settled()
    assert lcm.asked["good"] == 2
    lcm.goes_on.set()
    await settled()
    assert ends(others) == [LookupResult]
    assert (lcm.asked["good"], lcm.outages.out) == (2, "")
