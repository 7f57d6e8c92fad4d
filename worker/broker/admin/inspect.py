"""Checks a broker without consuming from it or changing it: does it answer, and does the topology exist on it?"""

from __future__ import annotations

from dataclasses import dataclass

from worker.broker.admin.calls import connected, exists, label, own_channel
from worker.broker.connection import Connection
from worker.broker.declare import Entity, declare_entity
from worker.broker.topology import Queue, Topology
from worker.contract.errors import TopologyError
from worker.settings import BrokerSettings


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check: `level` is `ok`, `new`, `warn`, `missing`, `wrong` or `away`."""

    level: str
    what: str
    detail: str


async def inspect(settings: BrokerSettings, topology: Topology, *, worker: str) -> list[Finding]:
    """Check the broker and every entity of the topology. `worker` becomes part of the connection's name.

    Raises:
        BrokerAway: no URL answers, or the connection was lost.
    """
    async with connected(settings, name=f"{worker} check") as connection:
        findings = [Finding("ok", "broker", f"{connection} answers")]
        active = settings.declare == "active"
        findings += [await _inspect(connection, entity, active=active) for entity in topology.entities]
        results = Queue(topology.results)
        if not settings.results_queue and await exists(connection, results):
            findings.append(
                Finding(
                    "warn",
                    label(results),
                    "still stands although broker.results_queue is false, and keeps a copy of every result;"
                    " unbind or delete it",
                )
            )
    return findings


async def _inspect(connection: Connection, entity: Entity, *, active: bool) -> Finding:
    try:
        return await _compare(connection, entity, active=active)
    except TopologyError as error:
        return Finding("wrong", label(entity), str(error))


async def _compare(connection: Connection, entity: Entity, *, active: bool) -> Finding:
    what = label(entity)
    if not await exists(connection, entity):
        if active:
            return Finding("new", what, "does not exist yet; `run` declares it")
        return Finding("missing", what, "does not exist; declare it, or set broker.declare to 'active'")
    if not active:
        return Finding("ok", what, "exists")
    # Declaring what exists changes nothing, and is the only way to compare its arguments.
    async with own_channel(connection) as channel:
        await declare_entity(channel, entity)
    return Finding("ok", what, "exists, as the settings ask")
