"""Faults of every kind at their times: a schedule drawn from a seed, and the stage on which it is carried out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from aiormq.abc import AbstractChannel

from tests.faults.rig.workers import WorkerProcess
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from worker.sandbox.node import Node
from worker.simulator.server import Simulator

RESULTS = "lcm.outcome.results"


class Kind(NamedTuple):
    """How often something happens, once in `every` seconds, how long it lasts at most, and whether to all workers."""

    every: float
    longest: float = 0.0
    to_all: bool = False


KINDS: Mapping[str, Kind] = {
    "kill": Kind(6),
    "terminate": Kind(9),
    "amqp reset": Kind(6),
    "amqp cut": Kind(10),
    "amqp freeze": Kind(12, 2),
    "lcm reset": Kind(5),
    "lcm freeze": Kind(12, 2),
    "lcm stop": Kind(20, 4, to_all=True),
    "alarm": Kind(25, 4, to_all=True),
    "unbind": Kind(15, 1.5, to_all=True),
}


class Step(NamedTuple):
    """One thing to happen: when, what, at which worker's place, for how long, and to which of its connections."""

    at: float
    what: str
    place: int
    seconds: float
    chosen: float

    def __str__(self) -> str:
        return self.what if KINDS[self.what].to_all else f"{self.what} at place {self.place}"


def drawn(random: Random, seconds: float, places: int) -> dict[str, list[Step]]:
    """Draw the schedule: the steps of each kind in their order, at least one, in the first 90 % of the time."""
    return {
        what: sorted(
            Step(
                random.uniform(0.05, 0.9) * seconds,
                what,
                random.randrange(places),
                random.uniform(0.25, 1.0) * kind.longest,
                random.random(),
            )
            for _ in range(max(1, round(seconds / kind.every)))
        )
        for what, kind in KINDS.items()
    }


class Place:
    """Where one worker works, between proxies of its own; who is killed or ended there is replaced.

    `workers` are all that ever worked there, the last one does so now; `stack` ends them.
    """

    def __init__(
        self, amqp: Proxy, lcm: Proxy, settings: Mapping[str, object], stack: AsyncExitStack
    ) -> None:
        self.amqp = amqp
        self.lcm = lcm
        self.workers: list[WorkerProcess] = []
        self._settings = {"broker.url": amqp.url, "lcm.url": lcm.url, **settings}
        self._stack = stack
        self._replacing = asyncio.Lock()

    async def start(self) -> None:
        self.workers.append(await self._stack.enter_async_context(WorkerProcess(self._settings)))

    async def kill(self) -> None:
        async with self._replacing:
            self.workers[-1].kill()
            await self.workers[-1].wait()
            await self.start()

    async def terminate(self) -> None:
        async with self._replacing:
            # Before that, it has no job in hand yet, and no handler for the signal.
            begun = bool(self.workers[-1].of("worker.started"))
            self.workers[-1].terminate()
            status = await self.workers[-1].wait()
            assert status == 0 or not begun, self.workers[-1].last_words
            await self.start()


@dataclass
class Stage:
    """All parts, and what can be done to them; `carried_out` says what was done, and when."""

    places: Sequence[Place]
    simulator: Simulator
    broker: Node
    channel: AbstractChannel
    carried_out: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    async def carry_out(self, steps: Sequence[Step]) -> None:
        """Do these things, each at its time or as soon after it as the one before is over."""
        clock = asyncio.get_running_loop().time
        began = clock()
        for step in steps:
            await asyncio.sleep(step.at - (clock() - began))
            at = clock() - began
            await self._doing[step.what](self.places[step.place], step)
            self.done[step.what] += 1
            self.carried_out.append(f"{at:6.1f} s to {clock() - began:6.1f} s: {step}")

    @property
    def _doing(self) -> Mapping[str, Callable[[Place, Step], Awaitable[None]]]:
        return {
            "kill": lambda place, _: place.kill(),
            "terminate": lambda place, _: place.terminate(),
            "amqp reset": lambda place, step: _to_one(place.amqp, Proxy.reset, step),
            "amqp cut": lambda place, step: _to_one(place.amqp, Proxy.cut, step),
            "amqp freeze": lambda place, step: _freeze(place.amqp, step),
            "lcm reset": lambda place, step: _to_one(place.lcm, Proxy.reset, step),
            "lcm freeze": lambda place, step: _freeze(place.lcm, step),
            "lcm stop": lambda _, step: self._stop_lcm(step),
            "alarm": lambda _, step: self._alarm(step),
            "unbind": lambda _, step: self._unbind(step),
        }

    async def _stop_lcm(self, step: Step) -> None:
        await self.simulator.stop()
        try:
            await asyncio.sleep(step.seconds)
        finally:
            await self.simulator.start()

    async def _alarm(self, step: Step) -> None:
        try:
            await self.broker.alarm(on=True)
            await asyncio.sleep(step.seconds)
        finally:
            await self.broker.alarm(on=False)

    async def _unbind(self, step: Step) -> None:
        """Leave results without a queue; a worker that connects meanwhile binds it again."""
        await self.channel.queue_unbind(RESULTS, RESULTS, "#")
        await asyncio.sleep(step.seconds)
        await self.channel.queue_bind(RESULTS, RESULTS, "#")


async def _to_one(proxy: Proxy, do: Callable[[Proxy, int], None], step: Step) -> None:
    # A worker that is only starting, or LCM being away, has none yet.
    await until(lambda: proxy.connections, deadline=60)
    connections = proxy.connections
    do(proxy, connections[int(step.chosen * len(connections))])


async def _freeze(proxy: Proxy, step: Step) -> None:
    proxy.freeze()
    await asyncio.sleep(step.seconds)
    proxy.thaw()
