"""Defects to seed into the real classes, each of a kind that somebody could write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from worker.errors import ReplyTimeout
from worker.inquiry import Answer, Inquiry
from worker.keepers import OutageKeeper
from worker.lcm.breaker import Breaker, Outage
from worker.lcm.lookup import Break, Exchange, Share, _CutWhileIdle
from worker.lcm.pacing import ReconnectPace
from worker.lcm.pool import Pool, _Waiter
from worker.lcm.session import Session

Seed = Callable[[pytest.MonkeyPatch], None]


def a_session_keeps_its_socket_after_a_timeout(patch: pytest.MonkeyPatch) -> None:
    def expire(self: Session, timeout: float) -> None:
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(ReplyTimeout(f"LCM did not reply in {timeout:g} s"))

    patch.setattr(Session, "_expire", expire)


def a_session_keeps_its_socket_when_it_is_cancelled(patch: pytest.MonkeyPatch) -> None:
    end = Session._end

    def end_unless_cancelled(self: Session, reason: str, *error: Any) -> None:
        if reason != "cancelled in mid-exchange":
            end(self, reason, *error)

    patch.setattr(Session, "_end", end_unless_cancelled)


def requests_go_out_without_a_fence(patch: pytest.MonkeyPatch) -> None:
    async def send(self: Session, request: bytes, _pending: object) -> None:
        await self._socket.send(request, text=True)

    patch.setattr(Session, "_send", send)


def a_pong_counts_before_what_came_ahead_of_it(patch: pytest.MonkeyPatch) -> None:
    take = Session._take

    def take_if_pong_is_there(self: Session, raw: bytes) -> None:
        self._behind_fence = False
        take(self, raw)

    patch.setattr(Session, "_take", take_if_pong_is_there)


def a_session_is_handed_out_twice(patch: pytest.MonkeyPatch) -> None:
    acquire = Pool.acquire

    async def acquire_again(self: Pool, *, fresh: bool = False) -> Session:
        if self._busy and not fresh and (session := min(self._busy, key=lambda one: one.slot)).alive:
            return session
        return await acquire(self, fresh=fresh)

    patch.setattr(Pool, "acquire", acquire_again)


def a_promised_session_is_lost_by_a_cancellation(patch: pytest.MonkeyPatch) -> None:
    async def acquire(self: Pool, *, fresh: bool = False) -> Session:
        waiter = _Waiter(asyncio.get_running_loop().create_future(), fresh)
        self._waiters.append(waiter)
        self._assign()
        return await waiter.session

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
    patch.setattr(Pool, "_held_too_long", lambda *_: None)


def sessions_are_opened_without_a_pause(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReconnectPace, "delay", lambda *_: 0.0)


def probes_come_without_a_pause(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Breaker, "probe_delay", lambda *_: 0.0)


def every_outage_has_a_prober_of_its_own(patch: pytest.MonkeyPatch) -> None:
    before = OutageKeeper._before

    def before_anew(self: OutageKeeper, outage: Outage | None) -> None:
        if outage is not None:
            self._probing = None
        before(self, outage)

    patch.setattr(OutageKeeper, "_before", before_anew)


def an_outage_is_probed_once(patch: pytest.MonkeyPatch) -> None:
    async def probe(self: OutageKeeper) -> None:
        if (outage := self._breaker.outage) is not None:
            await self._probe_once(outage)

    patch.setattr(OutageKeeper, "_probe", probe)


def an_answer_does_not_end_an_outage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Breaker, "answered", lambda _: None)


def a_cancelled_leader_forgets_its_followers(patch: pytest.MonkeyPatch) -> None:
    lead = Share._lead

    async def lead_and_forget(self: Share, inquiry: Inquiry) -> Answer:
        lookup = self._lookup

        async def forgetting(inquiry: Inquiry) -> Answer:
            try:
                return await lookup(inquiry)
            except asyncio.CancelledError:
                self._flights[inquiry.account].clear()
                raise

        careless = Share(forgetting)
        careless._flights = self._flights
        return await lead(careless, inquiry)

    patch.setattr(Share, "_lead", lead_and_forget)


def a_flight_is_shared_by_all_accounts(patch: pytest.MonkeyPatch) -> None:
    ask = Share.__call__

    async def ask_for_any(self: Share, inquiry: Inquiry) -> Answer:
        if self._flights and inquiry.account not in self._flights:
            landing: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            next(iter(self._flights.values())).append(landing)
            if isinstance(answer := await landing, Answer):
                return answer
        return await ask(self, inquiry)

    patch.setattr(Share, "__call__", ask_for_any)


def a_repeat_is_charged(patch: pytest.MonkeyPatch) -> None:
    async def ask(self: Exchange, inquiry: Inquiry) -> Answer:
        try:
            return await self._on_session(inquiry, fresh=False)
        except _CutWhileIdle:
            return await self._on_session(inquiry, fresh=True)

    patch.setattr(Exchange, "__call__", ask)


def a_probe_is_charged(patch: pytest.MonkeyPatch) -> None:
    ask = Break.__call__

    async def ask_at_a_price(self: Break, inquiry: Inquiry) -> Answer:
        before = inquiry.exchanges
        out = bool(self._keeper.out)
        try:
            return await ask(self, inquiry)
        except Exception as error:
            if out and error.__cause__ is not None:
                inquiry.exchanges = before + 1
            raise

    patch.setattr(Break, "__call__", ask_at_a_price)


def a_permission_to_probe_outlasts_its_outage(patch: pytest.MonkeyPatch) -> None:
    async def probe_once(self: OutageKeeper, outage: Outage) -> None:
        if not outage.by_exchanges:
            await self._sessions.try_one()
            return
        if not self._sessions.paced:
            await self._sleep(self._breaker.probe_delay(self._jitter))
        self._may_probe = True
        if not await self._intake.take_one(0.0):
            await self._sleep(self._breaker.probe_delay(self._jitter))

    patch.setattr(OutageKeeper, "_probe_once", probe_once)
