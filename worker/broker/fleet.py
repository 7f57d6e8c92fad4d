"""The log of the workers' beats: a stream, which every worker appends to and reads from, over a link of its own.

A stream hands out what a majority of its replicas has, to all readers in one order. So a beat that was read back is a
beat that all others will read, and no confirm is awaited: what is not read back in time was not said.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from functools import partial

from aiormq import spec
from aiormq.abc import AbstractChannel

from worker.broker.acks import Acks
from worker.broker.connection import broker_call, means_loss
from worker.broker.declare import declare, verify
from worker.broker.deliveries import Arrival, Deliveries
from worker.broker.link import Link
from worker.broker.topology import BEAT_KEY, Topology, fleet_part
from worker.common.callbacks import ignore
from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.common.tasks import cancel, start
from worker.contract.disposition import Settle
from worker.contract.errors import BrokerAway, TopologyError
from worker.fleet.beat import Beat, decode, encode
from worker.fleet.seat import EVERY, Seat
from worker.observability.log import Log
from worker.settings import BrokerSettings

OFFSET_HEADER = "x-stream-offset"
_PREFETCH = 1000
_ACK_EVERY = 250
_UNHEARD = 3 * EVERY  # seconds without one of our own beats after which the link is in doubt
_LAST_WORD = 2.0
_LOOK = 60.0


class Fleet:
    """This worker's part in the fleet: it beats, and reads all beats into its seat.

    Args:
        seat: this worker's place.
        held: tells how many sessions it has.
        paused: tells why it takes no jobs.
        on_change: called whenever what the worker may use can have changed, in time before it ends, too.
    """

    def __init__(
        self,
        seat: Seat,
        settings: BrokerSettings,
        topology: Topology,
        log: Log,
        *,
        worker: str,
        held: Callable[[], int],
        paused: Callable[[], Iterable[str]],
        on_change: Callable[[], object] = ignore,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.link = Link("fleet", settings, self._prepare, log, worker=worker, confirms=False, clock=clock)
        self.seat = seat
        self._active = settings.declare == "active"
        self._shares = seat.limited
        self._log_of_beats = fleet_part(topology)
        self._name = topology.fleet
        self._log = log
        self._held = held
        self._paused = paused
        self._on_change = on_change
        self._clock = clock
        self._next: int | None = None
        self._news = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self._read_back_at = -math.inf
        self._said_unreadable = False

    async def run(self) -> None:
        """Take part until cancelled. Raises TopologyError where the log is not as the settings ask, at the start."""
        link = start(self.link.run(), "fleet-link")
        try:
            while not link.done():
                self._on_change()
                self._beat_if_due()
                self._news.clear()
                waited_for = {link, start(self._news.wait())}
                await asyncio.wait(
                    waited_for, timeout=self._until_next(), return_when=asyncio.FIRST_COMPLETED
                )
                await cancel(*(waited_for - {link}))
            link.result()
        finally:
            await cancel(link, self._sending)

    async def run_beside(self, other: Link) -> None:
        """Take part once there is a log: for a worker without a limit, which is to be seen beside those with one.

        Until then, `other` is what the broker is asked by.
        """
        while not await self._exists(other):
            await self._clock.sleep(_LOOK)
        await self.run()

    async def _exists(self, other: Link) -> bool:
        try:
            async with broker_call(_LOOK):
                channel = await other.side_channel()
                await verify(channel, self._log_of_beats)
                await channel.close()
        except (BrokerAway, TopologyError):
            return False
        return True

    async def leave(self) -> None:
        """Tell that nothing is used any more, so that others may take it at once."""
        if not self.link.is_up:
            return
        await cancel(self._sending)
        try:
            async with broker_call(_LAST_WORD):
                await self._publish(self._beat(leaves=True))
        except BrokerAway:
            pass  # the others find out by the silence

    async def _prepare(self, channel: AbstractChannel, generation: int) -> None:
        await (declare if self._active and self._shares else verify)(channel, self._log_of_beats)
        await channel.basic_qos(prefetch_count=_PREFETCH)
        deliveries = Deliveries(channel)
        take = partial(self._take, Acks(channel, ignore), generation)
        beginning = "first" if self._shares else "next"
        offset = beginning if self._next is None else self._next
        await deliveries.consume(self._name, take, {OFFSET_HEADER: offset})
        self._read_back_at = self._clock.monotonic()

    def _take(self, acks: Acks, generation: int, message: Arrival) -> None:
        if generation != self.link.generation:
            return
        if message.delivery_tag % _ACK_EVERY == 0:
            acks.settle(message.delivery_tag, Settle.ACK, multiple=True)
        headers = message.header.properties.headers or {}
        offset = headers.get(OFFSET_HEADER)
        if not isinstance(offset, int):
            return  # of no stream
        if self._next is not None and offset < self._next:
            self._begin_anew(generation)
            return
        self._next = offset + 1
        try:
            beat = decode(message.body)
        except ValueError as error:
            self._say_unreadable(error)
            return
        now = self._clock.monotonic()
        self.seat.read(beat, offset, now)
        if beat.id == self.seat.id:
            self._read_back_at = now
        self._news.set()

    def _begin_anew(self, generation: int) -> None:
        """The log was deleted and made again: what it said counts no more, nor does what was granted."""
        self._next = None
        self.seat.forget()
        self._news.set()
        self.link.drop("the log of the workers' beats is another one than before", generation)

    def _say_unreadable(self, error: ValueError) -> None:
        if not self._said_unreadable:
            self._said_unreadable = True
            self._log.warning("fleet.unreadable", queue=self._name, error=str(error))

    def _beat_if_due(self) -> None:
        now = self._clock.monotonic()
        if not self.link.is_up or (self._sending is not None and not self._sending.done()):
            return
        if now - self._read_back_at > _UNHEARD:
            self.link.drop("this worker's beats are not read back", self.link.generation)
        elif now >= self.seat.due(now, self._held()):
            self._sending = start(self._send(self._beat()), "beat")

    def _beat(self, *, leaves: bool = False) -> Beat:
        return self.seat.beat(
            self._clock.monotonic(), self._held(), paused=sorted(self._paused()), leaves=leaves
        )

    async def _send(self, beat: Beat) -> None:
        try:
            await self._publish(beat)
        except BaseException as error:
            if not means_loss(error):
                raise

    async def _publish(self, beat: Beat) -> None:
        channel = await self.link.channel()
        await channel.basic_publish(
            encode(beat),
            exchange=self._name,
            routing_key=BEAT_KEY,
            properties=spec.Basic.Properties(
                content_type="application/json",
                message_type="lcm.outcome.beat.v1",
                timestamp=self._clock.now(),
            ),
        )

    def _until_next(self) -> float:
        now = self._clock.monotonic()
        ends = (at for at in (self.seat.asks_until, self.seat.ends_at) if at > now)
        due = self.seat.due(now, self._held()) if self.link.is_up else now + EVERY
        # While a beat waits for a broker that takes none, there is nothing to be done before it went.
        if self._sending is not None and not self._sending.done():
            due = now + EVERY
        return max(0.0, min(due, *ends, now + EVERY) - now)
