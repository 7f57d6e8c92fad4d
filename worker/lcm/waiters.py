"""Those who wait for a session, in the order in which they came, each for a limited time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from worker.contract.errors import Deferred
from worker.lcm.session import Session


class _Waiter(NamedTuple):
    session: asyncio.Future[Session]
    until: float
    fresh: bool


class Waiters:
    """Three queues: a session goes to whoever is urgent first, then, without exchanges, to whoever needs a fresh one.

    All wait equally long, so the first of a queue is the first to have waited too long: one timer, for the oldest, will
    do for all. It is armed anew only once it has fired. Who was cancelled stays in the queue until its turn comes.
    """

    def __init__(self, hold: float) -> None:
        self._hold = hold
        self._urgent: deque[_Waiter] = deque()
        self._for_fresh: deque[_Waiter] = deque()
        self._for_any: deque[_Waiter] = deque()
        # Those for a fresh session come before those for any, or these would leave none.
        self._queues = (self._urgent, self._for_fresh, self._for_any)
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether the queues hold anybody, who may have been cancelled meanwhile."""
        return any(self._queues)

    def __len__(self) -> int:
        """Return how many do wait."""
        return sum(not waiter.session.done() for queue in self._queues for waiter in queue)

    def join(self, *, fresh: bool = False, urgent: bool = False) -> asyncio.Future[Session]:
        """Return the future of a session, or of Deferred where `hold` seconds were not enough."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), loop.time() + self._hold, fresh)
        (self._urgent if urgent else self._for_fresh if fresh else self._for_any).append(waiter)
        if self._timer is None:
            self._timer = loop.call_at(waiter.until, self._expire)
        return waiter.session

    def serve(self, session: Session) -> bool:
        """Give a session to the first whom it suits; return whether there was one."""
        return any(_serve(queue, session) for queue in self._queues)

    def reject(self, reason: str) -> None:
        """Raise Deferred in all."""
        for waiter in self._leave():
            waiter.set_exception(Deferred(reason))

    def cancel(self) -> None:
        """Cancel all."""
        for waiter in self._leave():
            waiter.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave(self) -> Iterator[asyncio.Future[Session]]:
        for queue in self._queues:
            while queue:
                waiter = queue.popleft()
                if not waiter.session.done():
                    yield waiter.session

    def _expire(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for queue in self._queues:
            while queue and (queue[0].until <= now or queue[0].session.done()):
                waiter = queue.popleft()
                if not waiter.session.done():
                    waiter.session.set_exception(
                        Deferred(f"no session was free within {self._hold:g} s (outage.hold)")
                    )
        if oldest := [queue[0].until for queue in self._queues if queue]:
            self._timer = loop.call_at(min(oldest), self._expire)


def _serve(queue: deque[_Waiter], session: Session) -> bool:
    while queue:
        waiter, _, fresh = queue[0]
        if fresh and session.exchanges and not waiter.done():
            return False
        queue.popleft()
        if not waiter.done():
            waiter.set_result(session)
            return True
    return False
