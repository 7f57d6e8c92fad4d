"""Publishes so that nothing is lost: persistent, mandatory, confirmed, and again where the confirm never came."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiormq import spec
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, DeliveryError, PublishError

from worker.backoff import Jitter, backoff
from worker.broker.connection import means_loss, text_of
from worker.broker.declare import declare, verify
from worker.broker.fields import WritableProperties
from worker.broker.link import Link
from worker.broker.topology import Topology
from worker.errors import PublishForbidden, PublishLost, PublishRefused, PutOff, StaleDelivery, Unroutable
from worker.message import Message
from worker.settings import BrokerSettings
from worker.telemetry import Log

_PERSISTENT = 2
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0


def _ignore(_: str) -> None:
    """Nobody counts."""


class Publisher:
    """The publishing side of the broker, on a link of its own. `count` is told how each publish ended.

    A worker waits for its rights as for anything else; a command is better off to `fail_fast`.

    A connection of its own, because a broker in a memory or disk alarm stops reading from connections that
    publish: acks must not be stuck behind that.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topology: Topology,
        log: Log,
        *,
        worker: str,
        hold: float = math.inf,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Jitter = random.uniform,
        count: Callable[[str], object] = _ignore,
        fail_fast: bool = False,
    ) -> None:
        self.link = Link("publish", settings, self._prepare, log, worker=worker, confirms=True)
        self._topology = topology
        self._results = topology.results
        self._active = settings.declare == "active"
        self._timeout = settings.publish_timeout
        self._log = log
        self._hold = hold
        self._sleep = sleep
        self._jitter = jitter
        self._count = count
        self._fail_fast = fail_fast
        self._in_flight: dict[str, asyncio.Event] = {}
        self._held: set[tuple[str, str]] = set()

    async def publish(self, message: Message, is_wanted: Callable[[], bool], *, hold: bool = True) -> None:
        """Publish, and return once the broker has confirmed that a queue holds the message.

        While the broker is away or blocked, waits. With `hold`, also while no queue is bound or the broker
        refuses, which is said once per episode.

        Raises:
            StaleDelivery: `is_wanted` turned false before the message went out.
            Unroutable: no queue is bound; only without `hold`.
            PublishForbidden: only without `hold`, where it is to fail fast.
            PutOff: a result was held for longer than the `hold` seconds of the constructor. Copies of jobs are
                held without end, since nothing else can be done with them.
        """
        failures, held_since = 0, 0.0
        async with self._alone(message.properties.message_id or ""):
            while True:
                channel = await self.link.channel()
                if not is_wanted():
                    raise StaleDelivery("the delivery's channel is gone")
                try:
                    await self._publish_once(channel, message)
                except PublishLost as error:
                    self._count("lost")
                    self._log.warning("publish.lost", reason=str(error), routing_key=message.routing_key)
                    # The channel closes a moment before the link notices.
                    await self._sleep(0.01)
                except (Unroutable, PublishRefused) as error:
                    self._count("returned" if isinstance(error, Unroutable) else "refused")
                    if not hold and self._is_final(error):
                        raise
                    self._say_held(message, error)
                    held_since = held_since or time.monotonic()
                    if message.exchange == self._results and time.monotonic() - held_since > self._hold:
                        raise PutOff(f"its result was held too long: {error}") from error
                    failures += 1
                    await self._sleep(self._pause(failures))
                else:
                    self._count("confirmed")
                    self._held.discard((message.exchange, message.routing_key))
                    return

    def _is_final(self, error: Unroutable | PublishRefused) -> bool:
        return isinstance(error, Unroutable) or (self._fail_fast and isinstance(error, PublishForbidden))

    async def _prepare(self, channel: AbstractChannel, _generation: int) -> None:
        # A deleted exchange closes this channel; only declaring it again helps.
        await (declare if self._active else verify)(channel, self._topology)

    @asynccontextmanager
    async def _alone(self, message_id: str) -> AsyncIterator[None]:
        """Let no two messages of one id be in flight: the library finds returned ones by their id alone."""
        while (other := self._in_flight.get(message_id)) is not None:
            await other.wait()
        done = self._in_flight[message_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._in_flight[message_id]
            done.set()

    async def _publish_once(self, channel: AbstractChannel, message: Message) -> None:
        patience = _Patience(self.link, self._timeout)
        try:
            confirm = await channel.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                properties=amqp_properties(message),
                mandatory=True,
            )
        except PublishError as error:
            raise Unroutable(
                f"no queue takes {message.routing_key!r} of exchange {message.exchange!r}"
            ) from error
        except ChannelAccessRefused as error:
            raise PublishForbidden(
                f"this user may not publish to exchange {message.exchange!r} ({text_of(error)}); "
                "see its permissions, or broker.url"
            ) from error
        except DeliveryError as error:
            raise PublishRefused(f"the broker refused it: {error}") from error
        except BaseException as error:
            if means_loss(error):
                raise PublishLost(f"the connection went before the confirm: {text_of(error)}") from error
            raise
        finally:
            patience.end()
        if not isinstance(confirm, spec.Basic.Ack):
            raise PublishRefused(f"the broker answered {confirm!r}")

    def _say_held(self, message: Message, error: Exception) -> None:
        target = (message.exchange, message.routing_key)
        if target in self._held:
            return
        self._held.add(target)
        self._log.warning(
            "result.unroutable" if isinstance(error, Unroutable) else "publish.refused",
            exchange=message.exchange,
            routing_key=message.routing_key,
            error=str(error),
            held=True,
        )

    def _pause(self, failures: int) -> float:
        return backoff(_FIRST_PAUSE, _LONGEST_PAUSE, failures, self._jitter)


class _Patience:
    """How long a confirm is waited for before the connection counts as lost.

    While the broker is blocked the confirm may still come, so publishing again would make copies: the waiting
    starts over when it is blocked no more, since only then does it begin to work off what has piled up.
    """

    def __init__(self, link: Link, seconds: float) -> None:
        self._link = link
        self._generation = link.generation
        self._seconds = seconds
        self._start(seconds)

    def end(self) -> None:
        self._timer.cancel()

    def _start(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._over)

    def _over(self) -> None:
        since_blocked = asyncio.get_running_loop().time() - self._link.last_blocked
        if self._link.blocked:
            self._start(self._seconds)
        elif since_blocked < self._seconds:
            self._start(self._seconds - since_blocked)
        else:
            reason = f"no confirm within {self._seconds:g} s (broker.publish_timeout)"
            self._link.drop(reason, self._generation)


def amqp_properties(message: Message, *, delivery_mode: int = _PERSISTENT) -> WritableProperties:
    properties = message.properties
    return WritableProperties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=dict(properties.headers),
        delivery_mode=delivery_mode,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        message_type=properties.message_type,
        app_id=properties.app_id,
    )
