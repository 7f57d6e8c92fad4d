"""A delivery that came back too often runs alone, and so do those that come back after it."""

from __future__ import annotations

import asyncio
from typing import cast

from tests.support.waiting import settled
from worker.broker.acks import Acks
from worker.broker.suspects import Held, Suspects
from worker.common.clock import Clock
from worker.contract.errors import Deferred
from worker.contract.intake import PauseReason
from worker.contract.message import Delivery

ACKS = cast(Acks, None)
FIRST_DELAY = 5.0
AWAY = FIRST_DELAY + 2.0
"""How long it takes at most until what was deferred is back."""


def held(tag: int) -> Held:
    return ACKS, Delivery(b"{}", tag=tag)


class Host:
    """A consumer of which `done` tells all that suspects had it do; each step waits for `go_on`.

    A job that is taken takes `job_seconds` on a clock that only this moves.
    """

    def __init__(self, *, job_seconds: float = 2.0) -> None:
        self.done: list[str] = []
        self.leaving = False
        self.seconds = 100.0
        self._job_seconds = job_seconds
        self._step = asyncio.Event()
        self.suspects = Suspects(self, FIRST_DELAY, Clock(monotonic=lambda: self.seconds))

    def pause(self, reason: PauseReason) -> None:
        self.done.append(f"pause: {reason.value}")

    def resume(self, reason: PauseReason) -> None:
        self.done.append(f"resume: {reason.value}")

    async def emptied(self) -> None:
        await self._do("wait until nothing is in hand")

    async def finish(self, held: Held) -> None:
        await self._do(f"finish {held[1].tag}")

    async def defer(self, held: Held, reason: Deferred) -> None:
        assert "runs alone" in str(reason)
        self.done.append(f"defer {held[1].tag}")

    async def take_one(self, within: float) -> bool:
        await self._do(f"take one within {within:g} s")
        self.seconds += self._job_seconds
        return True

    async def _do(self, step: str) -> None:
        self.done.append(step)
        await self._step.wait()
        self._step.clear()

    async def began(self) -> list[str]:
        """Return what was done since the last call, up to the step that is under way."""
        await settled()
        done, self.done = self.done, []
        return done

    async def go_on(self) -> list[str]:
        """End the step that is under way; return what followed, up to the next one."""
        self._step.set()
        return await self.began()


async def test_a_suspect_runs_alone() -> None:
    """The intake is paused and nothing else is in hand when it begins, and resumed when it has ended."""
    host = Host()
    host.suspects.add(held(1))
    assert await host.began() == ["pause: suspect", "wait until nothing is in hand"]
    assert await host.go_on() == ["finish 1"]
    assert await host.go_on() == ["resume: suspect"]


async def test_one_of_several_runs_and_the_others_are_deferred() -> None:
    """Whatever came while the worker was emptied gives way to the first, before that one begins."""
    host = Host()
    for tag in (1, 2):
        host.suspects.add(held(tag))
    await host.began()
    host.suspects.add(held(3))
    assert await host.go_on() == ["defer 2", "defer 3", "finish 1"]
    await host.suspects.stop()


async def test_jobs_are_taken_one_at_a_time_until_the_others_are_back() -> None:
    """The deferred come back together, so for as long as that can take each job is seen to its end by itself."""
    host = Host(job_seconds=3)
    for tag in (1, 2):
        host.suspects.add(held(tag))
    await host.began()
    assert await host.go_on() == ["defer 2", "finish 1"]
    taken = []
    while (steps := await host.go_on()) != ["resume: suspect"]:
        taken += steps
    assert taken == [f"take one within {left:g} s" for left in (AWAY, AWAY - 3, AWAY - 6)]


async def test_a_suspect_that_comes_back_meanwhile_runs_next() -> None:
    """Added while the first one runs, it is next, under the same pause."""
    host = Host()
    host.suspects.add(held(1))
    await host.began()
    await host.go_on()
    host.suspects.add(held(2))
    assert await host.go_on() == ["finish 2"]
    assert await host.go_on() == ["resume: suspect"]


async def test_the_next_suspect_pauses_again() -> None:
    """One that comes after the end of another begins like the first."""
    host = Host()
    for tag in (1, 2):
        host.suspects.add(held(tag))
        assert await host.began() == ["pause: suspect", "wait until nothing is in hand"]
        assert await host.go_on() == [f"finish {tag}"]
        assert await host.go_on() == ["resume: suspect"]


async def test_a_worker_that_is_leaving_takes_no_more() -> None:
    """While it stops, the suspect in hand is finished, and no job is taken after it."""
    host = Host()
    for tag in (1, 2):
        host.suspects.add(held(tag))
    await host.began()
    assert await host.go_on() == ["defer 2", "finish 1"]
    host.leaving = True
    assert await host.go_on() == ["resume: suspect"]


async def test_a_stop_ends_the_waiting() -> None:
    """Stopped before anything else has ended, a suspect never begins: it goes back with the channel."""
    host = Host()
    await host.suspects.stop()
    host.suspects.add(held(1))
    await host.began()
    await host.suspects.stop()
    assert await host.began() == ["resume: suspect"]
    assert await host.go_on() == []
