"""The layers around an exchange: what is counted, and what is stopped while LCM is out."""

from __future__ import annotations

import pytest

from tests.support.lookup import failing
from worker.contract.errors import (
    Deferred,
    LcmRejected,
    LookupFailed,
    ReplyTimeout,
)
from worker.contract.lookup import LookupRequest, LookupResult
from worker.lcm.lookup import CircuitBreaker


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
    request = LookupRequest("a")
    with pytest.raises(Deferred, match="LCM is out"):
        await CircuitBreaker(ask, Keeper("LCM is out"))(request)
    assert (calls, request.exchanges) == ([], 0)


async def test_a_probe_is_not_charged() -> None:
    """The one that is let through and fails is put off as if it had not been asked."""
    keeper = Keeper("LCM is out", probes=1)

    async def ask(request: LookupRequest) -> LookupResult:
        request.exchanges += 1
        raise ReplyTimeout("slow")

    request = LookupRequest("a", exchanges=2)
    with pytest.raises(Deferred):
        await CircuitBreaker(ask, keeper)(request)
    assert (request.exchanges, request.last_error, keeper.told) == (2, "timeout: slow", ["a: timeout"])


async def test_the_failure_that_starts_an_outage_defers_its_job() -> None:
    """It stays charged, and costs the job no retry."""
    keeper = Keeper(goes_out=True)

    async def ask(request: LookupRequest) -> LookupResult:
        request.exchanges += 1
        raise ReplyTimeout("slow")

    request = LookupRequest("a")
    with pytest.raises(Deferred):
        await CircuitBreaker(ask, keeper)(request)
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
        await CircuitBreaker(ask, keeper)(request)
    assert (request.exchanges, keeper.told) == (1, [])


async def test_a_rejection_is_an_answer() -> None:
    """An error about the account shows that LCM is there: it ends an outage, and fails the job as ever."""
    keeper = Keeper("LCM is out", probes=1)
    ask, _ = failing(LcmRejected("no"))
    with pytest.raises(LcmRejected):
        await CircuitBreaker(ask, keeper)(LookupRequest("a"))
    assert keeper.told == ["answered"]
