"""Publishes many jobs with a bounded number unconfirmed, and gives up where the broker stays away."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity

from worker.broker.admin.calls import connected, own_channel
from worker.broker.admin.subscription import KEPT_HOURS
from worker.broker.declare import Entity, counts_of, verify_entity
from worker.broker.link import Link
from worker.broker.publisher import Publisher
from worker.broker.topology import JOB_KEY, Exchange, Queue, Topology
from worker.common.callbacks import always
from worker.common.rate import Rate
from worker.common.tasks import cancel, start
from worker.contract.errors import BrokerAway, MessageTooLarge, PublishForbidden, TopologyError, Unroutable
from worker.contract.message import Message
from worker.observability.log import Log
from worker.settings import BrokerSettings

_MAX_UNCONFIRMED = 256
_LAST_CONFIRMS_TIMEOUT = 5.0
_POLL = 0.25
T = TypeVar("T")
_REMEDY = "start a worker, which declares it, or declare it with `lcm-worker topology apply`"


async def check_topology(
    settings: BrokerSettings, topology: Topology, *, results: bool, queue: str = "", name: str
) -> int:
    """Check that the broker answers and has the exchange for jobs; return how many consumers `queue` has.

    Args:
        settings: which broker.
        topology: names the exchanges.
        results: check for the exchange for results as well.
        queue: a queue of an earlier run to check for, "" for none.
        name: the connection's.

    Raises:
        BrokerAway: the broker does not answer.
        TopologyError: an entity is missing; the text names it and the remedy.
    """
    wanted: list[Entity] = [Exchange(topology.jobs, "direct")]
    if results:
        wanted.append(Exchange(topology.results, "topic"))
    if queue:
        wanted.append(Queue(queue))
    async with connected(settings, name=name) as connection, own_channel(connection) as channel:
        for entity in wanted:
            await _check(channel, entity)
        return (await counts_of(channel, Queue(queue)))[1] if queue else 0


async def _check(channel: AbstractChannel, entity: Entity) -> None:
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
    """Publishes jobs with the worker's own publisher: persistent, mandatory, confirmed, repeated after a loss.

    It declares nothing.

    Args:
        settings: which broker.
        topology: names the exchange for jobs.
        log: is given the events of the connection.
        name: the connection's.
        max_outage: seconds for which the broker may be away.
        rate: jobs per second, 0 for no limit.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topology: Topology,
        log: Log,
        *,
        name: str,
        max_outage: float,
        rate: float = 0.0,
    ) -> None:
        jobs_alone = replace(topology, exchanges=(Exchange(topology.jobs, "direct"),), queues=(), bindings=())
        passive = settings.model_copy(update={"declare": "passive"})
        self._publisher = Publisher(passive, jobs_alone, log, worker=name, fail_fast=True)
        self._max_outage = max_outage
        self._rate = Rate(rate)
        self._next_lock = asyncio.Lock()
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

        Args:
            jobs: read as they are published, one at a time.
            message_of: makes the message of a job.
            confirmed: called with each job that the broker has confirmed.
            stop: once it is set, no more jobs are read, and confirms under way are awaited for 5 s.

        Raises:
            BrokerAway: the broker was away for longer than `max_outage`.
            TopologyError: no queue takes jobs, or this user may not publish them.
        """

        async def publish_one_by_one() -> None:
            while (job := await self._next(jobs, stop)) is not None:
                await self._publish(message_of(job))
                confirmed(job)

        link = self._publisher.link
        publishing = [start(publish_one_by_one()) for _ in range(_MAX_UNCONFIRMED)]
        beside = [start(link.run()), start(fail_when_away(link, self._max_outage)), start(stop.wait())]
        finished = asyncio.gather(*publishing)
        try:
            await wait_for_any(finished, *beside)
            if not finished.done():
                await asyncio.wait({finished}, timeout=_LAST_CONFIRMS_TIMEOUT)
        finally:
            await cancel(finished, *publishing, *beside)

    async def _publish(self, message: Message) -> None:
        try:
            await self._publisher.publish(message, always, patience=math.inf)
        except Unroutable as error:
            raise TopologyError(
                f"no queue takes jobs: none is bound to the exchange {self._exchange} with the key {JOB_KEY!r};"
                f" {_REMEDY.replace('it', 'that', 1)}"
            ) from error
        except PublishForbidden as error:
            raise TopologyError(str(error)) from error
        except MessageTooLarge as error:
            job_id = message.properties.message_id
            raise MessageTooLarge(f"job {job_id!r} can't be published, make it smaller: {error}") from error

    async def _next(self, jobs: Iterator[T], stop: asyncio.Event) -> T | None:
        """Return the next job once the rate admits it; None where there is none, or `stop` is set."""
        async with self._next_lock:
            if self._exhausted or not await self._wait_for_rate(stop):
                return None
            job = next(jobs, None)
            self._exhausted = job is None
            return job

    async def _wait_for_rate(self, stop: asyncio.Event) -> bool:
        """Wait until the rate admits another job; False where `stop` is set before."""
        if pause := self._rate.reserve(time.monotonic()):
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()
        return not stop.is_set()


async def fail_when_away(link: Link, max_outage: float) -> None:
    """Raise BrokerAway when a link has been down for so many seconds without a break; a blocked broker is not away."""
    up = time.monotonic()
    while (away := time.monotonic() - up) < max_outage:
        await asyncio.sleep(_POLL)
        if link.is_up:
            up = time.monotonic()
    raise BrokerAway(f"the broker has been away for {away:.0f} s")


async def wait_for_any(*ends: asyncio.Future[Any]) -> None:
    """Wait until one of these is done, and raise its error if it failed."""
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in done:
        with suppress(asyncio.CancelledError):
            end.result()
