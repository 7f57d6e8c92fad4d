"""Publishes messages: persistent, mandatory, confirmed, and published again where the confirm was lost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from worker.broker.channels import PublishChannel, PublishChannels
from worker.broker.confirms import Silence
from worker.broker.connection import broker_call, text_of
from worker.broker.declare import declare, verify
from worker.broker.delivery import PERSISTENT
from worker.broker.link import Link
from worker.broker.sizes import fitted_properties, limit_in
from worker.broker.topology import Topology
from worker.common.backoff import backoff
from worker.common.callbacks import ignore
from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.contract.errors import (
    BrokerAway,
    ExchangeMissing,
    MessageTooLarge,
    NotTaken,
    PublishForbidden,
    PublishLost,
    PublishRefused,
    StaleDelivery,
    TopologyError,
    Unconfirmed,
    Unroutable,
)
from worker.contract.message import Message
from worker.observability.log import Log
from worker.settings import BrokerSettings

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
_STALE_REFUSAL = 10.0
"""Seconds of refusals after which a new channel is tried.

RabbitMQ 3.10 refuses for ever on a channel that it refused once, although the queue takes messages again.
"""
_DECLARE_TIMEOUT = 30.0


class Publisher:
    """The publishing side of the broker, on a link of its own. `count` is told how each publish ended.

    With `fail_fast`, for commands, only a refusal is waited out: a missing queue or permission is an error at once.

    A connection of its own, because a broker in a memory or disk alarm stops reading from connections that
    publish: acks must not wait for that.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topology: Topology,
        log: Log,
        *,
        worker: str,
        clock: Clock = SYSTEM_CLOCK,
        count: Callable[[str], object] = ignore,
        fail_fast: bool = False,
    ) -> None:
        self.link = Link("publish", settings, self._prepare, log, worker=worker, confirms=True)
        self.channels = PublishChannels(self.link, settings.publish_timeout)
        self._topology = topology
        self._exchanges = {exchange.name for exchange in topology.exchanges}
        self._bound_exchanges = {binding.exchange for binding in topology.bindings}
        self._active = settings.declare == "active"
        self._patient = Silence(settings.publish_timeout, settings.publish_timeout)
        self._log = log
        self._clock = clock
        self._count = count
        self._final = (Unroutable, PublishForbidden) if fail_fast else ()
        self._verified = False
        self._max_body: int | None = None
        self._declaring = asyncio.Lock()
        self._declared_at = -math.inf

    async def publish(
        self,
        message: Message,
        is_wanted: Callable[[], bool],
        *,
        patience: float = 0.0,
        silence: Silence | None = None,
        alone: bool = False,
        on_refusal: Callable[[NotTaken], object] = ignore,
    ) -> None:
        """Publish, and return once the broker has confirmed that a queue holds the message.

        While the broker is away or blocked, waits. A message that the broker does not take is published again for
        `patience` seconds, and `on_refusal` is told each time. `silence` is how long its confirm may take, by default
        `publish_timeout`. With `alone` it gets a channel of its own.

        Raises:
            StaleDelivery: `is_wanted` turned false before the message went out.
            MessageTooLarge: the broker takes no message of this size.
            NotTaken: no queue took the message: it was returned, refused, or not confirmed.
        """
        failures, since = 0, 0.0
        while True:
            try:
                await self._try(message, is_wanted, silence or self._patient, alone=alone)
            except NotTaken as error:
                now = self._clock.monotonic()
                since = since or now
                if now - since >= patience or isinstance(error, self._final):
                    raise
                on_refusal(error)
                if isinstance(error, PublishRefused) and now - since >= _STALE_REFUSAL:
                    self.channels.retire_shared(message.exchange, "the broker refuses on this channel")
                failures += 1
                await self._clock.sleep(backoff(_FIRST_PAUSE, _LONGEST_PAUSE, failures, self._clock.jitter))
            else:
                return

    async def _try(
        self, message: Message, is_wanted: Callable[[], bool], silence: Silence, *, alone: bool
    ) -> None:
        """Publish until it is confirmed or not taken: again, on a channel of its own, where the channel was lost."""
        wished, declared = alone, False
        while True:
            sent_at = asyncio.get_running_loop().time()
            channel: PublishChannel | None = None
            try:
                channel = await self.channels.lend(message, alone=alone)
                if not is_wanted():
                    raise StaleDelivery("the delivery's channel is gone")
                await self._publish_once(channel, message, silence)
            except PublishLost as error:
                self._count("lost")
                self._log.warning("publish.lost", reason=str(error), routing_key=message.routing_key)
                # What closed or blocked the channel may have been another message: alone, it can only be this one.
                alone = wished or (channel is not None and channel.generation == self.link.generation)
                if channel is not None and channel.is_shared:
                    self.channels.retire(channel, str(error))
                # A channel closes a moment before the link notices that its connection is gone.
                await self._clock.sleep(0.01)
            except NotTaken as error:
                self._count(_counted(error))
                if (
                    declared
                    or not self._should_exist(message, error)
                    or not await self._declare_again(sent_at)
                ):
                    raise
                declared = True
            else:
                self._count("confirmed")
                return
            finally:
                if channel is not None:
                    self.channels.give_back(channel)

    async def _prepare(self, channel: AbstractChannel, _generation: int) -> None:
        if self._active:
            await declare(channel, self._topology)
        elif not self._verified:
            # Later, what is missing is told by each message that is not taken.
            await verify(channel, self._topology)
            self._verified = True

    def _should_exist(self, message: Message, error: NotTaken) -> bool:
        """Tell whether a message was not taken because an exchange or a queue that we declare is gone."""
        if not self._active:
            return False
        if isinstance(error, ExchangeMissing):
            return message.exchange in self._exchanges
        return isinstance(error, Unroutable) and message.exchange in self._bound_exchanges

    async def _declare_again(self, sent_at: float) -> bool:
        """Declare the topology, unless another message had it declared meanwhile; return whether it stands."""
        async with self._declaring:
            if self._declared_at > sent_at:
                return True
            channel: PublishChannel | None = None
            try:
                channel = await self.channels.open()
                async with broker_call(_DECLARE_TIMEOUT):
                    await declare(channel.channel, self._topology)
            except (BrokerAway, PublishLost, TopologyError) as error:
                self._log.warning("topology.not_declared", error=str(error))
                return False
            finally:
                if channel is not None:
                    self.channels.close(channel)
            self._declared_at = asyncio.get_running_loop().time()
            return True

    def _check_size(self, message: Message) -> None:
        if self._max_body is not None and len(message.body) > self._max_body:
            raise MessageTooLarge(
                f"it has {len(message.body)} bytes, and the broker takes {self._max_body} (max_message_size)"
            )

    async def _publish_once(self, channel: PublishChannel, message: Message, silence: Silence) -> None:
        self._check_size(message)
        # The broker verifies the user, so that our own headers can be told from a producer's.
        properties = fitted_properties(
            message.properties, channel.frame_max, delivery_mode=PERSISTENT, user_id=channel.user
        )
        try:
            await channel.publish(message, properties, silence)
        except ChannelClosed as error:
            raise self._why_closed(error, message, alone=not channel.is_shared) from error

    def _why_closed(self, error: ChannelClosed, message: Message, *, alone: bool) -> Exception:
        """Tell whether this message made the broker close the channel, on which others were in flight as well."""
        said = text_of(error)
        match error:
            case ChannelNotFoundEntity() if f"no exchange '{message.exchange}'" in said:
                return ExchangeMissing(f"exchange {message.exchange!r} does not exist")
            case ChannelAccessRefused() if _names(said, message):
                return PublishForbidden(
                    f"this user may not publish to exchange {message.exchange!r} ({said}); "
                    "see its permissions, or broker.url"
                )
            case ChannelPreconditionFailed():
                self._max_body = limit_in(said) or self._max_body
                self._check_size(message)
        if alone:
            return PublishRefused(f"the broker closed the channel over it: {said}")
        return PublishLost(f"the broker closed the channel: {said}")


def _names(said: str, message: Message) -> bool:
    """Tell whether the broker's words about a missing right are about this message."""
    topic = f"topic '{message.routing_key}'"
    return f"exchange '{message.exchange}'" in said and (topic in said or "topic '" not in said)


def _counted(error: NotTaken) -> str:
    match error:
        case Unroutable():
            return "returned"
        case Unconfirmed():
            return "unconfirmed"
    return "refused"
