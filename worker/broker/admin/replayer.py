"""Sends dead letters back to the jobs queue: each copy is confirmed before its original is acknowledged."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from worker.broker.admin.dead_letter import DeadLetter, replay_message
from worker.broker.admin.dead_letters import Browser
from worker.broker.publisher import Publisher
from worker.broker.topology import JOB_KEY, topology_of
from worker.common.callbacks import always, ignore
from worker.common.tasks import TaskSet, cancel, start
from worker.contract.errors import BrokerAway, MessageTooLarge
from worker.contract.message import Delivery
from worker.observability.log import Log
from worker.settings import BrokerSettings

_CONCURRENCY = 16
_LAST_CONFIRMS_TIMEOUT = 10.0
_STOPPED = "the replay can't go on"


class Replayer:
    """Replays dead letters, several at a time. `done` counts those whose original was acknowledged.

    Those that the broker takes no copy of, since they are too large for it, stay: `on_left` is called with each, and
    `left` counts them.
    """

    def __init__(
        self,
        browser: Browser,
        settings: BrokerSettings,
        log: Log,
        *,
        name: str,
        on_left: Callable[[DeadLetter, MessageTooLarge], object] = ignore,
    ) -> None:
        self.done = 0
        self.left = 0
        self._on_left = on_left
        self._browser = browser
        self._topology = topology_of(settings)
        self._publisher = Publisher(settings, self._topology, log, worker=name, fail_fast=True)
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._in_flight = TaskSet()
        self._failure: BaseException | None = None

    async def replay(self, delivery: Delivery, letter: DeadLetter, on_done: Callable[[], object]) -> None:
        """Start to replay one, as soon as a slot is free; `on_done` is called once its original is acknowledged.

        Raises the error of an earlier one that failed.
        """
        await self._slots.acquire()
        if self._failure is not None:
            raise self._failure
        self._in_flight.start(self._replay(delivery, letter, on_done))

    async def _replay(self, delivery: Delivery, letter: DeadLetter, on_done: Callable[[], object]) -> None:
        try:
            message = replay_message(delivery, letter, exchange=self._topology.jobs, routing_key=JOB_KEY)
            await self._publisher.publish(message, always, patience=math.inf)
            await self._browser.acknowledge(delivery.tag)
            self.done += 1
            on_done()
        except MessageTooLarge as error:
            self.left += 1
            self._on_left(letter, error)
        except Exception as error:  # noqa: BLE001 - raised by the next `replay`, or at the end
            self._failure = self._failure or error
        finally:
            self._slots.release()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the publisher's link up; at the end, or when cancelled, wait for those in flight.

        Raises:
            BrokerAway: the browser's channel was lost.
            TopologyError: the publisher found the topology missing or different.
        """
        work = asyncio.current_task()
        assert work is not None  # noqa: S101 - there is always one

        def stop(ended: asyncio.Future[Any]) -> None:
            # Without the link or the channel nothing in flight ends; the task inside may wait for nothing else.
            if self._failure is None and not (ended is link and ended.cancelled()):
                self._failure = ended.exception() if ended is link else self._browser.loss()
                work.cancel(_STOPPED)

        def release() -> None:
            for end in ends:
                end.remove_done_callback(stop)

        link = start(self._publisher.link.run())
        ends: tuple[asyncio.Future[Any], ...] = (link, self._browser.lost)
        for end in ends:
            end.add_done_callback(stop)
        try:
            yield
            await self._finish()
        except asyncio.CancelledError as cancelled:
            if self._failure is not None and cancelled.args == (_STOPPED,):
                work.uncancel()
                raise self._failure from None
            await self._wait_for_last_confirms()
            raise
        except Exception:
            release()
            if not any(end.done() for end in ends):  # `on_done` has failed, the broker has not
                await self._wait_for_last_confirms()
            raise
        finally:
            release()
            await cancel(link, *self._in_flight)

    async def _finish(self) -> None:
        while self._in_flight:
            await asyncio.wait(self._in_flight)
        if self._failure is not None:
            raise self._failure
        await self._browser.flush()

    async def _wait_for_last_confirms(self) -> None:
        """Wait some seconds for confirms that are under way, so that those jobs don't exist twice."""
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=_LAST_CONFIRMS_TIMEOUT)
        with suppress(BrokerAway):
            await self._browser.flush()
