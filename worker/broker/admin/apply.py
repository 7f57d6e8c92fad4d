"""Declares the topology on a broker, one entity after the other, and reports what was done for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from worker.broker.admin.calls import connected, exists, label, own_channel
from worker.broker.declare import declare, declare_entity
from worker.broker.topology import Topology
from worker.settings import BrokerSettings

Report = Callable[[str, str], object]
"""Is given `created`, `exists` or `bound`, and the entity or binding in words."""


async def apply(settings: BrokerSettings, topology: Topology, report: Report, *, name: str) -> None:
    """Declare everything, whatever `broker.declare` says; what exists with the right arguments stays as it is.

    Args:
        settings: which broker.
        topology: what to declare.
        report: called once for each entity and binding, right after it was declared.
        name: the connection's.

    Raises:
        TopologyError: an entity exists with other arguments, or the user may not declare it; what was declared
            before stays.
        BrokerAway: no URL answers, or the connection was lost.
    """
    async with connected(settings, name=name) as connection:
        for entity in topology.entities:
            existed = await exists(connection, entity)
            async with own_channel(connection) as channel:
                await declare_entity(channel, entity)
            report("exists" if existed else "created", label(entity))
        for binding in topology.bindings:
            async with own_channel(connection) as channel:
                await declare(channel, replace(topology, exchanges=(), queues=(), bindings=(binding,)))
            report("bound", f"queue {binding.queue} to exchange {binding.exchange} by {binding.key!r}")
