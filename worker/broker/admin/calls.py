"""How commands reach the broker: a connection for the time of a command, and a channel for each call that may fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiormq.abc import AbstractChannel

from worker.broker.connection import Connection, broker_call, close, connect_any, files_of
from worker.broker.declare import Entity, verify_entity
from worker.contract.errors import EntityMissing
from worker.settings import BrokerSettings

_TIMEOUT = 10.0


@asynccontextmanager
async def connected(settings: BrokerSettings, *, name: str) -> AsyncIterator[Connection]:
    """Connect to the first URL that answers, and close the connection at the end. `name` is what the broker shows.

    Raises:
        BrokerAway: no URL answers.
        SettingsError: the certificates can't be used.
    """
    connection = await connect_any(settings, files_of(settings), name=name)
    try:
        yield connection
    finally:
        await close(connection)


@asynccontextmanager
async def own_channel(connection: Connection) -> AsyncIterator[AbstractChannel]:
    """Open a channel for one step, since the broker closes the channel on which it refuses something.

    Raises:
        BrokerAway: the step took longer than 10 s, or the connection was lost.
    """
    async with broker_call(_TIMEOUT):
        opened = await connection.open_channel(confirms=True)
        yield await opened.get_underlay_channel()
        await opened.close()


async def exists(connection: Connection, entity: Entity) -> bool:
    """Whether the broker has this exchange or queue. Raises BrokerAway, and TopologyError where it does not say."""
    try:
        async with own_channel(connection) as channel:
            await verify_entity(channel, entity)
    except EntityMissing:
        return False
    return True


def label(entity: Entity) -> str:
    """Name an entity for people: `queue lcm.outcome.jobs`."""
    return f"{type(entity).__name__.lower()} {entity.name}"
