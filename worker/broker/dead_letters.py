"""Works on the dead-letter queue by hand: looks at all of it, takes some letters off, leaves the others in their order.

How a look keeps the order (found out on RabbitMQ 3.10): messages fetched one by one, or returned one by one, come
back to a quorum queue in any order; those that one consumer holds when its channel closes come back as they were.
So a look takes hold of the whole queue at once, by consumers whose prefetch adds up to its length, and ends by closing
the channel. Prefetch 0 would hold 2,000 and no more. The broker keeps the order of 32 consumers of a channel, too,
so it is certain up to two million letters, and beyond that nothing but the order is at stake.

All is held at the broker; here there are only a few bodies at a time, since reading from the connection pauses
while they wait to be dealt with.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from aiormq import spec
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused

from worker.broker.connection import Connection, close, connect_any, means_loss, text_of
from worker.broker.declare import verify_entity
from worker.broker.delivery import delivery_of
from worker.broker.topology import Queue, topology_of
from worker.errors import BrokerAway, TopologyError
from worker.message import Delivery
from worker.settings import BrokerSettings

_STEP_TIMEOUT = 30.0
_IDLE = 10.0
_MOST_PREFETCH = 65_535
_MOST_WAITING = 100
_MOST_BYTES = 8 * 1024 * 1024


class Look:
    """One look at the queue, which goes through it once.

    `total` is how many letters it found there and holds, `others` how many consumers were there already. What
    is not taken goes back, in its order, when the look ends.
    """

    def __init__(self, connection: Connection, channel: Channel, queue: str) -> None:
        self.total = 0
        self.others = 0
        self.seen = 0
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._waiting: deque[Delivery] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._paused = self._over = False

    @property
    def lost(self) -> asyncio.Future[Any]:
        """Done once the channel is gone, with everything that it held."""
        return self._channel.closing

    async def begin(self, *, prefetch: int = _MOST_PREFETCH) -> None:
        """Take hold of whatever is in the queue now."""
        declared = await self._channel.queue_declare(self._queue, passive=True)
        self.total, self.others = declared.message_count or 0, declared.consumer_count or 0
        if not self.total:
            await self._make_sure()
            return
        held = min(prefetch, self.total)
        await self._channel.basic_qos(prefetch_count=held)
        # The broker returns what consumers hold in the order of their tags.
        first, *more = [f"look-{number:06}" for number in range(-(-self.total // held))]
        await self._channel.basic_consume(self._queue, self._take, consumer_tag=first)
        for tag in more:
            # Unanswered: the answer would come behind all that the first one is given, of which we read little.
            self._channel.consumers[tag] = self._take
            await self._channel.rpc(spec.Basic.Consume(queue=self._queue, consumer_tag=tag, nowait=True))

    async def _make_sure(self) -> None:
        """Of a queue whose leader is busy or away the broker says that it holds nothing: asked for one, it knows."""
        found = await self._channel.basic_get(self._queue)
        if not isinstance(found.delivery, spec.Basic.GetEmpty):
            raise BrokerAway(
                f"the broker can't say how many letters {self._queue} holds: it is busy, or the queue has no leader;"
                " try again"
            )

    async def letters(self) -> AsyncIterator[Delivery]:
        """Give each letter that was there at the beginning, once.

        Ends early where nothing comes for a while: then somebody else holds the rest.
        """
        while self.seen < self.total:
            if not self._waiting and not await self._more():
                return
            delivery = self._waiting.popleft()
            self._bytes -= len(delivery.body)
            self._pace()
            self.seen += 1
            yield delivery

    async def acknowledge(self, tag: int) -> None:
        """Take a letter off the queue; raises BrokerAway. `settled` tells when the broker has read of it."""
        async with _losses_told():
            await self._channel.basic_ack(tag, wait=False)

    async def settled(self) -> None:
        """Wait until the broker has read everything that was sent to it; raises BrokerAway."""
        self.end()
        async with _losses_told():
            await self._channel.basic_qos(prefetch_count=1)

    def end(self) -> None:
        """Take nothing in any more, and read on, so that the broker's answers get through."""
        self._over = True
        self._waiting.clear()
        self._bytes = 0
        self._pace()

    async def _take(self, message: DeliveredMessage) -> None:
        if self._over:
            return
        delivery = delivery_of(message, lambda: True)
        self._waiting.append(delivery)
        self._bytes += len(delivery.body)
        self._arrived.set()
        self._pace()

    async def _more(self) -> bool:
        self._arrived.clear()
        arrival = asyncio.ensure_future(self._arrived.wait())
        try:
            ends = {arrival, self._channel.closing}
            await asyncio.wait(ends, timeout=_IDLE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrival.cancel()
        if self.lost.done():
            raise self.loss()
        return bool(self._waiting)

    def loss(self) -> BrokerAway:
        """Return what to tell of the loss of the channel."""
        why = "closed" if self.lost.cancelled() else text_of(self.lost.exception())
        return BrokerAway(f"the broker left in the midst: {why}")

    def _pace(self) -> None:
        """Stop reading from the socket while enough is waiting."""
        full = len(self._waiting) > _MOST_WAITING or self._bytes > _MOST_BYTES
        # Only well below the limit, or nearly every letter would stop and start it.
        if full != self._paused and (full or len(self._waiting) <= _MOST_WAITING // 2):
            self._connection.read(on=not full)
            self._paused = full


@asynccontextmanager
async def looking(
    settings: BrokerSettings, *, name: str, prefetch: int = _MOST_PREFETCH
) -> AsyncIterator[Look]:
    """Look at the dead-letter queue; at the end, all that was not taken goes back.

    `prefetch` is what one consumer may hold at most.

    Raises:
        BrokerAway: the broker can't be reached, or left in the midst; what was not taken is still in the queue.
        TopologyError: there is no such queue.
    """
    queue = topology_of(settings).dead
    connection = await connect_any(settings, name=name)
    try:
        async with _losses_told():
            opened = await connection.channel(publisher_confirms=False)
            channel = cast(Channel, await opened.get_underlay_channel())
            await _verify(channel, queue)
            look = Look(connection, channel, queue)
            await look.begin(prefetch=prefetch)
        try:
            yield look
        finally:
            look.end()
    finally:
        await close(connection)


async def _verify(channel: AbstractChannel, queue: str) -> None:
    try:
        await verify_entity(channel, Queue(queue))
    except TopologyError as error:
        raise TopologyError(
            f"queue {queue!r} can't be looked at: {error.__cause__}. See whether broker.prefix and the virtual host in"
            " broker.url are those of the workers, and whether this user may read the queue; `run` declares it"
        ) from error


@asynccontextmanager
async def _losses_told() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_STEP_TIMEOUT):
            yield
    except TimeoutError as error:
        raise BrokerAway(f"the broker did not answer within {_STEP_TIMEOUT:g} s") from error
    except ChannelAccessRefused as error:
        raise TopologyError(f"this user may not read the dead-letter queue: {text_of(error)}") from error
    except BaseException as error:
        if means_loss(error):
            raise BrokerAway(f"the broker left: {text_of(error)}") from error
        raise
