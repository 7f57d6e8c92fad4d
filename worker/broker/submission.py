"""Publishes many jobs, so many at a time unconfirmed, and gives up where the broker stays away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity

from worker.broker.connection import close, connect_any, means_loss, text_of
from worker.broker.declare import verify_entity
from worker.broker.link import Link
from worker.broker.publisher import Publisher
from worker.broker.subscription import KEPT_HOURS
from worker.broker.topology import JOB_KEY, Exchange, Queue, Topology
from worker.errors import BrokerAway, PublishForbidden, TopologyError, Unroutable
from worker.message import Message
from worker.settings import BrokerSettings
from worker.telemetry import Log

WINDOW = 256
"""How many jobs may be unconfirmed at a time."""

_GRACE = 5.0
_LOOK_AGAIN = 0.25
_STEP_TIMEOUT = 10.0
T = TypeVar("T")
_REMEDY = "start a worker, which declares it, or declare it with `lcm-worker topology apply`"


async def look_first(
    settings: BrokerSettings, topology: Topology, *, results: bool, queue: str = "", name: str
) -> None:
    """Make sure that the broker answers and has the exchange for jobs; with `results`, the one for those as well.

    `queue` names one that an earlier run left, "" where there is none.

    Raises:
        BrokerAway: it does not answer.
        TopologyError: one of them is missing; the text names it and the remedy.
    """
    wanted: list[Exchange | Queue] = [Exchange(topology.jobs, "direct")]
    if results:
        wanted.append(Exchange(topology.results, "topic"))
    if queue:
        wanted.append(Queue(queue, {}))
    connection = await connect_any(settings, name=name)
    try:
        async with asyncio.timeout(_STEP_TIMEOUT):
            channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
            for entity in wanted:
                await _find(channel, entity)
    except BaseException as error:
        if means_loss(error):
            raise BrokerAway(f"the broker left at once: {text_of(error)}") from error
        raise
    finally:
        await close(connection)


async def _find(channel: AbstractChannel, entity: Exchange | Queue) -> None:
    try:
        await verify_entity(channel, entity)
    except TopologyError as error:
        if not isinstance(error.__cause__, ChannelNotFoundEntity):
            raise
        if isinstance(entity, Exchange):
            raise TopologyError(f"the exchange {entity.name} does not exist; {_REMEDY}") from error
        raise TopologyError(
            f"the queue {entity.name} does not exist: all its results were collected, or nobody came for them"
            f" within {KEPT_HOURS} hours"
        ) from error


class Submission:
    """Publishes jobs with the worker's own publisher: persistent, mandatory, confirmed, again where it was lost.

    It declares nothing. `rate` is in jobs per second, 0 for no limit.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topology: Topology,
        log: Log,
        *,
        name: str,
        patience: float,
        rate: float = 0.0,
    ) -> None:
        jobs_alone = replace(topology, exchanges=(Exchange(topology.jobs, "direct"),), queues=(), bindings=())
        passive = settings.model_copy(update={"declare": "passive"})
        self._publisher = Publisher(passive, jobs_alone, log, worker=name, fail_fast=True)
        self._patience = patience
        self._pause = 1 / rate if rate else 0.0
        self._next_turn = 0.0
        self._taking = asyncio.Lock()
        self._exhausted = False
        self._exchange = topology.jobs

    async def publish(
        self,
        jobs: Iterator[T],
        message_of: Callable[[T], Message],
        confirmed: Callable[[T], None],
        stop: asyncio.Event,
    ) -> None:
        """Publish everything, and return once all of it is confirmed.

        Once `stop` is set, takes no more, and waits a moment for the confirms of what is on its way.

        Raises:
            BrokerAway: the broker was away for longer than `patience` seconds.
            TopologyError: no queue takes jobs, or this user may not publish them.
        """
        link = self._publisher.link
        running = asyncio.ensure_future(link.run())
        watching = asyncio.ensure_future(give_up(link, self._patience))
        stopping = asyncio.ensure_future(stop.wait())
        lanes = [asyncio.ensure_future(self._lane(jobs, message_of, confirmed, stop)) for _ in range(WINDOW)]
        finished: asyncio.Future[list[None]] = asyncio.gather(*lanes)
        try:
            await first_of(finished, running, watching, stopping)
            if not finished.done():
                await asyncio.wait({finished}, timeout=_GRACE)
        finally:
            beside = [*lanes, running, watching, stopping]
            for task in beside:
                task.cancel()
            await asyncio.gather(finished, *beside, return_exceptions=True)

    async def _lane(
        self,
        jobs: Iterator[T],
        message_of: Callable[[T], Message],
        confirmed: Callable[[T], None],
        stop: asyncio.Event,
    ) -> None:
        while (job := await self._next(jobs, stop)) is not None:
            try:
                await self._publisher.publish(message_of(job), lambda: True, hold=False)
            except Unroutable as error:
                raise TopologyError(
                    f"no queue takes jobs: none is bound to the exchange {self._exchange} with the key {JOB_KEY!r};"
                    f" {_REMEDY.replace('it', 'that', 1)}"
                ) from error
            except PublishForbidden as error:
                raise TopologyError(str(error)) from error
            confirmed(job)

    async def _next(self, jobs: Iterator[T], stop: asyncio.Event) -> T | None:
        """Give the next job at its moment; None where none is left, or it is to stop. One lane at a time waits."""
        async with self._taking:
            if self._exhausted or not await self._may_go(stop):
                return None
            job = next(jobs, None)
            self._exhausted = job is None
            return job

    async def _may_go(self, stop: asyncio.Event) -> bool:
        """Wait for the moment at which the next job may go; false where it is to stop instead."""
        if self._pause:
            now = time.monotonic()
            turn = max(now, self._next_turn)
            self._next_turn = turn + self._pause
            with suppress(TimeoutError):
                async with asyncio.timeout(turn - now):
                    await stop.wait()
        return not stop.is_set()


async def give_up(link: Link, patience: float) -> None:
    """Wait until a link has been down for so many seconds without a break, and raise BrokerAway.

    A broker that is blocked is not away.
    """
    up = time.monotonic()
    while (away := time.monotonic() - up) < patience:
        await asyncio.sleep(_LOOK_AGAIN)
        if link.is_up:
            up = time.monotonic()
    raise BrokerAway(f"the broker has been away for {away:.0f} s")


async def first_of(*ends: asyncio.Future[object] | asyncio.Future[list[None]] | asyncio.Task[object]) -> None:
    """Wait until one of these ends, and raise what it failed with."""
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in done:
        with suppress(asyncio.CancelledError):
            end.result()
