"""Notices that results wait in the results queue and nobody consumes it: it grows until the broker's disk is full."""

from __future__ import annotations

from worker.broker.connection import broker_call
from worker.broker.link import Link
from worker.common.backoff import is_told
from worker.common.clock import Clock
from worker.contract.errors import BrokerAway
from worker.observability.log import Log

_EVERY = 60.0  # seconds between two looks
_ANSWERED_WITHIN = 30.0
_REMEDY = (
    "start the results queue's consumer, or set broker.results_queue = false where consumers bind their own"
)


class Unconsumed:
    """Asks over `link` now and then; a queue that had no consumer at the look before, either, is told.

    Of the looks in a row that find it so, the log tells what `is_told` does.
    """

    def __init__(self, link: Link, queue: str, log: Log, clock: Clock) -> None:
        self._link = link
        self._queue = queue
        self._log = log
        self._sleep = clock.sleep
        self._looks = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._sleep(_EVERY)
            await self._look()

    async def _look(self) -> None:
        try:
            async with broker_call(_ANSWERED_WITHIN):
                channel = await self._link.side_channel()
                found = await channel.queue_declare(self._queue, passive=True)
                await channel.close()
        except BrokerAway:
            return  # or the queue is gone, which whoever publishes into it finds out
        waiting = found.message_count or 0
        self._looks = self._looks + 1 if waiting and not found.consumer_count else 0
        if self._looks > 1 and is_told(self._looks - 1):
            self._log.warning("results.unconsumed", queue=self._queue, waiting=waiting, remedy=_REMEDY)
