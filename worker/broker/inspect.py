"""Looks at a broker without consuming from it or changing it: does it answer, and does the topology stand there?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from worker.broker.connection import Connection, close, connect_any, means_loss, text_of
from worker.broker.declare import Entity, declare_entity, verify_entity
from worker.broker.topology import Queue, topology_of
from worker.errors import BrokerAway, TopologyError
from worker.settings import BrokerSettings

_STEP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check: `level` is `ok`, `warn`, `missing` or `wrong`."""

    level: str
    what: str
    detail: str


async def inspect(settings: BrokerSettings, *, worker: str) -> list[Finding]:
    """Check the broker and every entity.

    Raises:
        BrokerAway: no URL answers.
    """
    connection = await connect_any(settings, name=f"{worker} check")
    try:
        findings = [Finding("ok", "broker", f"{connection} answers")]
        topology = topology_of(settings)
        active = settings.declare == "active"
        findings += [await _look_at(connection, entity, active=active) for entity in topology.entities]
        if not settings.results_queue and await _stands(connection, Queue(topology.results)):
            findings.append(
                Finding(
                    "warn",
                    f"queue {topology.results}",
                    "still stands although broker.results_queue is false, and keeps a copy of every result;"
                    " unbind or delete it",
                )
            )
        return findings
    finally:
        await close(connection)


async def _look_at(connection: Connection, entity: Entity, *, active: bool) -> Finding:
    kind = "queue" if isinstance(entity, Queue) else "exchange"
    what = f"{kind} {entity.name}"
    if not await _stands(connection, entity):
        if active:
            return Finding("ok", what, "does not exist yet; `run` declares it")
        return Finding("missing", what, "does not exist; declare it, or set broker.declare to 'active'")
    if not active:
        return Finding("ok", what, "exists")
    # Declaring what exists changes nothing, and is the only way to have its arguments compared.
    wrong = await _said_by(connection, entity, declaring=True)
    return Finding("wrong", what, wrong) if wrong else Finding("ok", what, "exists, as the settings ask")


async def _stands(connection: Connection, entity: Entity) -> bool:
    return not await _said_by(connection, entity, declaring=False)


async def _said_by(connection: Connection, entity: Entity, *, declaring: bool) -> str:
    """Return what the broker objects to; a channel does not survive an objection, so each question has its own."""
    try:
        async with asyncio.timeout(_STEP_TIMEOUT):
            opened = await connection.channel()
            await (declare_entity if declaring else verify_entity)(
                await opened.get_underlay_channel(), entity
            )
            await opened.close()
    except TopologyError as error:
        return str(error)
    except BaseException as error:
        if means_loss(error):
            raise BrokerAway(f"the broker left during the check: {text_of(error)}") from error
        raise
    return ""
