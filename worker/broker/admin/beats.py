"""What workers said of themselves last: their newest beats in the log, which is read and left as it is."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage

from worker.broker.admin.calls import own_channel
from worker.broker.connection import Connection
from worker.broker.declare import verify_entity
from worker.broker.fleet import OFFSET_HEADER
from worker.broker.topology import Queue
from worker.contract.errors import EntityMissing
from worker.fleet.beat import Beat, decode
from worker.fleet.roster import MOST_MEMBERS
from worker.fleet.seat import MARGIN

_PREFETCH = 1000
_QUIET = 1.0  # seconds without a message after which none is there
_LONGEST = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Told:
    """A worker's newest beat, and when it was sent, in whole seconds; None where it doesn't say."""

    beat: Beat
    at: datetime | None


async def beats_of(connection: Connection, log: str, now: datetime) -> list[Told] | None:
    """Return the newest beat of each worker that runs, the oldest worker first; None where there is no such log.

    A worker that has left, or was silent for longer than it may use anything, does not run. Changes nothing: a stream
    gives everybody everything.

    Raises:
        BrokerAway: the broker does not answer.
        TopologyError: this user may not read the log.
    """
    try:
        async with own_channel(connection) as channel:
            await verify_entity(channel, Queue(log))
            await channel.basic_qos(prefetch_count=_PREFETCH)
            newest = await _newest(channel, log, now)
    except EntityMissing:
        return None
    return sorted(filter(lambda told: _runs(told, now), newest.values()), key=_age)


async def _newest(channel: AbstractChannel, log: str, now: datetime) -> dict[str, Told]:
    # A stream does not tell where it ends: its last chunk does.
    last = next(iter(await _read(channel, log, "last", until=0)), None)
    found: dict[str, Told] = {}
    if last is None:
        return found
    for message in await _read(channel, log, now - _LONGEST, until=_offset_of(last)):
        try:
            beat = decode(message.body)
        except ValueError:
            continue
        known = found.pop(beat.id, None) is not None
        if not beat.leaves and (known or len(found) < MOST_MEMBERS):
            found[beat.id] = Told(beat, message.header.properties.timestamp)
    return found


async def _read(channel: AbstractChannel, log: str, begin: Any, *, until: int) -> list[DeliveredMessage]:
    """Return the messages from there up to that position, or to where no more come."""
    arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
    consumed = await channel.basic_consume(log, arrived.put, arguments={OFFSET_HEADER: begin})
    found: list[DeliveredMessage] = []
    try:
        while not found or _offset_of(found[-1]) < until:
            async with asyncio.timeout(_QUIET):
                message = await arrived.get()
            found.append(message)
            await channel.basic_ack(message.delivery_tag or 0, wait=False)
    except TimeoutError:
        pass
    await channel.basic_cancel(consumed.consumer_tag or "")
    return found


def _offset_of(message: DeliveredMessage) -> int:
    offset = (message.header.properties.headers or {}).get(OFFSET_HEADER)
    return offset if isinstance(offset, int) else 0


def _runs(told: Told, now: datetime) -> bool:
    return told.at is None or (now - told.at).total_seconds() <= told.beat.hold + MARGIN


def _age(told: Told) -> tuple[float, str]:
    # One that does not know its position yet has just come.
    return (math.inf if told.beat.since is None else told.beat.since), told.beat.id
