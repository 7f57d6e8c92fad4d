"""Takes deliveries, has each handled in a task of its own, and settles it: only here, once, by its Disposition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from aiormq.abc import AbstractChannel, DeliveredMessage

from worker.broker.connection import LOST, means_loss, text_of
from worker.broker.declare import declare, verify
from worker.broker.link import Link
from worker.broker.topology import Topology
from worker.disposition import Disposition, Settle
from worker.message import Delivery, Properties
from worker.settings import BrokerSettings
from worker.telemetry import Log

Handle = Callable[[Delivery], Awaitable[Disposition]]
_LAST_WORDS_TIMEOUT = 5.0


class Consumer:
    """The consuming side of the broker, on a link of its own.

    `link.is_up` means consuming: the broker has confirmed the consumer.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topology: Topology,
        handle: Handle,
        report: Callable[[Disposition], None],
        log: Log,
        *,
        worker: str,
    ) -> None:
        self.link = Link("consume", settings, self._prepare, log, worker=worker, confirms=False)
        self._topology = topology
        self._active = settings.declare == "active"
        self._prefetch = settings.prefetch
        self._handle = handle
        self._report = report
        self._log = log
        self._worker = worker
        self._jobs: set[asyncio.Task[None]] = set()
        self._tag = ""
        self._leaving = False
        self._draining = False

    @property
    def in_flight(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        return f"<Consumer {self.in_flight} in flight, {self.link!r}>"

    async def drain(self, grace: float) -> int:
        """Take no more deliveries, finish those in hand within `grace` seconds, return how many were given up.

        Those go back to the broker when the link closes.
        """
        self._leaving = True
        # Until the broker has heard, its deliveries are still taken: they would go back, and count as returned.
        await self._stop_consuming()
        self._draining = True
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=grace)
        left = await self.give_up()
        await self._flush()
        return left

    async def give_up(self) -> int:
        """Cancel whatever is in hand, at once; return how many deliveries that were."""
        self._leaving = self._draining = True
        left = list(self._jobs)
        for job in left:
            job.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    async def _prepare(self, channel: AbstractChannel, generation: int) -> None:
        await (declare if self._active else verify)(channel, self._topology)
        if self._leaving:
            return  # a link made anew while draining takes nothing on
        await channel.basic_qos(prefetch_count=self._prefetch)
        channel.on_consumer_cancel_callbacks.add(partial(self._cancelled, generation))
        consumed = await channel.basic_consume(
            self._topology.jobs, partial(self._take, channel, generation), no_ack=False
        )
        self._tag = consumed.consumer_tag or ""

    async def _stop_consuming(self) -> None:
        await self._ask_channel(lambda channel: channel.basic_cancel(self._tag))

    async def _flush(self) -> None:
        """Wait until the broker has read the last acks: closing the connection would drop what isn't sent yet."""
        await self._ask_channel(lambda channel: channel.basic_qos(prefetch_count=self._prefetch))

    async def _ask_channel(self, ask: Callable[[AbstractChannel], Awaitable[object]]) -> None:
        if not self.link.is_up:
            return
        try:
            async with asyncio.timeout(_LAST_WORDS_TIMEOUT):
                await ask(await self.link.channel())
        except BaseException as error:
            if not means_loss(error):
                raise
            self._log.warning("broker.unheard", error=text_of(error))

    def _cancelled(self, generation: int, _frame: object) -> None:
        """The broker cancelled the consumer: the queue was deleted, or its leader is gone."""
        self.link.drop("the broker cancelled the consumer", generation)

    async def _take(self, channel: AbstractChannel, generation: int, message: DeliveredMessage) -> None:
        # This callback dies with its channel, so the job runs in a task of its own.
        if self._draining:
            return
        delivery = delivery_of(message, lambda: self.link.generation == generation)
        job = asyncio.get_running_loop().create_task(self._work(channel, delivery))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _work(self, channel: AbstractChannel, delivery: Delivery) -> None:
        try:
            disposition = await self._handle(delivery)
        except Exception:  # noqa: BLE001 - whatever it is, the delivery must not vanish
            self._log.exception("job.crashed", message_id=delivery.properties.message_id)
            disposition = Disposition(Settle.DEAD_LETTER, "job.crashed")
        await self._settle(channel, delivery, disposition.settle)
        if disposition.settle is not Settle.DEAD_LETTER:
            self._report(disposition)

    async def _settle(self, channel: AbstractChannel, delivery: Delivery, settle: Settle) -> None:
        if settle is Settle.NOT_AT_ALL or not delivery.is_current():
            return
        try:
            # While the library takes a connection down, nobody empties its queue of frames.
            async with asyncio.timeout(_LAST_WORDS_TIMEOUT):
                if settle is Settle.ACK:
                    await channel.basic_ack(delivery.tag, wait=False)
                else:
                    await channel.basic_reject(delivery.tag, requeue=False, wait=False)
        except LOST:
            self._log.info("settle.lost", delivery_tag=delivery.tag)


def delivery_of(message: DeliveredMessage, is_current: Callable[[], bool]) -> Delivery:
    properties = message.header.properties
    return Delivery(
        body=message.body,
        properties=Properties(
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
            headers=properties.headers or {},
            priority=properties.priority,
            correlation_id=properties.correlation_id,
            reply_to=properties.reply_to,
            message_id=properties.message_id,
            timestamp=properties.timestamp,
            message_type=properties.message_type,
            app_id=properties.app_id,
        ),
        redelivered=bool(message.redelivered),
        tag=message.delivery_tag or 0,
        is_current=is_current,
    )
