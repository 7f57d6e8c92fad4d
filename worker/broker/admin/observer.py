"""Looks at a broker without taking anything from it or changing it: what AMQP tells of our queues at one moment."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from aiormq.exceptions import ChannelClosed

from worker.broker.admin.alarms import takes_messages
from worker.broker.admin.beats import Told, beats_of
from worker.broker.admin.calls import connected, exists, own_channel
from worker.broker.connection import Connection, is_blocked
from worker.broker.declare import counts_of
from worker.broker.topology import Exchange, Queue, Topology, topology_of
from worker.contract.errors import BrokerAway, EntityMissing, TopologyError
from worker.settings import BrokerSettings

_LEADER_TIMEOUT = 0.25
"""Seconds for which RabbitMQ waits for a queue's leader; then it says that there are no messages."""
_TRIES = 5
_UNHEARD = "the broker does not hear from its leader; see that every node of the broker runs"


@dataclass(frozen=True, slots=True)
class Counted:
    """What the broker tells of a queue; its `state` is `ok`, `missing`, or `unknown`, and `why` says then why.

    `ready` is how many messages wait, `consumers` how many consumers there are; None where that is not known.
    """

    state: str
    ready: int | None = None
    consumers: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What a broker tells at one moment: the queues by name, and the names of the exchanges that are missing."""

    broker: str
    takes_messages: bool
    queues: Mapping[str, Counted]
    missing_exchanges: tuple[str, ...]


class Observer:
    """Looks as often as it is asked to, over the same two connections.

    One is for asking, one for learning of an alarm: the broker reads no more from a connection that published in one.
    """

    def __init__(self, asking: Connection, publishing: Connection, topology: Topology) -> None:
        self._asking = asking
        self._publishing = publishing
        self._topology = topology

    async def look(self) -> Look:
        """Ask for everything anew. Raises BrokerAway where the broker does not answer; then this observer is done."""
        return Look(
            str(self._asking),
            await takes_messages(self._publishing),
            {queue.name: await self._counted(queue) for queue in self._topology.queues},
            tuple([each.name for each in self._topology.exchanges if await self._misses(each)]),
        )

    async def beats(self, now: datetime) -> list[Told] | None:
        """Return what workers said last; see `beats_of`."""
        return await beats_of(self._asking, self._topology.fleet, now)

    async def _counted(self, queue: Queue) -> Counted:
        try:
            async with own_channel(self._asking) as channel:
                for _ in range(_TRIES):
                    asked_at = time.monotonic()
                    ready, consumers = await counts_of(channel, queue)
                    # Nothing at all, but only after as long as the broker waits for a leader, tells nothing.
                    if ready or consumers or time.monotonic() - asked_at < _LEADER_TIMEOUT:
                        return Counted("ok", ready, consumers)
        except EntityMissing:
            return Counted("missing")
        except TopologyError as error:
            return Counted("unknown", why=str(error))
        except BrokerAway as error:
            if not isinstance(error.__cause__, ChannelClosed):
                raise
            return Counted("unknown", why=str(error))
        return Counted("unknown", why=_UNHEARD)

    async def _misses(self, exchange: Exchange) -> bool:
        try:
            return not await exists(self._asking, exchange)
        except TopologyError:
            return False  # it is there, and refuses


@asynccontextmanager
async def observing(settings: BrokerSettings, *, name: str) -> AsyncIterator[Observer]:
    """Give an observer, whose connections the broker shows as `name`.

    Raises:
        BrokerAway: no URL answers.
        SettingsError: the certificates can't be used.
    """
    async with connected(settings, name=name) as asking, connected(settings, name=name) as publishing:
        try:
            yield Observer(asking, publishing, topology_of(settings))
        finally:
            if is_blocked(publishing):
                publishing.abort()  # a goodbye would be read only after the alarm
