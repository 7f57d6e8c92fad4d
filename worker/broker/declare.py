"""Declares the topology on a broker, or verifies that it exists there."""

from __future__ import annotations

import re

from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from worker.broker.remedies import remedy_for
from worker.broker.topology import Binding, Exchange, Queue, Topology
from worker.broker.words import words_of
from worker.contract.errors import BrokerAway, EntityMissing, TopologyError, WorkerError

Entity = Exchange | Queue

_MISSING = re.compile(r"no (queue|exchange|binding) ")
_ALL_NODES = "see that every node of the broker runs; this worker waits"


async def declare(channel: AbstractChannel, topology: Topology) -> None:
    """Declare everything; what exists already must have the same arguments.

    Raises:
        TopologyError: an entity was declared otherwise, or may not be declared, as by this user or over a limit.
        BrokerAway: the broker has a queue, but not the node where it is. The channel is closed, as with the other.
    """
    for entity in topology.entities:
        await declare_entity(channel, entity)
    for binding in topology.bindings:
        await _bind(channel, binding)


async def verify(channel: AbstractChannel, topology: Topology) -> None:
    """Check that every exchange and queue exists; a passive declare does not compare arguments or bindings.

    Raises:
        EntityMissing: one is missing.
        TopologyError, BrokerAway: as `declare`. The channel is closed each time.
    """
    for entity in topology.entities:
        await verify_entity(channel, entity)


async def declare_entity(channel: AbstractChannel, entity: Entity) -> None:
    """Declare one exchange or queue; raises as `declare`."""
    try:
        if isinstance(entity, Exchange):
            await channel.exchange_declare(entity.name, exchange_type=entity.kind, durable=True)
        else:
            await channel.queue_declare(entity.name, durable=True, arguments=entity.all_arguments)
    except ChannelClosed as error:
        raise _explained(error, _named(entity)) from error


async def _bind(channel: AbstractChannel, binding: Binding) -> None:
    try:
        await channel.queue_bind(binding.queue, binding.exchange, binding.key)
    except ChannelClosed as error:
        what = f"the binding of queue {binding.queue!r} to exchange {binding.exchange!r}"
        raise _explained(error, what) from error


async def verify_entity(channel: AbstractChannel, entity: Entity) -> None:
    """Check that one exchange or queue exists; raises as `verify`."""
    if isinstance(entity, Queue):
        await counts_of(channel, entity)
        return
    try:
        await channel.exchange_declare(entity.name, passive=True)
    except ChannelClosed as error:
        raise _explained(error, _named(entity)) from error


async def counts_of(channel: AbstractChannel, queue: Queue) -> tuple[int, int]:
    """Return how many messages of a queue are ready, and how many consumers it has; raises as `verify`.

    The broker says 0 of both, too, where it does not hear from the queue's leader.
    """
    try:
        told = await channel.queue_declare(queue.name, passive=True)
    except ChannelClosed as error:
        raise _explained(error, _named(queue)) from error
    return told.message_count or 0, told.consumer_count or 0


def _named(entity: Entity) -> str:
    return f"{type(entity).__name__.lower()} {entity.name!r}"


def _explained(error: ChannelClosed, what: str) -> WorkerError:
    said = words_of(error)
    match error:
        case ChannelPreconditionFailed() if "inequivalent arg" in said:
            return TopologyError(
                f"{what} stands on the broker with other arguments: {said}. Either change the setting that it"
                " follows from, or make the entity anew: stop its users, drain and delete it, start this worker"
            )
        case ChannelNotFoundEntity() if _MISSING.search(said):
            return EntityMissing(
                f"{what} does not exist on the broker: {said}. Declare it, or set broker.declare to 'active'"
            )
        case ChannelNotFoundEntity():
            return BrokerAway(f"{what} is out of the broker's reach: {said}", _ALL_NODES)
        case ChannelAccessRefused():
            return TopologyError(
                f"{what} may not be declared by this user: {said}. Give it the permissions to configure, write"
                " and read, or let operations declare the topology and set broker.declare to 'passive'"
            )
        case ChannelLockedResource():
            return TopologyError(
                f"{what} is another connection's alone: {said}. End that connection, which declared it as exclusive"
            )
    remedy = remedy_for(said) or "See the broker's log, and whether this is RabbitMQ 3.10 to 4.x"
    return TopologyError(f"{what} could not be declared: {said}. {remedy[0].upper()}{remedy[1:]}")


async def delete(channel: AbstractChannel, topology: Topology) -> None:
    """Delete every entity of a temporary topology, with the messages in its queues."""
    for queue in topology.queues:
        await channel.queue_delete(queue.name)
    for exchange in topology.exchanges:
        await channel.exchange_delete(exchange.name)
