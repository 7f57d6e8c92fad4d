"""Defects to seed into the real classes, each of a kind that somebody could write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from worker.contract.errors import ReplyTimeout
from worker.contract.lookup import LookupRequest, LookupResult
from worker.lcm.breaker import Breaker
from worker.lcm.exchange import Exchange, _CutWhileIdle
from worker.lcm.lookup import CircuitBreaker
from worker.lcm.outage import Prober
from worker.lcm.pacing import ReconnectPace
from worker.lcm.places import Place
from worker.lcm.pool import Pool
from worker.lcm.session import Session
from worker.lcm.single_flight import SingleFlight
from worker.lcm.waiters import Waiters

Seed = Callable[[pytest.MonkeyPatch], None]


def a_session_keeps_its_socket_after_a_timeout(patch: pytest.MonkeyPatch) -> None:
    def expire(self: Session) -> None:
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(ReplyTimeout(f"LCM did not reply in {self._timeout:g} s"))

    patch.setattr(Session, "_expire", expire)


def a_session_keeps_its_socket_when_it_is_cancelled(patch: pytest.MonkeyPatch) -> None:
    end = Session._end

    def end_unless_cancelled(self: Session, reason: str, *error: Any) -> None:
        if reason != "cancelled in mid-exchange":
            end(self, reason, *error)

    patch.setattr(Session, "_end", end_unless_cancelled)


def requests_go_out_without_a_fence(patch: pytest.MonkeyPatch) -> None:
    init = Session.__init__

    def init_unfenced(self: Session, *given: Any, **_fenced: bool) -> None:
        init(self, *given, fenced=False)

    patch.setattr(Session, "__init__", init_unfenced)


def a_pong_counts_before_what_came_ahead_of_it(patch: pytest.MonkeyPatch) -> None:
    take = Session._take

    def take_a_turn_later(self: Session, raw: bytes) -> None:
        # By then the pong behind it, in the same segment, has been seen.
        asyncio.get_running_loop().call_soon(take, self, raw)

    patch.setattr(Session, "_take", take_a_turn_later)


def a_session_is_handed_out_twice(patch: pytest.MonkeyPatch) -> None:
    acquire = Pool.acquire

    async def acquire_again(self: Pool, *, fresh: bool = False, urgent: bool = False) -> Session:
        if self._busy and not fresh and (session := min(self._busy, key=lambda one: one.slot)).alive:
            return session
        return await acquire(self, fresh=fresh, urgent=urgent)

    patch.setattr(Pool, "acquire", acquire_again)


def a_promised_session_is_lost_by_a_cancellation(patch: pytest.MonkeyPatch) -> None:
    async def acquire(self: Pool, *, fresh: bool = False, urgent: bool = False) -> Session:
        promised = self._waiters.join(fresh=fresh, urgent=urgent)
        self._assign()
        return await promised

    patch.setattr(Pool, "acquire", acquire)


def a_place_is_free_before_its_session_is_closed(patch: pytest.MonkeyPatch) -> None:
    async def close(self: Session) -> None:
        self._ended = "closed by us"
        self._on_ended(self, self._ended)
        await self._socket.close()

    patch.setattr(Session, "close", close)


def no_session_is_opened_for_who_waits_meanwhile(patch: pytest.MonkeyPatch) -> None:
    assign = Pool._assign

    def assign_sometimes(self: Pool) -> None:
        # Forgets those who came to wait while another one was closing.
        if not self._closing:
            assign(self)

    patch.setattr(Pool, "_assign", assign_sometimes)
    patch.setattr(Waiters, "_expire", lambda *_: None)


def sessions_are_opened_without_a_pause(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReconnectPace, "delay", lambda *_: 0.0)


def probes_come_without_a_pause(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Breaker, "probe_delay", lambda *_: 0.0)


def every_outage_has_a_prober_of_its_own(patch: pytest.MonkeyPatch) -> None:
    started = Prober.outage_started

    def started_anew(self: Prober) -> None:
        self._probing = None
        started(self)

    patch.setattr(Prober, "outage_started", started_anew)


def an_outage_is_probed_once(patch: pytest.MonkeyPatch) -> None:
    async def probe(self: Prober) -> None:
        if (outage := self._breaker.outage) is not None:
            await self._probe_once(outage)

    patch.setattr(Prober, "_probe", probe)


def an_answer_does_not_end_an_outage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Breaker, "answered", lambda _: None)


def a_cancelled_leader_forgets_its_followers(patch: pytest.MonkeyPatch) -> None:
    lead = SingleFlight._lead

    async def lead_and_forget(self: SingleFlight, request: LookupRequest) -> LookupResult:
        lookup = self._lookup

        async def forgetting(request: LookupRequest) -> LookupResult:
            try:
                return await lookup(request)
            except asyncio.CancelledError:
                self._flights[request.account].followers.clear()
                raise

        careless = SingleFlight(forgetting, self._places)
        careless._flights = self._flights
        return await lead(careless, request)

    patch.setattr(SingleFlight, "_lead", lead_and_forget)


def a_flight_is_shared_by_all_accounts(patch: pytest.MonkeyPatch) -> None:
    ask = SingleFlight.__call__

    async def ask_for_any(self: SingleFlight, request: LookupRequest) -> LookupResult:
        if self._flights and request.account not in self._flights:
            flight = next(iter(self._flights.values()))
            if isinstance(answer := await flight.follow(Place(self._places, request)), LookupResult):
                return answer
        return await ask(self, request)

    patch.setattr(SingleFlight, "__call__", ask_for_any)


def a_repeat_is_charged(patch: pytest.MonkeyPatch) -> None:
    async def ask(self: Exchange, request: LookupRequest) -> LookupResult:
        try:
            return await self._on_session(request, fresh=False)
        except _CutWhileIdle:
            request.exchanges += 1
            return await self._on_session(request, fresh=True)

    patch.setattr(Exchange, "__call__", ask)


def a_probe_is_charged(patch: pytest.MonkeyPatch) -> None:
    ask = CircuitBreaker.__call__

    async def ask_at_a_price(self: CircuitBreaker, request: LookupRequest) -> LookupResult:
        before = request.exchanges
        out = bool(self._outages.out)
        try:
            return await ask(self, request)
        except Exception as error:
            if out and error.__cause__ is not None:
                request.exchanges = before + 1
            raise

    patch.setattr(CircuitBreaker, "__call__", ask_at_a_price)


def a_permission_to_probe_outlasts_its_outage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Prober, "_is_over", lambda *_: False)
