"""Declares the topology on a broker, or verifies that it exists there."""

from __future__ import annotations

from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from worker.broker.topology import Binding, Exchange, Queue, Topology
from worker.contract.errors import TopologyError

Entity = Exchange | Queue


async def declare(channel: AbstractChannel, topology: Topology) -> None:
    """Declare everything; what exists already must have the same arguments.

    Raises:
        TopologyError: an entity was declared otherwise, or the user may not declare it. The channel is closed.
    """
    for entity in topology.entities:
        await declare_entity(channel, entity)
    for binding in topology.bindings:
        await _bind(channel, binding)


async def verify(channel: AbstractChannel, topology: Topology) -> None:
    """Check that every exchange and queue exists; a passive declare does not compare arguments or bindings.

    Raises:
        TopologyError: one is missing. The channel is closed.
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
    try:
        if isinstance(entity, Exchange):
            await channel.exchange_declare(entity.name, passive=True)
        else:
            await channel.queue_declare(entity.name, passive=True)
    except ChannelClosed as error:
        raise _explained(error, _named(entity)) from error


def _named(entity: Entity) -> str:
    return f"{type(entity).__name__.lower()} {entity.name!r}"


def _explained(error: ChannelClosed, what: str) -> TopologyError:
    said = str(error.args[0]) if error.args else str(error)
    match error:
        case ChannelPreconditionFailed():
            return TopologyError(
                f"{what} stands on the broker with other arguments: {said}. Either change the setting that it"
                " follows from, or make the entity anew: stop its users, drain and delete it, start this worker"
            )
        case ChannelNotFoundEntity():
            return TopologyError(
                f"{what} does not exist on the broker: {said}. Declare it, or set broker.declare to 'active'"
            )
        case ChannelAccessRefused():
            return TopologyError(
                f"{what} may not be declared by this user: {said}. Give it the permissions to configure, write"
                " and read, or let operations declare the topology and set broker.declare to 'passive'"
            )
    return TopologyError(f"{what} could not be declared: {said}")


async def delete(channel: AbstractChannel, topology: Topology) -> None:
    """Delete every entity of a temporary topology, with the messages in its queues."""
    for queue in topology.queues:
        await channel.queue_delete(queue.name)
    for exchange in topology.exchanges:
        await channel.exchange_delete(exchange.name)
