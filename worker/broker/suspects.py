"""Runs deliveries that came back too often alone, so that a job that kills the worker takes no neighbour with it.

Most of them kill nothing: they were in hand, for long, when a connection was lost or another job killed the worker. So
others are kept waiting for `ALONE` seconds only: a job that kills its worker does so as it is read, or as it is
answered.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from worker.broker.acks import Acks
from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.common.tasks import cancel, start
from worker.contract.errors import Deferred
from worker.contract.intake import Intake, PauseReason
from worker.contract.message import Delivery

SUSPECT_FROM = 3
"""A delivery that came back this often without being settled may be one that kills workers."""

ALONE = 2.0
"""Seconds for which others are kept waiting at most: before a suspect begins, and for its end."""

_DEFERRED_RETURN = 2.0  # seconds beyond the first retry delay within which deferred suspects are back

Held = tuple[Acks, Delivery]
"""A delivery, and what settles it on its channel."""


class Host(Intake, Protocol):
    """The consumer, as far as suspects need it."""

    @property
    def leaving(self) -> bool:
        """Whether the worker is shutting down, and takes no more deliveries."""

    async def emptied(self) -> None:
        """Wait until the broker delivers nothing more and, for `ALONE` seconds, what is in hand has ended.

        The intake is paused.
        """

    async def finish(self, held: Held) -> None:
        """Begin with a delivery, and wait for its end, for `ALONE` seconds at most."""

    async def defer(self, held: Held, reason: Deferred) -> None:
        """Defer a delivery."""


class Suspects:
    """The suspects in hand. `first_delay` is the seconds for which a deferred delivery stays away."""

    def __init__(self, host: Host, first_delay: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._host = host
        self._first_delay = first_delay
        self._monotonic = clock.monotonic
        self._waiting: list[Held] = []
        self._attending: asyncio.Task[None] | None = None

    def add(self, held: Held) -> None:
        """Have a suspect run when nothing else is in hand."""
        self._waiting.append(held)
        if self._attending is None or self._attending.done():
            self._attending = start(self._attend(), "suspects")

    async def stop(self) -> None:
        """Start no more suspects."""
        await cancel(self._attending)

    async def _attend(self) -> None:
        """Run one suspect alone and defer the others.

        Those come back together, so jobs are then taken one at a time for a while.
        """
        self._host.pause(PauseReason.SUSPECT)
        try:
            await self._host.emptied()
            while self._waiting:
                await self._run_alone()
        finally:
            self._host.resume(PauseReason.SUSPECT)

    async def _run_alone(self) -> None:
        first, *others = self._waiting
        self._waiting.clear()
        for other in others:
            await self._host.defer(other, Deferred("another job that came back too often runs alone"))
        await self._host.finish(first)
        until = self._monotonic() + self._first_delay + _DEFERRED_RETURN
        while others and (left := until - self._monotonic()) > 0 and not self._host.leaving:
            await self._host.take_one(left)
