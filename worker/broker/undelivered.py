"""Sends parked results again, in passes over the undelivered queue.

A pass takes at most 50 results at a time, for 5 s. It sends those of one routing key one after the other, the first
being the canary, and stops at the first that is not taken. What is not taken goes to the queue's tail by a confirmed
copy, so that it stands before no other; nothing is requeued.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused
from msgspec.structs import replace

from worker.broker.connection import broker_call, means_loss, text_of
from worker.broker.delivery import delivery_of
from worker.broker.outbox import ROUTING_KEY_HEADER, SILENCE, Outbox, parked_copy
from worker.broker.publisher import Publisher
from worker.broker.topology import UNDELIVERED_KEY, Topology
from worker.common.callbacks import always
from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.common.tasks import TaskSet
from worker.contract.errors import BrokerError
from worker.contract.job import USER_ID_HEADER
from worker.contract.message import Delivery, Message, Properties
from worker.observability.log import Log

_AT_A_TIME = 50  # results may be as large as LCM's largest reply
_SECONDS = 5.0
_QUIET = 0.5  # seconds without another delivery after which the queue counts as read
_LOOK = 30.0  # seconds between two looks into the queue
_BREATH = 1.0  # seconds between two passes that both send something
_CALL_TIMEOUT = 10.0


def unparked(delivery: Delivery, results: str, users: Container[str | None]) -> Message | None:
    """Return a parked result as it is published again; None for a message that is no parked result.

    One is what one of our `users`, which the broker has verified, published with the header.
    """
    # The broker's own headers, such as x-delivery-count, belong to the way of the copy.
    headers = {
        name: value for name, value in delivery.properties.headers.items() if not name.startswith("x-")
    }
    route = headers.pop(ROUTING_KEY_HEADER, None)
    if not isinstance(route, str) or _first_user(delivery.properties, users) not in users:
        return None
    headers.pop(USER_ID_HEADER, None)
    return Message(results, route, delivery.body, replace(delivery.properties, headers=headers))


def _moved(delivery: Delivery, undelivered: str, users: Container[str | None]) -> Message:
    """Return a message that is no parked result as it is moved: it names who published it, so that it becomes none."""
    properties = delivery.properties
    headers = {**properties.headers, USER_ID_HEADER: _first_user(properties, users) or ""}
    return Message(undelivered, UNDELIVERED_KEY, delivery.body, replace(properties, headers=headers))


def _first_user(properties: Properties, users: Container[str | None]) -> str | None:
    """Return who published a message, be it before a worker moved it."""
    user, named = properties.user_id, properties.headers.get(USER_ID_HEADER)
    return named if user in users and isinstance(named, str) else user


@dataclass
class _Pass:
    """One pass: the channel it reads on, the routes that were closed in it, and what it came to."""

    channel: AbstractChannel
    arrived: asyncio.Queue[DeliveredMessage] = field(default_factory=asyncio.Queue)
    turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    closed: set[str] = field(default_factory=set)
    sent: int = 0
    oldest: datetime | None = None


class Resender:
    """Runs passes while results are parked. `waiting` is how many were parked at the last look.

    Of several workers one makes a pass at a time, since it consumes the queue exclusively. `users` are those of
    `broker.url`: what others put into the queue is not sent.
    """

    def __init__(
        self,
        outbox: Outbox,
        publisher: Publisher,
        topology: Topology,
        log: Log,
        *,
        users: Container[str | None],
        clock: Clock = SYSTEM_CLOCK,
        count: Callable[[int], object],
    ) -> None:
        self.waiting = 0
        self._outbox = outbox
        self._publisher = publisher
        self._topology = topology
        self._log = log
        self._users = users
        self._clock = clock
        self._count = count

    async def run(self) -> None:
        """Make passes until cancelled."""
        pause = _LOOK
        while True:
            await self._clock.sleep(pause)
            sent = await self._pass_if_due()
            pause = _BREATH if sent and self.waiting else self._until_next()

    def _until_next(self) -> float:
        due = self._outbox.routes.next_try()
        return _LOOK if due is None else max(_BREATH, min(_LOOK, due - self._clock.monotonic()))

    async def _pass_if_due(self) -> int:
        try:
            return await self._look()
        except BrokerError as error:
            self._log.info("undelivered.not_read", error=str(error))
        except ChannelAccessRefused:
            pass  # another worker makes a pass
        except BaseException as error:
            if not means_loss(error):
                raise
            self._log.info("undelivered.not_read", error=text_of(error))
        return 0

    async def _look(self) -> int:
        opened = await self._publisher.channels.open()
        try:
            async with broker_call(_CALL_TIMEOUT):
                declared = await opened.channel.queue_declare(self._topology.undelivered, passive=True)
            self.waiting = declared.message_count or 0
            if not self.waiting or not self._is_due():
                return 0
            return await self._make_pass(_Pass(opened.channel), self.waiting)
        finally:
            self._publisher.channels.close(opened)

    def _is_due(self) -> bool:
        due = self._outbox.routes.next_try()
        return due is None or due <= self._clock.monotonic()

    async def _make_pass(self, here: _Pass, most: int) -> int:
        async with asyncio.timeout(_CALL_TIMEOUT):
            await here.channel.basic_qos(prefetch_count=_AT_A_TIME)
            consumed = await here.channel.basic_consume(
                self._topology.undelivered, here.arrived.put, exclusive=True
            )
        tasks = TaskSet()
        await self._take(here, tasks, most)
        async with broker_call(_CALL_TIMEOUT):
            await here.channel.basic_cancel(consumed.consumer_tag or "")
        while not here.arrived.empty():
            tasks.start(self._send_or_move(here, here.arrived.get_nowait()))
        await asyncio.gather(*tasks)
        self.waiting = max(0, self.waiting - here.sent)
        self._tell(here)
        return here.sent

    async def _take(self, here: _Pass, tasks: TaskSet, most: int) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _SECONDS
        for _ in range(most):
            left = until - loop.time()
            try:
                async with asyncio.timeout(min(left, _QUIET)):
                    message = await here.arrived.get()
            except TimeoutError:
                return
            tasks.start(self._send_or_move(here, message))

    async def _send_or_move(self, here: _Pass, message: DeliveredMessage) -> None:
        delivery = delivery_of(message)
        here.oldest = _older(here.oldest, delivery.properties.timestamp)
        result = unparked(delivery, self._topology.results, self._users)
        if result is not None and await self._was_sent(here, result):
            here.sent += 1
            self._count(1)
        elif not await self._was_moved(delivery, result):
            return
        await here.channel.basic_ack(delivery.tag, wait=False)

    async def _was_sent(self, here: _Pass, result: Message) -> bool:
        route = result.routing_key
        async with here.turns[route]:
            if route in here.closed:
                return False
            try:
                await self._outbox.try_result(result, always)
            except BrokerError:
                here.closed.add(route)
                return False
            return True

    async def _was_moved(self, delivery: Delivery, result: Message | None) -> bool:
        """Put a copy at the tail; what can't be moved stays, and is back in its place when the channel closes."""
        undelivered = self._topology.undelivered
        copy = (
            _moved(delivery, undelivered, self._users) if result is None else parked_copy(result, undelivered)
        )
        try:
            await self._publisher.publish(copy, always, silence=SILENCE)
        except BrokerError:
            return False
        return True

    def _tell(self, here: _Pass) -> None:
        if here.sent:
            self._log.info("result.sent_again", results=here.sent, waiting=self.waiting)
        if self.waiting:
            self._log.warning("result.undelivered", **self._waiting_fields(here))

    def _waiting_fields(self, here: _Pass) -> dict[str, Any]:
        routes = sorted(here.closed)
        age = None if here.oldest is None else round((self._clock.now() - here.oldest).total_seconds())
        return {
            "waiting": self.waiting,
            "oldest_s": age,
            "routing_keys": routes[:5],
            "more_routing_keys": max(0, len(routes) - 5),
            "remedy": "`lcm-worker undelivered list` shows them; they are sent when their routes take them",
        }


def _older(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)
