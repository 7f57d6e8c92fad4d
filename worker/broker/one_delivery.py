"""Takes one delivery by a consumer of its own, which gets its turn beside the consumers of other workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiormq.abc import AbstractChannel

from worker.broker.connection import means_loss
from worker.broker.deliveries import Arrival, Deliveries

_CALL_TIMEOUT = 5.0


async def one_delivery(
    channel: AbstractChannel,
    deliveries: Deliveries,
    queue: str,
    *,
    within: float,
    prefetch: int,
    adjusting: asyncio.Lock,
    leaving: asyncio.Event,
    on_arrival: Callable[[int], object],
) -> tuple[Arrival, str] | None:
    """Consume a queue until a delivery comes; None where none does within `within` seconds or before `leaving` is set.

    Return it with the consumer's tag: the consumer, to which nothing more is assigned, is to be cancelled just before
    the delivery is settled, see `ack_gate`. Not by `basic.get`, which finds nothing where other workers leave nothing.
    `prefetch` is what the channel's next consumer gets; `adjusting` keeps it from being made meanwhile. `on_arrival`
    is told the delivery's tag.

    Raises:
        TimeoutError: the broker did not answer; where it heard us, it may deliver what nobody will take.
    """
    loop = asyncio.get_running_loop()
    caught: list[Arrival] = []
    came: asyncio.Future[None] = loop.create_future()

    def take(message: Arrival) -> None:
        # At once, since an ack for many must not include a delivery that nobody knows of.
        on_arrival(message.delivery_tag)
        caught.append(message)
        if not came.done():
            came.set_result(None)

    left = loop.create_task(leaving.wait())
    tag = ""
    try:
        with _loss_ignored():
            # What is being adjusted may take longer than a call.
            async with adjusting, asyncio.timeout(_CALL_TIMEOUT):
                # The prefetch of a channel holds for consumers started after it: 1 for this one, then the usual.
                await channel.basic_qos(prefetch_count=1)
                tag = await deliveries.consume(queue, take)
                await channel.basic_qos(prefetch_count=prefetch)
            ends: set[asyncio.Future[Any]] = {came, left, channel.closing}
            await asyncio.wait(ends, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if tag and not caught:
            await cancel_consumer(channel, tag)
    finally:
        left.cancel()
    # A delivery that arrived before the broker processed basic.cancel counts, too.
    # Taken out, since the channel keeps what belongs to its consumers.
    return (caught.pop(0), tag) if caught else None


async def cancel_consumer(channel: AbstractChannel, tag: str) -> None:
    """Cancel a consumer, unless the connection is gone. Raises TimeoutError where the broker does not answer."""
    with _loss_ignored():
        async with asyncio.timeout(_CALL_TIMEOUT):
            await channel.basic_cancel(tag)


@contextmanager
def _loss_ignored() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if isinstance(error, TimeoutError) or not means_loss(error):
            raise
