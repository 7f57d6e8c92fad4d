"""The channels that messages are published on: one for each exchange, so that what stalls one stalls no other."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from aiormq import spec
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelClosed
from pamqp.frame import marshal

from worker.broker.confirms import Confirms, Silence
from worker.broker.connection import broker_call, is_closing, means_loss, socket_of, text_of
from worker.broker.frames import content_frames
from worker.broker.link import Link
from worker.common.tasks import TaskSet
from worker.contract.errors import BrokerAway, PublishLost
from worker.contract.message import Message

_CLOSE_TIMEOUT = 5.0
_MOST_OWN = 64
"""How many messages at a time may have a channel of their own; a connection has 2,047 channels by default."""


class PublishChannel:
    """A channel with confirms: shared by the messages for one exchange, or one message's own.

    What the library would publish or wait for on it goes another way: it must not be used for that.
    """

    def __init__(self, channel: AbstractChannel, link: Link, generation: int, exchange: str | None) -> None:
        self.channel = channel
        self.generation = generation
        self.exchange = exchange
        self.confirms = Confirms(link, alone=exchange is None)
        self._socket = socket_of(channel)
        self._socket.frames.claim(channel.number, self.confirms.take)
        tune = channel.connection.connection_tune
        self.frame_max = tune.frame_max or 0
        self.user = channel.connection.url.user
        channel.closing.add_done_callback(self._closed)

    @property
    def is_shared(self) -> bool:
        return self.exchange is not None

    def publish(
        self, message: Message, properties: spec.Basic.Properties, silence: Silence
    ) -> asyncio.Future[None]:
        """Write a message, and return what ends with its confirm: see `Confirms.expect`.

        Raises:
            PublishLost: the channel is closed.
        """
        number = self.channel.number
        method = _method(number, message.exchange, message.routing_key)
        frames = method + content_frames(number, properties.marshal(), message.body, self.frame_max)
        if is_closing(self.channel) or not self._socket.write(frames):
            raise PublishLost("the connection went before the confirm: the channel is closed")
        return self.confirms.expect(message, silence)

    def _closed(self, closing: asyncio.Future[object]) -> None:
        error = asyncio.CancelledError() if closing.cancelled() else closing.exception()
        if isinstance(error, ChannelClosed):
            self.confirms.fail(lambda: error)
        else:
            why = f"the connection went before the confirm: {text_of(error)}"
            self.confirms.fail(lambda: PublishLost(why))


class PublishChannels:
    """Opens channels on the present connection of a link, and replaces those that are closed or retired.

    A connection on which no channel opens within `open_timeout` seconds is given up.
    """

    def __init__(self, link: Link, open_timeout: float) -> None:
        self._link = link
        self._open_timeout = open_timeout
        self._shared: dict[str, PublishChannel] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._own = asyncio.Semaphore(_MOST_OWN)
        self._closing = TaskSet()

    async def lend(self, message: Message, *, alone: bool) -> PublishChannel:
        """Return the channel for a message, to be given back; waits while the broker is away.

        It is one of the message's own where it is to be `alone`, and where another message of its id is in flight on
        the shared one: the broker names a returned message by its id alone.

        Raises:
            PublishLost: the connection went meanwhile.
        """
        if not alone:
            channel = self._present(message.exchange) or await self._shared_for(message.exchange)
            if (message.properties.message_id or "") not in channel.confirms:
                return channel
        await self._own.acquire()
        try:
            return await self.open()
        except BaseException:
            self._own.release()
            raise

    def give_back(self, channel: PublishChannel) -> None:
        """Take back a channel that was lent."""
        if not channel.is_shared:
            self._own.release()
            self.close(channel)

    async def open(self, exchange: str | None = None) -> PublishChannel:
        """Open a channel; waits while the broker is away.

        Raises:
            PublishLost: the connection went meanwhile.
        """
        await self._link.channel()
        generation = self._link.generation
        try:
            async with broker_call(self._open_timeout):
                return PublishChannel(await self._link.side_channel(), self._link, generation, exchange)
        except BrokerAway as error:
            late = " (broker.publish_timeout)" if isinstance(error.__cause__, TimeoutError) else ""
            self._link.drop(f"no channel could be opened: {error}{late}", generation)
            raise PublishLost(f"no channel could be opened: {error}") from error

    def retire_shared(self, exchange: str, why: str) -> None:
        """Publish to an exchange on a new channel from now on; see `retire`."""
        if channel := self._shared.get(exchange):
            self.retire(channel, why)

    def retire(self, channel: PublishChannel, why: str) -> None:
        """Lend this channel no more; what waits for a confirm on it counts as lost."""
        if channel.exchange is not None and self._shared.get(channel.exchange) is channel:
            del self._shared[channel.exchange]
        self.close(channel, why)

    def close(self, channel: PublishChannel, why: str = "closed") -> None:
        """Close a channel without waiting for it; what waits for a confirm on it counts as lost."""
        channel.confirms.fail(lambda: PublishLost(why))
        if not channel.channel.is_closed:
            self._closing.start(_close(channel.channel))

    def _present(self, exchange: str) -> PublishChannel | None:
        found = self._shared.get(exchange)
        return found if found is not None and not found.channel.is_closed else None

    async def _shared_for(self, exchange: str) -> PublishChannel:
        async with self._opening.setdefault(exchange, asyncio.Lock()):
            found = self._present(exchange) or await self.open(exchange)
            self._shared[exchange] = found
            return found


@lru_cache(maxsize=1024)
def _method(channel: int, exchange: str, routing_key: str) -> bytes:
    """Return the frame that begins a publish; routing keys repeat, and few change the channel."""
    return marshal(spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True), channel)


async def _close(channel: AbstractChannel) -> None:
    # A channel that is blocked by a queue without a leader answers late or never: it goes with its connection then.
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await channel.close()
    except BaseException as error:
        if not (isinstance(error, TimeoutError) or means_loss(error)):
            raise
