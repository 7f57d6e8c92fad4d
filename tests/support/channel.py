"""A channel of the test's own to the broker, and what is in the queues there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage

from tests.support.patience import PATIENCE

_POLL = 0.02
_DEADLINE = 30.0 * PATIENCE


@asynccontextmanager
async def open_channel(url: str) -> AsyncIterator[AbstractChannel]:
    """Give a channel of the test's own, with confirms."""
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def depth(channel: AbstractChannel, queue: str) -> int:
    """Return how many messages of a queue are ready, as the broker says at this moment."""
    declared = await channel.queue_declare(queue, passive=True)
    return declared.message_count or 0


async def take(channel: AbstractChannel, queue: str) -> DeliveredMessage:
    """Wait for a message in a queue and take it off."""
    async with asyncio.timeout(_DEADLINE):
        while True:
            message = await channel.basic_get(queue, no_ack=True)
            if isinstance(message.delivery, aiormq.spec.Basic.GetOk):
                return message
            await asyncio.sleep(_POLL)


async def take_all(channel: AbstractChannel, queue: str) -> list[DeliveredMessage]:
    """Take off whatever a queue holds right now."""
    taken: list[DeliveredMessage] = []
    while True:
        message = await channel.basic_get(queue, no_ack=True)
        if not isinstance(message.delivery, aiormq.spec.Basic.GetOk):
            return taken
        taken.append(message)
