"""Consumes a queue for the demo, which shows the messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiormq.abc import DeliveredMessage

from worker.broker.admin.calls import connected
from worker.broker.delivery import delivery_of
from worker.contract.message import Delivery
from worker.settings import BrokerSettings

_PREFETCH = 200


@asynccontextmanager
async def collect(
    settings: BrokerSettings, queue: str, *, name: str
) -> AsyncIterator[asyncio.Queue[Delivery]]:
    """Consume a queue: each message is put into the queue that is given, and acknowledged.

    Raises:
        BrokerAway: the broker can't be reached.
    """
    async with connected(settings, name=name) as connection:
        channel = await (await connection.open_channel(confirms=False)).get_underlay_channel()
        await channel.basic_qos(prefetch_count=_PREFETCH)
        collected: asyncio.Queue[Delivery] = asyncio.Queue()

        async def receive(message: DeliveredMessage) -> None:
            delivery = delivery_of(message)
            collected.put_nowait(delivery)
            await channel.basic_ack(delivery.tag, wait=False)

        await channel.basic_consume(queue, receive)
        yield collected
