"""Who waits for a session: served in turn, and each told after the same time that there was none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import cast

import pytest

from tests.simulation.loop import VirtualLoop
from worker.contract.errors import Deferred
from worker.lcm.session import Session
from worker.lcm.waiters import Waiters

HOLD = 60.0


class _Used:
    """Takes the place of a session, of which only this matters."""

    def __init__(self, exchanges: int = 0) -> None:
        self.exchanges = exchanges


USED, UNUSED = cast(Session, _Used(3)), cast(Session, _Used())


class Queue:
    """Waiters on virtual time, and when each of them left by which end."""

    def __init__(self) -> None:
        self.loop = VirtualLoop(random.Random(1), pytest.fail)  # noqa: S311 - no secret
        self.waiters = Waiters(HOLD)
        self.ends: dict[str, tuple[float, object]] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def join(self, name: str, at: float, *, fresh: bool = False, urgent: bool = False) -> None:
        """Have one more wait from this time on."""

        async def wait() -> None:
            end: object
            try:
                end = await self.waiters.join(fresh=fresh, urgent=urgent)
            except (Deferred, asyncio.CancelledError) as error:
                end = type(error)
            self.ends[name] = (self.loop.time(), end)

        def begin() -> None:
            self.tasks[name] = self.loop.create_task(wait())

        self.loop.call_at(at, begin)

    def leave(self, name: str, at: float) -> None:
        """Have one cancelled at this time."""

        def cancel() -> None:
            self.tasks[name].cancel()

        self.loop.call_at(at, cancel)


@pytest.fixture
def queue() -> Iterator[Queue]:
    """Give waiters on virtual time."""
    queue = Queue()
    yield queue
    queue.loop.close()


def test_each_waits_for_the_same_time(queue: Queue) -> None:
    """Whoever came at whatever time, and whoever was served or cancelled before it: each is told when it is due."""
    for name, at, fresh in (
        ("a", 0, False),
        ("b", 10, True),
        ("c", 20, False),
        ("d", 25, False),
        ("e", 200, True),
    ):
        queue.join(name, at, fresh=fresh)
    queue.loop.call_at(30, queue.waiters.serve, USED)
    queue.leave("c", 40)
    queue.loop.advance(1000)
    assert queue.ends == {
        "a": (30, USED),
        "c": (40, asyncio.CancelledError),
        "b": (70, Deferred),
        "d": (85, Deferred),
        "e": (260, Deferred),
    }
    assert not queue.waiters


def test_one_timer_serves_all(queue: Queue) -> None:
    """A timer is armed for the first, and again only when it has fired and somebody is left."""
    armed: list[float] = []
    call_at = queue.loop.call_at
    for second in range(100):
        queue.join(str(second), second)
        call_at(second + 0.5, queue.waiters.serve, USED)
    queue.join("last", 100)

    def counted(when: float, *rest: object) -> object:
        armed.append(when)
        return call_at(when, *rest)  # type: ignore[arg-type]

    queue.loop.call_at = counted  # type: ignore[assignment, method-assign]
    queue.loop.advance(1000)
    assert queue.ends["last"] == (160, Deferred)
    assert armed == [60, 120, 160]


def test_who_needs_a_fresh_session_comes_first(queue: Queue) -> None:
    """An unused session goes to whoever needs one, then to anybody; a used one never to the former."""
    for at, name, fresh in ((0, "any", False), (0.2, "fresh", True), (0.4, "any more", False)):
        queue.join(name, at, fresh=fresh)
    queue.loop.advance(1)
    took = [queue.waiters.serve(session) for session in (USED, UNUSED, UNUSED, UNUSED)]
    queue.loop.advance(2)
    assert took == [True, True, True, False]
    assert queue.ends == {"any": (1, USED), "fresh": (1, UNUSED), "any more": (1, UNUSED)}


def test_who_is_urgent_comes_first(queue: Queue) -> None:
    """Before all who came earlier, for whatever session; where it must be a fresh one, others have the used ones."""
    queue.join("any", 0)
    queue.join("fresh", 0.2, fresh=True)
    queue.join("urgent", 0.4, urgent=True)
    queue.join("urgent and fresh", 0.6, fresh=True, urgent=True)
    queue.loop.advance(1)
    sessions = [cast(Session, _Used(exchanges)) for exchanges in (3, 3, 0, 3, 0)]
    took = [queue.waiters.serve(session) for session in sessions]
    queue.loop.advance(2)
    assert took == [True, True, True, False, True]
    assert {name: session for name, (_, session) in queue.ends.items()} == {
        "urgent": sessions[0],
        "any": sessions[1],
        "urgent and fresh": sessions[2],
        "fresh": sessions[4],
    }


def test_who_has_gone_is_passed_over_and_not_counted(queue: Queue) -> None:
    """A cancelled one neither counts nor gets the session, which goes to the next."""
    queue.join("gone", 0)
    queue.join("next", 0.5)
    queue.loop.advance(1)
    queue.tasks["gone"].cancel()
    assert len(queue.waiters) == 1
    assert queue.waiters.serve(USED)
    assert (len(queue.waiters), bool(queue.waiters)) == (0, False)
    queue.loop.advance(2)
    assert queue.ends["next"] == (1, USED)


@pytest.mark.parametrize("end", [Deferred, asyncio.CancelledError])
def test_all_are_sent_away(queue: Queue, end: type[BaseException]) -> None:
    """Rejected or cancelled, all go at once, from both queues, and nobody is told twice."""
    for name, fresh in (("any", False), ("fresh", True)):
        queue.join(name, 0, fresh=fresh)
    queue.loop.advance(1)
    if end is Deferred:
        queue.waiters.reject("LCM is out")
    else:
        queue.waiters.cancel()
    assert not queue.waiters
    queue.loop.advance(1000)
    assert queue.ends == {"any": (1, end), "fresh": (1, end)}
