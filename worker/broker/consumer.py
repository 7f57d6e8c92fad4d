"""Consumes deliveries, handles each in a task of its own, and settles it: only here, once, by its Disposition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from aiormq.abc import AbstractChannel

from worker.broker.ack_gate import AckGate
from worker.broker.acks import Acks
from worker.broker.bytes_in_hand import BytesInHand, limit_for
from worker.broker.connection import broker_call
from worker.broker.declare import declare, verify
from worker.broker.deliveries import Arrival, Deliveries
from worker.broker.delivery import delivery_of, own_users
from worker.broker.link import Link
from worker.broker.one_delivery import cancel_consumer, one_delivery
from worker.broker.pauses import Pauses
from worker.broker.suspects import ALONE, SUSPECT_FROM, Held, Suspects
from worker.broker.topology import Topology
from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.common.tasks import TaskSet, cancel, start
from worker.contract.disposition import Disposition, Ending, Settle
from worker.contract.errors import BrokerAway, Deferred
from worker.contract.intake import PauseReason
from worker.contract.message import Delivery
from worker.observability.log import Log
from worker.settings import BrokerSettings

Handle = Callable[[Delivery], Awaitable[Disposition]]
Defer = Callable[[Delivery, Deferred], Awaitable[Disposition]]

_LAST_WORDS_TIMEOUT = 5.0
_SETTLED_WITHIN = 30.0  # seconds for which a pause or a stop waits for what is in hand


class Consumer:
    """The consuming side of the broker, on a link of its own.

    `link.is_up` means consuming: the broker has confirmed the consumer. With `paused` it begins to consume once these
    reasons were resumed, and says so only where one of them is given as a reason again before that.
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
        paused: Iterable[PauseReason] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        # `on_up` applies pauses and resumes that came while the link was being prepared.
        self.link = Link(
            "consume",
            settings,
            self._prepare,
            log,
            worker=worker,
            confirms=False,
            on_up=self._adjust,
            clock=clock,
        )
        self._topology = topology
        self._active = settings.declare == "active"
        self._verified = False
        self._own_users = own_users(settings.urls)
        self._prefetch = settings.prefetch
        self._handle = handle
        self._defer = defer
        self._report = report
        self._log = log
        self._worker = worker
        self._gate = AckGate(settings.prefetch)
        self._bytes = BytesInHand(self.link.read, limit_for(settings.prefetch))
        self._deliveries: Deliveries | None = None
        self._acks: Acks | None = None
        self._jobs = TaskSet()
        self._tag = ""
        self._orphaned: set[int] = set()
        self._pauses = Pauses(paused, log)
        self._adjusting = asyncio.Lock()
        self._adjustments = TaskSet()
        self._suspects = Suspects(self, topology.retry_steps[0].delay, clock)
        self._catching = TaskSet()
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
    def paused(self) -> frozenset[PauseReason]:
        """The reasons for which no deliveries are taken."""
        return self._pauses.reasons

    @property
    def leaving(self) -> bool:
        """Whether the worker is shutting down: it takes no more deliveries."""
        return self._leaving.is_set()

    async def depth(self) -> int:
        """Return how many jobs wait at the broker; 0 where it doesn't say."""
        found = 0

        async def ask(channel: AbstractChannel) -> None:
            nonlocal found
            found = (await channel.queue_declare(self._topology.jobs, passive=True)).message_count or 0

        await self._ask_channel(ask)
        return found

    def pause(self, reason: PauseReason) -> None:
        """Take no more deliveries until every reason has been resumed."""
        if self._pauses.begin(reason):
            self._adjust()

    def resume(self, reason: PauseReason) -> None:
        """Take deliveries again, unless paused for another reason."""
        if self._pauses.end(reason):
            self._adjust()

    async def take_one(self, within: float) -> bool:
        """Take one delivery in spite of a pause, and wait for its end; return whether one came in `within` seconds.

        Where suspects run, for `ALONE` seconds at most.
        """
        channel, generation = await self.link.channel(), self.link.generation
        deliveries, acks = self._deliveries, self._acks
        if self.leaving or deliveries is None or acks is None:
            return False
        caught = await self._catching.start(self._catch(channel, deliveries, generation, within))
        if caught is None or self._draining:
            return False
        message, tag = caught
        held = (acks, self._delivery(message, generation))
        await asyncio.wait(
            {self._jobs.start(self._work_alone(held, channel, tag))},
            timeout=ALONE if PauseReason.SUSPECT in self._pauses.reasons else None,
        )
        return True

    async def emptied(self) -> None:
        """Wait until the broker delivers nothing more and, for a moment, what is in hand has ended; while paused."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ALONE
        # Deliveries may come while the link is being prepared; they can be stopped once it is up.
        await self.link.channel()
        await self._adjust_consuming()
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=max(0.0, until - loop.time()))

    async def finish(self, held: Held) -> None:
        """Begin with a delivery, and wait a moment for its end."""
        await asyncio.wait({self._start(held)}, timeout=ALONE)

    async def defer(self, held: Held, reason: Deferred) -> None:
        """Defer a delivery."""
        await self._work(held, lambda delivery: self._defer(delivery, reason))

    async def drain(self, grace: float) -> int:
        """Take no more deliveries, finish those in hand within `grace` seconds, return how many were given up.

        Those go back to the broker when the link closes.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        self._leaving.set()
        self._pauses.over.set()
        # What arrives before the broker has processed basic.cancel is deferred: else it would count as returned.
        async with self._adjusting:
            # The broker may be silent, and has a moment for its last word within the grace.
            await self._stop_consuming(min(max(0.0, grace - _LAST_WORDS_TIMEOUT), _SETTLED_WITHIN))
        if self._catching:
            await asyncio.wait(self._catching)
        self._draining = True
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=max(0.0, until - loop.time()))
        left = await self.give_up()
        await self._flush()
        return left

    async def give_up(self) -> int:
        """Cancel whatever is in hand, at once; return how many deliveries that were."""
        self._leaving.set()
        self._draining = True
        await self._suspects.stop()
        left = list(self._jobs)
        await cancel(*left)
        return len(left)

    async def _prepare(self, channel: AbstractChannel, generation: int) -> None:
        if self._active:
            await declare(channel, self._topology)
        elif not self._verified:
            await verify(channel, self._topology)
            self._verified = True
        if self.leaving:
            return  # a link rebuilt while draining takes no deliveries
        await channel.basic_qos(prefetch_count=self._prefetch)
        channel.on_consumer_cancel_callbacks.add(partial(self._cancelled, generation))
        self._deliveries, self._acks = Deliveries(channel), Acks(channel, self._lost)
        self._gate.restart(self._acks)
        self._tag = ""
        if not self.paused:
            await self._consume(self._deliveries, self._acks, generation)

    async def _consume(self, deliveries: Deliveries, acks: Acks, generation: int) -> None:
        self._gate.begin()
        self._tag = await deliveries.consume(self._topology.jobs, partial(self._take, acks, generation))

    async def _catch(
        self,
        channel: AbstractChannel,
        deliveries: Deliveries,
        generation: int,
        within: float,
    ) -> tuple[Arrival, str] | None:
        try:
            return await one_delivery(
                channel,
                deliveries,
                self._topology.jobs,
                within=within,
                prefetch=self._prefetch,
                adjusting=self._adjusting,
                leaving=self._leaving,
                on_arrival=partial(self._gate.arrived, alone=True),
            )
        except TimeoutError:
            self.link.drop("the broker did not answer who waits for one job", generation)
            return None

    def _adjust(self) -> None:
        self._adjustments.start(self._adjust_consuming())

    async def _adjust_consuming(self) -> None:
        """Start or stop consuming, as the pauses ask; a link that comes up later calls this by itself."""
        async with self._adjusting:
            if not self.link.is_up or self.leaving:
                return
            if self.paused and self._tag:
                within = ALONE if self._pauses.reasons == {PauseReason.SUSPECT} else _SETTLED_WITHIN
                await self._stop_consuming(within, unless=self._pauses.over)
            elif not self.paused and not self._tag and self._deliveries and self._acks:
                consume = partial(self._consume, self._deliveries, self._acks, self.link.generation)
                await self._ask_channel(lambda _: consume())

    async def _stop_consuming(self, within: float, unless: asyncio.Event | None = None) -> None:
        """Cancel the consumer once what is in hand has ended; not, where that is no longer wanted."""
        until = asyncio.get_running_loop().time() + within
        tag, self._tag = self._tag, ""
        if tag:
            generation = self.link.generation
            # What is not read because of others counts as returned.
            await self._bytes.settled()
            try:
                await self._gate.hold(self.depth)
                await self._ended(until, unless)
                if self.paused or self.leaving:
                    await self._ask_channel(lambda channel: channel.basic_cancel(tag))
                elif generation == self.link.generation:
                    self._tag = tag
            finally:
                self._gate.release()

    async def _ended(self, until: float, unless: asyncio.Event | None) -> None:
        """Wait until nothing is in hand, until then at most, as long as the link is up."""
        if not self.link.is_up:
            return
        loop = asyncio.get_running_loop()
        interrupts: set[asyncio.Future[Any]] = {(await self.link.channel()).closing}
        waiting = [start(unless.wait())] if unless else []
        interrupts.update(waiting)
        while self._jobs and (left := until - loop.time()) > 0:
            ends = {*self._jobs, *interrupts}
            done, _ = await asyncio.wait(ends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done & interrupts:
                break
        await cancel(*waiting)

    async def _flush(self) -> None:
        """Wait until the broker has processed the last acks: closing the connection drops unsent frames."""
        await self._ask_channel(lambda channel: channel.basic_qos(prefetch_count=self._prefetch))

    async def _ask_channel(self, ask: Callable[[AbstractChannel], Awaitable[object]]) -> None:
        if not self.link.is_up:
            return
        try:
            async with broker_call(_LAST_WORDS_TIMEOUT):
                await ask(await self.link.channel())
        except BrokerAway as error:
            self._log.warning("broker.unheard", error=str(error))

    def _cancelled(self, generation: int, _frame: object) -> None:
        """The broker cancelled the consumer: the queue was deleted, or its leader is gone."""
        self._orphaned.add(generation)
        self.link.drop("the broker cancelled the consumer", generation)

    def _take(self, acks: Acks, generation: int, message: Arrival) -> None:
        if self._draining or generation != self.link.generation:
            return
        self._gate.arrived(message.delivery_tag)
        held = (acks, self._delivery(message, generation))
        if self._gate.holding:
            reason = Deferred("the worker takes no more jobs for now", if_there_is_time=True)
            self._jobs.start(self.defer(held, reason))
        elif held[1].delivery_count >= SUSPECT_FROM:
            self._suspects.add(held)
        else:
            self._start(held)

    def _delivery(self, message: Arrival, generation: int) -> Delivery:
        def is_current() -> bool:
            # The deliveries of a deleted queue are not redelivered, so they are finished all the same.
            return self.link.generation == generation or generation in self._orphaned

        self._bytes.took(len(message.body))
        return delivery_of(message, is_current, own_users=self._own_users)

    def _start(self, held: Held) -> asyncio.Task[None]:
        return self._jobs.start(self._work(held, self._handle))

    async def _work(self, held: Held, handle: Handle) -> None:
        self._end(held, await self._handled(held, handle))

    async def _work_alone(self, held: Held, channel: AbstractChannel, consumer: str) -> None:
        """See a delivery to its end that a consumer of its own brought, which is cancelled before that is told."""
        generation = self.link.generation
        try:
            disposition = await self._handled(held, self._handle)
        finally:
            try:
                await cancel_consumer(channel, consumer)
            except TimeoutError:
                self.link.drop("the broker did not answer who took one job", generation)
        self._end(held, disposition)

    async def _handled(self, held: Held, handle: Handle) -> Disposition:
        _, delivery = held
        try:
            return await handle(delivery)
        except Exception:  # noqa: BLE001 - whatever it is, the delivery must not vanish
            self._log.exception("job.crashed", message_id=delivery.properties.message_id)
            return Disposition(Ending.CRASHED)
        finally:
            self._bytes.left(len(delivery.body))

    def _end(self, held: Held, disposition: Disposition) -> None:
        acks, delivery = held
        settle = disposition.ending.settle
        if settle is not Settle.NOT_AT_ALL and delivery.is_current():
            self._gate.settle(acks, delivery.tag, settle)
        if disposition.ending is not Ending.CRASHED:
            self._report(disposition)

    def _lost(self, tag: int) -> None:
        self._log.info("settle.lost", delivery_tag=tag)
