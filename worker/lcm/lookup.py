"""The layers between a lookup request and LCM: single flight( retry( circuit breaker( exchange( pool )))).

Each layer is one concern, takes a `LookupRequest` and returns a `LookupResult` or raises a `LookupFailed`. They are
put together in `build_lookup` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from worker.common.callbacks import ignore, unchanged
from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.common.rate import Rate
from worker.contract.errors import Deferred, LookupFailed
from worker.contract.job import Producer
from worker.contract.lookup import Lookup, LookupRequest, LookupResult
from worker.lcm.exchange import Exchange
from worker.lcm.places import Places
from worker.lcm.pool import Pool
from worker.lcm.retry import Retry
from worker.lcm.single_flight import SingleFlight
from worker.settings import LcmSettings, RetrySettings


class Outages(Protocol):
    """Knows whether LCM is out, and is told how exchanges fare."""

    @property
    def out(self) -> str:
        """Why LCM is out, "" where it isn't."""

    def admit_probe(self, producer: Producer) -> bool:
        """Whether this exchange for a job of this producer may take place all the same, as the one that probes."""

    @property
    def doubted(self) -> str:
        """The account to ask for before anything else, to know whether LCM is out; "" where that is known."""

    def not_settled(self) -> None:
        """It could not be asked for."""

    def answered(self, account: str) -> None:
        """LCM answered, be it with an error about the account."""

    def not_answered(self, account: str, error: LookupFailed, producer: Producer) -> None:
        """LCM did not answer, for a job of this producer."""


def build_lookup(
    pool: Pool,
    lcm: LcmSettings,
    retry: RetrySettings,
    *,
    outages: Outages | None = None,
    places: Places | None = None,
    rate: Rate | None = None,
    count: Callable[[str, float], object] = ignore,
    traced: Callable[[Lookup], Lookup] = unchanged,
    clock: Clock = SYSTEM_CLOCK,
) -> Lookup:
    """Compose the layers as the settings ask.

    Args:
        pool: the sessions.
        lcm: the settings of LCM.
        retry: the settings of retries.
        outages: stops exchanges while LCM is out; without it none is stopped.
        places: those that stuck lookups may keep; without them, as many as they like.
        rate: how often LCM may be asked; without it, as `lcm.max_rate` says.
        count: is told how each exchange ended, see `Exchange`.
        traced: puts a span around each exchange.
        clock: the time, and how it is waited for.
    """
    rate = rate or Rate(lcm.max_rate)
    lookup = traced(Exchange(pool, rate, lcm.reply_timeout, retry.budget, clock=clock, count=count))
    if outages is not None:
        lookup = CircuitBreaker(lookup, outages, clock)
    places = places or Places.unlimited(clock)
    lookup = Retry(lookup, retry, places, clock)
    return SingleFlight(lookup, places) if lcm.share else lookup


class CircuitBreaker:
    """Lets no exchange take place while LCM is out, but the one that probes, nor while it is not known, but one.

    A request that meets an outage is deferred. Exchanges made before the outage stay charged; a probe is not charged.
    """

    def __init__(self, exchange: Lookup, outages: Outages, clock: Clock) -> None:
        self._exchange = exchange
        self._outages = outages
        self._find_out = SingleFlight(self._ask_in_doubt, Places.unlimited(clock))

    async def __call__(self, request: LookupRequest) -> LookupResult:
        await self._settle()
        probing = False
        if self._outages.out:
            probing = self._outages.admit_probe(request.producer)
            if not probing:
                raise Deferred(self._outages.out)
        charged = request.exchanges
        try:
            return await self._ask(request, probing=probing)
        except LookupFailed as error:
            await self._settle()
            if not self._outages.out:
                raise
            if probing:
                request.exchanges = charged
            raise Deferred(self._outages.out) from error

    async def _settle(self) -> None:
        """Get to know whether LCM is out: where it is in doubt one request asks, and all wait for its end."""
        while account := self._outages.doubted:
            with suppress(LookupFailed):
                await self._find_out(LookupRequest(account, urgent=True))

    async def _ask_in_doubt(self, request: LookupRequest) -> LookupResult:
        if self._outages.doubted != request.account:
            raise Deferred(self._outages.out or "no session was free to find out whether LCM is out")
        try:
            return await self._ask(request, probing=False)
        except Deferred:
            self._outages.not_settled()
            raise

    async def _ask(self, request: LookupRequest, *, probing: bool) -> LookupResult:
        try:
            found = await self._exchange(request)
        except LookupFailed as error:
            # An error about the account, or a reply that is too large, is an answer.
            if not error.transient:
                self._outages.answered(request.account)
            # An exchange that was under way when the outage began is no probe.
            elif probing or not self._outages.out:
                self._outages.not_answered(request.account, error, request.producer)
            raise
        self._outages.answered(request.account)
        return found
