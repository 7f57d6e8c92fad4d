"""Sends dead letters back to work: the copy is confirmed before the original is taken off the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from worker.broker.dead_letters import Look
from worker.broker.publisher import Publisher
from worker.broker.topology import JOB_KEY, topology_of
from worker.dead_letter import Letter, replayed
from worker.errors import BrokerAway
from worker.message import Delivery
from worker.settings import BrokerSettings
from worker.telemetry import Log

_LANES = 16
_LAST_CONFIRMS = 10.0
_STOPPED = "the replay can't go on"


class Replayer:
    """Sends letters back to work, a few at a time: each copy is confirmed before its original is taken.

    `done` counts those of which both is true.
    """

    def __init__(self, look: Look, settings: BrokerSettings, log: Log, *, name: str) -> None:
        self.done = 0
        self._look = look
        self._topology = topology_of(settings)
        self._publisher = Publisher(settings, self._topology, log, worker=name, fail_fast=True)
        self._lanes = asyncio.Semaphore(_LANES)
        self._in_hand: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None

    async def replay(self, delivery: Delivery, letter: Letter, tell: Callable[[], object]) -> None:
        """Begin to send one back, once there is a lane; `tell` is called when that is done.

        Raises whatever an earlier one failed with.
        """
        await self._lanes.acquire()
        if self._failed is not None:
            raise self._failed
        task = asyncio.get_running_loop().create_task(self._send(delivery, letter, tell))
        self._in_hand.add(task)
        task.add_done_callback(self._in_hand.discard)

    async def _send(self, delivery: Delivery, letter: Letter, tell: Callable[[], object]) -> None:
        jobs = self._topology.jobs
        message = replayed(delivery, letter, exchange=jobs, routing_key=JOB_KEY)
        try:
            await self._publisher.publish(message, lambda: True, hold=False)
            await self._look.acknowledge(delivery.tag)
            self.done += 1
            tell()
        except Exception as error:  # noqa: BLE001 - raised where the next is begun, or at the end
            self._failed = self._failed or error
        finally:
            self._lanes.release()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Keep the publishing side up; at the end, see those in hand to theirs, also where it is cancelled."""
        work = asyncio.current_task()
        assert work is not None  # noqa: S101 - there is always one

        def stop(ended: asyncio.Future[Any]) -> None:
            # Without the link or the channel nothing goes on, and nobody may be waiting for them.
            if self._failed is None and not (ended is link and ended.cancelled()):
                self._failed = ended.exception() if ended is link else self._look.loss()
                work.cancel(_STOPPED)

        link: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._publisher.link.run())
        ends: tuple[asyncio.Future[Any], ...] = (link, self._look.lost)
        for end in ends:
            end.add_done_callback(stop)
        try:
            yield
            await self._see_to_their_ends()
        except asyncio.CancelledError as cancelled:
            if self._failed is not None and cancelled.args == (_STOPPED,):
                work.uncancel()
                raise self._failed from None
            await self._give_a_moment()
            raise
        finally:
            for end in ends:
                end.remove_done_callback(stop)
            await _end({link, *self._in_hand})

    async def _see_to_their_ends(self) -> None:
        while self._in_hand:
            await asyncio.wait(self._in_hand)
        if self._failed is not None:
            raise self._failed
        await self._look.settled()

    async def _give_a_moment(self) -> None:
        """Wait a little for confirms that are on their way, so that those letters aren't there twice."""
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=_LAST_CONFIRMS)
        with suppress(BrokerAway):
            await self._look.settled()


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
