"""A supervised connection to the broker: reconnects for as long as the worker runs.

Lose anything, rebuild everything: whether the connection, its one channel or the consumer on it is lost, the whole
link is closed and made anew after a jittered pause. Each life of a link has a number, its generation; a delivery of
an earlier generation is stale.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from aiormq.abc import AbstractChannel

from worker.broker.connection import (
    Connection,
    close,
    connect_any,
    files_of,
    is_blocked,
    means_loss,
    text_of,
)
from worker.broker.remedies import remedy_for
from worker.common.backoff import Telling, backoff
from worker.common.callbacks import ignore
from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.common.tasks import TaskSet
from worker.contract.errors import BrokerAway, TopologyError
from worker.observability.log import Log
from worker.settings import BrokerSettings

Prepare = Callable[[AbstractChannel, int], Awaitable[None]]
"""Sets up a new channel, such as its topology and consumer; given the channel and the generation."""

_PREPARE_TIMEOUT = 60.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_BLOCKED_CHECK = 0.5


class Link:
    """A supervised connection with one channel. `on_up` is called at the beginning of each life.

    `last_blocked` is when the broker was last seen blocked, by the event loop's clock; sampled every half second.
    `trouble` is why the last life ended or the next one can't begin; "" before there was any.

    `run` never returns; it ends by cancellation, or with TopologyError where `prepare` raised it in the first
    life. Later, a wrong topology is an outage like any other: it is logged and tried again. So is a file that can't be
    read; at the start, making a link raises SettingsError for certificates that can't be used.
    """

    def __init__(
        self,
        role: str,
        settings: BrokerSettings,
        prepare: Prepare,
        log: Log,
        *,
        worker: str,
        confirms: bool,
        on_up: Callable[[], object] = ignore,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.role = role
        self.generation = 0
        self.last_blocked = -math.inf
        self.trouble = ""
        self._connection: Connection | None = None
        self._newest: Connection | None = None
        self._telling = Telling()
        self._blocked_since: float | None = None
        self._ever_up = False
        self._settings = settings
        self._files = files_of(settings)
        self._prepare = prepare
        self._log = log
        self._worker = worker
        self._confirms = confirms
        self._on_up = on_up
        self._clock = clock
        self._channel: AbstractChannel | None = None
        self._up = asyncio.Event()
        self._dropped: asyncio.Future[str] | None = None
        self._retired = TaskSet()

    def __repr__(self) -> str:
        state = "blocked" if self.blocked else "up" if self.is_up else "down"
        return f"<Link {self.role} {state}, generation {self.generation}>"

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def blocked(self) -> bool:
        """Whether the broker takes no messages for now, because of a memory or disk alarm."""
        return self._connection is not None and is_blocked(self._connection)

    @property
    def blocked_for(self) -> float:
        """For how many seconds the broker has been seen blocked; sampled every half second."""
        return 0.0 if self._blocked_since is None else asyncio.get_running_loop().time() - self._blocked_since

    async def channel(self) -> AbstractChannel:
        """Return the channel of the present life, waiting until there is one."""
        while self._channel is None:
            await self._up.wait()
        return self._channel

    async def side_channel(self) -> AbstractChannel:
        """Open another channel, with confirms, on the present connection: its loss leaves the link alone.

        Raises what the library raises where the connection is lost meanwhile; see `means_loss`.
        """
        while self._connection is None:
            await self._up.wait()
        opened = await self._connection.open_channel(confirms=True)
        return await opened.get_underlay_channel()

    def read(self, on: bool) -> None:
        """Stop reading from the present connection, or from the one that is being prepared, or go on."""
        if self._newest is not None:
            self._newest.read(on=on)

    def drop(self, reason: str, generation: int) -> None:
        """End the life of this generation, because it is in doubt; does nothing to a later one."""
        if generation == self.generation and self._dropped is not None and not self._dropped.done():
            self._dropped.set_result(reason)

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        failures = doublings = in_vain = 0
        connection: Connection | None = None
        try:
            while True:
                try:
                    connection = await connect_any(
                        self._settings, self._files, name=f"{self._worker} {self.role}", begin=in_vain
                    )
                    channel = await self._open(connection)
                except (BrokerAway, TopologyError) as error:
                    if isinstance(error, TopologyError) and not self._ever_up:
                        raise
                    failures += 1
                    # A node of a cluster may answer, and not have what another has, such as a stream's replica.
                    in_vain += connection is not None
                    nobody_listens = isinstance(error, BrokerAway) and error.nobody_listens
                    # A closed port is no burden to try, and whoever comes back is to be found at once.
                    doublings = 0 if nobody_listens else doublings + 1
                    self.trouble = str(error)
                    if self._telling.tells(self.trouble, failures, fast=nobody_listens):
                        self._log.warning(
                            "broker.unreachable", role=self.role, attempt=failures, error=self.trouble
                        )
                else:
                    failures = doublings = in_vain = 0
                    await self._live(connection, channel)
                if connection is not None:
                    # Without waiting for it: the peer may be frozen.
                    self._retired.start(close(connection))
                    connection = None
                await self._clock.sleep(backoff(_FIRST_PAUSE, _LONGEST_PAUSE, doublings, self._clock.jitter))
        finally:
            if connection is not None:
                await close(connection)
            await asyncio.gather(*self._retired, return_exceptions=True)

    async def _open(self, connection: Connection) -> AbstractChannel:
        # Before `prepare`, since the channel can be lost at once.
        self._dropped = asyncio.get_running_loop().create_future()
        self._newest = connection
        try:
            async with asyncio.timeout(_PREPARE_TIMEOUT):
                opened = await connection.open_channel(confirms=self._confirms)
                channel = await opened.get_underlay_channel()
                # Deliveries can arrive while `prepare` runs; they belong to the new generation.
                self.generation += 1
                await self._prepare(channel, self.generation)
        except BaseException as error:
            self.generation += 1
            if means_loss(error) or isinstance(error, RuntimeError):
                said = text_of(error)
                raise BrokerAway(f"the channel could not be prepared: {said}", remedy_for(said)) from error
            raise
        return channel

    async def _live(self, connection: Connection, channel: AbstractChannel) -> None:
        assert self._dropped is not None  # noqa: S101 - made with the channel
        self._connection, self._channel = connection, channel
        self._ever_up = True
        self._up.set()
        self._on_up()
        self._log.info("broker.connected", role=self.role, generation=self.generation, broker=str(connection))
        try:
            self.trouble = await self._until_lost(connection, channel, self._dropped)
            self._log.warning("broker.lost", role=self.role, generation=self.generation, reason=self.trouble)
        finally:
            self._up.clear()
            self._connection = self._channel = None
            self.generation += 1
            self._blocked_since = None

    async def _until_lost(
        self, connection: Connection, channel: AbstractChannel, dropped: asyncio.Future[str]
    ) -> str:
        transport = connection.transport
        assert transport is not None  # noqa: S101 - it was opened a moment ago
        ends = {dropped, channel.closing, transport.connection.closing}
        while True:
            done, _ = await asyncio.wait(ends, timeout=_BLOCKED_CHECK, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return _why(dropped, done)
            self._say_blocked()

    def _say_blocked(self) -> None:
        blocked, said, now = self.blocked, self._blocked_since is not None, asyncio.get_running_loop().time()
        if blocked:
            self.last_blocked = now
        if blocked == said:
            return
        self._blocked_since = now if blocked else None
        if blocked:
            self._log.warning(
                "broker.blocked",
                role=self.role,
                reason="the broker has a memory or disk alarm and takes no messages; this worker waits",
            )
        else:
            self._log.info("broker.unblocked", role=self.role)


def _why(dropped: asyncio.Future[str], done: set[asyncio.Future[object]]) -> str:
    if dropped.done():
        return dropped.result()
    reasons = [
        text_of(end.exception()) for end in done if not end.cancelled() and end.exception() is not None
    ]
    return reasons[0] if reasons else "closed"
