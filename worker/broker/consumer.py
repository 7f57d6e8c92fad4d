"""Takes deliveries, has each handled in a task of its own, and settles it: only here, once, by its Disposition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from aiormq.abc import AbstractChannel, DeliveredMessage

from worker.broker.connection import LOST, means_loss, text_of
from worker.broker.declare import declare, verify
from worker.broker.delivery import delivery_of
from worker.broker.link import Link
from worker.broker.one_delivery import one_delivery
from worker.broker.topology import Topology
from worker.disposition import Disposition, Settle
from worker.errors import PutOff
from worker.message import Delivery
from worker.settings import BrokerSettings
from worker.telemetry import Log

Handle = Callable[[Delivery], Awaitable[Disposition]]
Defer = Callable[[Delivery, PutOff], Awaitable[Disposition]]

# A delivery that came back so often may be one that kills workers.
_SUSPECT = 3
_SUSPECTS_RETURN = 2.0
_LAST_WORDS_TIMEOUT = 5.0


class Consumer:
    """The consuming side of the broker, on a link of its own.

    `link.is_up` means consuming: the broker has confirmed the consumer.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topology: Topology,
        log: Log,
        *,
        handle: Handle,
        defer: Defer,
        report: Callable[[Disposition], None],
        worker: str,
    ) -> None:
        # What was paused or resumed while the link was being prepared is caught up with when it is up.
        self.link = Link(
            "consume", settings, self._prepare, log, worker=worker, confirms=False, on_up=self._adjust
        )
        self._topology = topology
        self._active = settings.declare == "active"
        self._prefetch = settings.prefetch
        self._handle = handle
        self._defer = defer
        self._report = report
        self._log = log
        self._worker = worker
        self._jobs: set[asyncio.Task[None]] = set()
        self._tag = ""
        self._orphaned: set[int] = set()
        self._paused: set[str] = set()
        self._adjusting = asyncio.Lock()
        self._adjustments: set[asyncio.Task[None]] = set()
        self._suspects: list[tuple[AbstractChannel, Delivery]] = []
        self._attending: asyncio.Task[None] | None = None
        self._catching: set[asyncio.Task[DeliveredMessage | None]] = set()
        self._leaving = asyncio.Event()
        self._draining = False

    @property
    def in_flight(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        return f"<Consumer {self.in_flight} in flight, {self.link!r}>"

    @property
    def consuming(self) -> bool:
        """Whether the broker has confirmed that jobs are delivered to this worker."""
        return self.link.is_up and bool(self._tag)

    @property
    def paused(self) -> frozenset[str]:
        """The reasons for which no deliveries are taken."""
        return frozenset(self._paused)

    def pause(self, reason: str) -> None:
        """Take no more deliveries until every reason has been resumed."""
        if reason not in self._paused:
            self._paused.add(reason)
            self._log.warning("worker.paused", reason=reason)
            self._adjust()

    def resume(self, reason: str) -> None:
        """Take deliveries again, unless paused for another reason."""
        if reason in self._paused:
            self._paused.remove(reason)
            self._log.info("worker.resumed", reason=reason, still_paused=sorted(self._paused))
            self._adjust()

    async def take_one(self, patience: float) -> bool:
        """Take one delivery in spite of a pause, and see it to its end; return whether one came in so many seconds."""
        channel, generation = await self.link.channel(), self.link.generation
        if self._leaving.is_set():
            return False
        catching = asyncio.get_running_loop().create_task(self._catch(channel, generation, patience))
        self._catching.add(catching)
        catching.add_done_callback(self._catching.discard)
        message = await catching
        if message is None or self._draining:
            return False
        await asyncio.wait({self._start(channel, self._delivery(message, generation))})
        return True

    async def drain(self, grace: float) -> int:
        """Take no more deliveries, finish those in hand within `grace` seconds, return how many were given up.

        Those go back to the broker when the link closes.
        """
        self._leaving.set()
        # Until the broker has heard, its deliveries are still taken: they would go back, and count as returned.
        await self._stop_consuming()
        if self._catching:
            await asyncio.wait(self._catching)
        self._draining = True
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=grace)
        left = await self.give_up()
        await self._flush()
        return left

    async def give_up(self) -> int:
        """Cancel whatever is in hand, at once; return how many deliveries that were."""
        self._leaving.set()
        self._draining = True
        if self._attending is not None:
            self._attending.cancel()
            await asyncio.gather(self._attending, return_exceptions=True)
        left = list(self._jobs)
        for job in left:
            job.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    async def _prepare(self, channel: AbstractChannel, generation: int) -> None:
        await (declare if self._active else verify)(channel, self._topology)
        if self._leaving.is_set():
            return  # a link made anew while draining takes nothing on
        await channel.basic_qos(prefetch_count=self._prefetch)
        channel.on_consumer_cancel_callbacks.add(partial(self._cancelled, generation))
        self._tag = ""
        if not self._paused:
            await self._consume(channel, generation)

    async def _consume(self, channel: AbstractChannel, generation: int) -> None:
        consumed = await channel.basic_consume(
            self._topology.jobs, partial(self._take, channel, generation), no_ack=False
        )
        self._tag = consumed.consumer_tag or ""

    async def _catch(
        self, channel: AbstractChannel, generation: int, patience: float
    ) -> DeliveredMessage | None:
        try:
            return await one_delivery(
                channel,
                self._topology.jobs,
                patience=patience,
                prefetch=self._prefetch,
                adjusting=self._adjusting,
                leaving=self._leaving,
            )
        except TimeoutError:
            self.link.drop("the broker did not answer who waits for one job", generation)
            return None

    def _adjust(self) -> None:
        task = asyncio.get_running_loop().create_task(self._adjust_consuming())
        self._adjustments.add(task)
        task.add_done_callback(self._adjustments.discard)

    async def _adjust_consuming(self) -> None:
        """Consume or not, as the pauses ask by now; a link that comes up later asks by itself."""
        async with self._adjusting:
            if not self.link.is_up or self._leaving.is_set():
                return
            if self._paused and self._tag:
                await self._stop_consuming()
            elif not self._paused and not self._tag:
                await self._ask_channel(lambda channel: self._consume(channel, self.link.generation))

    async def _stop_consuming(self) -> None:
        tag, self._tag = self._tag, ""
        if tag:
            await self._ask_channel(lambda channel: channel.basic_cancel(tag))

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
        self._orphaned.add(generation)
        self.link.drop("the broker cancelled the consumer", generation)

    async def _take(self, channel: AbstractChannel, generation: int, message: DeliveredMessage) -> None:
        # This callback dies with its channel, so the job runs in a task of its own.
        if self._draining:
            return
        delivery = self._delivery(message, generation)
        if delivery.returns < _SUSPECT:
            self._start(channel, delivery)
            return
        self._suspects.append((channel, delivery))
        if self._attending is None or self._attending.done():
            self._attending = asyncio.get_running_loop().create_task(self._attend_suspects())

    def _delivery(self, message: DeliveredMessage, generation: int) -> Delivery:
        def is_current() -> bool:
            # With its queue deleted nobody delivers it again, so what is in hand is finished all the same.
            return self.link.generation == generation or generation in self._orphaned

        return delivery_of(message, is_current)

    def _start(self, channel: AbstractChannel, delivery: Delivery) -> asyncio.Task[None]:
        job = asyncio.get_running_loop().create_task(self._work(channel, delivery, self._handle))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    async def _attend_suspects(self) -> None:
        """Run what came back too often with nothing else in hand, so that it takes no neighbour with it.

        Other suspects are put off meanwhile, and come back together; so jobs are then taken one at a time for a
        while.
        """
        self.pause("suspect")
        try:
            await self._adjust_consuming()
            while self._jobs:
                await asyncio.wait(self._jobs)
            while self._suspects:
                await self._run_alone()
        finally:
            self.resume("suspect")

    async def _run_alone(self) -> None:
        (channel, delivery), *others = self._suspects
        self._suspects.clear()
        for other_channel, other in others:
            await self._work(other_channel, other, self._put_off)
        await asyncio.wait({self._start(channel, delivery)})
        until = time.monotonic() + self._topology.retry_steps[0].delay + _SUSPECTS_RETURN
        while others and (left := until - time.monotonic()) > 0 and not self._leaving.is_set():
            await self.take_one(left)

    async def _put_off(self, delivery: Delivery) -> Disposition:
        return await self._defer(delivery, PutOff("another job that came back too often runs alone"))

    async def _work(self, channel: AbstractChannel, delivery: Delivery, handle: Handle) -> None:
        try:
            disposition = await handle(delivery)
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
