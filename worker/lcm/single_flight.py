"""Lets lookups for one account that are in flight at the same time share one exchange."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from msgspec.structs import replace

from worker.contract.errors import GaveWay, LookupFailed
from worker.contract.lookup import Lookup, LookupRequest, LookupResult
from worker.lcm.places import STUCK_AFTER, Place, Places

_End = LookupResult | LookupFailed | None


@dataclass(slots=True)
class _Flight:
    """A lookup under way, and those that wait for its end; they are stuck once its exchange has taken long."""

    leader: LookupRequest
    loop: asyncio.AbstractEventLoop = field(repr=False)
    began: float
    exchanges: int
    followers: list[tuple[Place, asyncio.Future[_End]]] = field(default_factory=list)
    is_stuck: bool = False
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    def follow(self, place: Place) -> asyncio.Future[_End]:
        end: asyncio.Future[_End] = self.loop.create_future()
        self.followers.append((place, end))
        if self.timer is None:
            self.timer = self.loop.call_at(self.began + STUCK_AFTER, self._get_stuck)
        elif self.is_stuck:
            _keep_or_leave(place, end)
        return end

    def ended(self, end: _End) -> None:
        if self.timer is not None:
            self.timer.cancel()
        for _, follower in self.followers:
            if not follower.done():
                follower.set_result(end)

    def _get_stuck(self) -> None:
        if self.leader.exchanges == self.exchanges:
            # It waits for a session still, which says nothing about its account.
            self.timer = self.loop.call_later(STUCK_AFTER, self._get_stuck)
            return
        self.is_stuck = True
        for place, end in self.followers:
            _keep_or_leave(place, end)


def _keep_or_leave(place: Place, end: asyncio.Future[_End]) -> None:
    if end.done():
        return
    try:
        place.keep()
    except GaveWay as reason:
        end.set_exception(reason)


class SingleFlight:
    """Lets lookups for one account that are in flight at the same time share one exchange.

    The first request leads and asks LCM in its own task. Whatever LCM answered or failed to answer goes to all; when
    the leader leaves for a reason of its own (cancelled, expired, not wanted), the next one leads. Nothing is
    cached: a request that comes after the end asks LCM anew. Who waits for long gives way, see Places.
    """

    def __init__(self, lookup: Lookup, places: Places) -> None:
        self._lookup = lookup
        self._places = places
        self._flights: dict[str, _Flight] = {}

    async def __call__(self, request: LookupRequest) -> LookupResult:
        while (flight := self._flights.get(request.account)) is not None:
            with Place(self._places, request) as place:
                end = await flight.follow(place)
            if isinstance(end, LookupFailed):
                request.note_failure(end)
                raise type(end)(str(end), remote_message=end.remote_message)
            if end is not None:
                # As if it had asked by itself: a request must not profit from an exchange begun past its deadline.
                request.check(end.asked_at)
                return end
        return await self._lead(request)

    async def _lead(self, request: LookupRequest) -> LookupResult:
        loop = asyncio.get_running_loop()
        flight = self._flights[request.account] = _Flight(request, loop, loop.time(), request.exchanges)
        end: _End = None
        try:
            found = await self._lookup(request)
            end = replace(found, shared=True) if flight.followers else None
        except LookupFailed as error:
            end = error
            raise
        finally:
            del self._flights[request.account]
            flight.ended(end)
        return found
