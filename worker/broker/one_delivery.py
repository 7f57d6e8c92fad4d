"""Takes one delivery as a consumer of its own, which gets its turn beside all others."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from aiormq.abc import AbstractChannel, DeliveredMessage

from worker.broker.connection import means_loss

_TIMEOUT = 5.0


async def one_delivery(
    channel: AbstractChannel,
    queue: str,
    *,
    patience: float,
    prefetch: int,
    adjusting: asyncio.Lock,
    leaving: asyncio.Event,
) -> DeliveredMessage | None:
    """Consume a queue until a delivery comes; None where none does in so many seconds, or before `leaving` is set.

    A look into the queue would find nothing where other workers leave nothing. `prefetch` is what the channel has for
    its next consumer, which is not made meanwhile by who holds `adjusting`.

    Raises:
        TimeoutError: the broker did not answer; where it was heard, it may deliver what nobody will take.
    """
    loop = asyncio.get_running_loop()
    caught: asyncio.Future[DeliveredMessage] = loop.create_future()

    async def take(message: DeliveredMessage) -> None:
        caught.set_result(message)

    left = loop.create_task(leaving.wait())
    tag = uuid4().hex
    try:
        async with adjusting, asyncio.timeout(_TIMEOUT):
            # For whoever begins to consume after it: this one may hold one, the next as many as ever.
            await channel.basic_qos(prefetch_count=1)
            await channel.basic_consume(queue, take, no_ack=False, consumer_tag=tag)
            await channel.basic_qos(prefetch_count=prefetch)
        ends: set[asyncio.Future[Any]] = {caught, left, channel.closing}
        await asyncio.wait(ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        async with asyncio.timeout(_TIMEOUT):
            await channel.basic_cancel(tag)
    except BaseException as error:
        if isinstance(error, TimeoutError) or not means_loss(error):
            raise
    finally:
        left.cancel()
    # What came before the broker had heard that it should send nothing more is taken, too.
    return caught.result() if caught.done() else None
