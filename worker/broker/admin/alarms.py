"""Whether the broker has an alarm, which it tells only to those who publish: learned by a message to nowhere."""

from __future__ import annotations

import asyncio

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelClosed

from worker.broker.admin.calls import connected
from worker.broker.admin.inspect import Finding
from worker.broker.connection import Connection, broker_call, is_blocked
from worker.settings import BrokerSettings

_NOWHERE = "amq.nowhere"
"""The name of no queue: names that begin with `amq.` can't be declared."""
_TIMEOUT = 10.0
_POLL = 0.05


async def check_alarms(settings: BrokerSettings, *, worker: str) -> Finding:
    """Say whether the broker takes messages. No message is left there. Raises BrokerAway."""
    async with connected(settings, name=f"{worker} check") as connection:
        if await takes_messages(connection):
            return Finding("ok", "alarms", "none, the broker takes messages")
    return alarmed()


def alarmed() -> Finding:
    """Return what to say of a broker that takes no messages."""
    return Finding(
        "alarm",
        "alarms",
        "the broker has a memory or disk alarm and takes no messages; free memory or disk there, see"
        " `rabbitmq-diagnostics alarms`, and whether the results are consumed",
    )


async def takes_messages(connection: Connection) -> bool:
    """Tell whether the broker takes messages, over a connection that serves nothing else: it may be read no more.

    Raises:
        BrokerAway: the connection was lost, or nothing came within 10 s.
    """
    if is_blocked(connection):
        return False
    async with broker_call(_TIMEOUT):
        opened = await connection.open_channel(confirms=True)
        if taken := await _takes_one(connection, await opened.get_underlay_channel()):
            await opened.close()
        return taken


async def _takes_one(connection: Connection, channel: AbstractChannel) -> bool:
    """Publish: the broker answers, or says that it is blocked once it has the header, and leaves the body unread."""
    publishing = asyncio.ensure_future(channel.basic_publish(b"check", exchange="", routing_key=_NOWHERE))
    try:
        while not publishing.done():
            if is_blocked(connection):
                return False
            await asyncio.wait({publishing}, timeout=_POLL)
        await publishing
    except ChannelClosed:
        pass  # a user who may not publish there: that was read, too
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
    return not is_blocked(connection)
