"""Takes messages off a queue for somebody who wants to see them: a demo, a person at a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiormq.abc import DeliveredMessage

from worker.broker.connection import close, connect_any
from worker.broker.delivery import delivery_of
from worker.message import Delivery
from worker.settings import BrokerSettings

_WINDOW = 200


@asynccontextmanager
async def collecting(
    settings: BrokerSettings, queue: str, *, name: str
) -> AsyncIterator[asyncio.Queue[Delivery]]:
    """Consume a queue, acknowledging each message once it is handed over.

    Raises:
        BrokerAway: the broker can't be reached.
    """
    connection = await connect_any(settings, name=name)
    try:
        channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        await channel.basic_qos(prefetch_count=_WINDOW)
        collected: asyncio.Queue[Delivery] = asyncio.Queue()

        async def take(message: DeliveredMessage) -> None:
            delivery = delivery_of(message, lambda: True)
            collected.put_nowait(delivery)
            await channel.basic_ack(delivery.tag, wait=False)

        await channel.basic_consume(queue, take)
        yield collected
    finally:
        await close(connection)
