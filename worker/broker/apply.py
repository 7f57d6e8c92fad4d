"""Makes the topology stand on a broker, one entity after the other, and says of each what was done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from aiormq.abc import AbstractChannel

from worker.broker.connection import Connection, close, connect_any, means_loss, text_of
from worker.broker.declare import Entity, declare, declare_entity, verify_entity
from worker.broker.topology import Queue, Topology, topology_of
from worker.errors import BrokerAway, TopologyError
from worker.settings import BrokerSettings

_STEP_TIMEOUT = 10.0

Say = Callable[[str, str], object]
_Subject = TypeVar("_Subject")


async def apply(settings: BrokerSettings, say: Say, *, name: str) -> None:
    """Declare everything, whatever `broker.declare` says; what stands as it should is left as it is.

    `say` is called once for each entity, right after it was done, with `created`, `exists` or `bound`, and with what
    it is. `name` is the connection's.

    Raises:
        TopologyError: an entity stands there with other arguments, or the user may not declare it; what was done
            before stays.
        BrokerAway: no URL answers, or the broker left.
    """
    connection = await connect_any(settings, name=name)
    try:
        await _apply(connection, topology_of(settings), say)
    finally:
        await close(connection)


async def _apply(connection: Connection, topology: Topology, say: Say) -> None:
    for entity in topology.entities:
        stood = await _stands(connection, entity)
        await _on_a_channel(connection, declare_entity, entity)
        kind = "queue" if isinstance(entity, Queue) else "exchange"
        say("exists" if stood else "created", f"{kind} {entity.name}")
    for binding in topology.bindings:
        alone = replace(topology, exchanges=(), queues=(), bindings=(binding,))
        await _on_a_channel(connection, declare, alone)
        say("bound", f"queue {binding.queue} to exchange {binding.exchange} by {binding.key!r}")


async def _stands(connection: Connection, entity: Entity) -> bool:
    try:
        await _on_a_channel(connection, verify_entity, entity)
    except TopologyError:
        return False
    return True


async def _on_a_channel(
    connection: Connection, step: Callable[[AbstractChannel, _Subject], Awaitable[None]], subject: _Subject
) -> None:
    """Take one step on a channel of its own, which does not survive the broker's objection."""
    try:
        async with asyncio.timeout(_STEP_TIMEOUT):
            opened = await connection.channel()
            await step(await opened.get_underlay_channel(), subject)
            await opened.close()
    except TimeoutError as error:
        raise BrokerAway(f"the broker did not answer within {_STEP_TIMEOUT:g} s") from error
    except TopologyError:
        raise
    except BaseException as error:
        if means_loss(error):
            raise BrokerAway(f"the broker left in the midst: {text_of(error)}") from error
        raise
