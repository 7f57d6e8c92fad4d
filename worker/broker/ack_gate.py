"""Holds acknowledgements back before a consumer is cancelled, so that the cancelling returns nothing to the queue.

What the broker has assigned to a consumer and not sent yet when it processes basic.cancel counts as returned, and so
towards the delivery limit. A broker that gets no acks stops assigning once the prefetch is full; below that it has
nothing to assign once nothing has come for a moment and it says that no job waits: a busy one is merely slow.

What a cancelled consumer has not settled yet, a quorum queue of RabbitMQ up to 4.2 never hands out again where the
consumer's node of a cluster dies, until the queue's leader changes. So acks are held back while jobs are in hand, too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress

from worker.broker.acks import Acks
from worker.contract.disposition import Settle

_QUIET = 0.1  # seconds without a delivery after which the broker is asked whether jobs wait
_LONGEST = 5.0  # seconds for which acks are held back at most


class AckGate:
    """Knows the deliveries of one channel that are not settled yet, and keeps what is to be settled while it holds.

    All deliveries are settled through it. Whoever made it hold has it `release`.
    """

    def __init__(self, prefetch: int) -> None:
        self._prefetch = prefetch
        self._open: set[int] = set()
        self._of_consumer: set[int] = set()
        self._held: dict[int, Settle] = {}
        self._acks: Acks | None = None
        self._last_arrival = 0.0
        self._arrival = asyncio.Event()
        self.holding = False
        """Whether acks are being held back: what arrives now arrives for a consumer that is about to end."""

    def restart(self, acks: Acks) -> None:
        """Begin anew with a new channel, which has no deliveries and is not held."""
        self._acks = acks
        self.holding = False
        self._open.clear()
        self._of_consumer.clear()
        self._held.clear()

    def begin(self) -> None:
        """Begin with a new consumer of the channel: the prefetch is each consumer's own.

        What earlier ones have in hand leaves it the whole of it.
        """
        self._of_consumer.clear()

    def arrived(self, tag: int, *, alone: bool = False) -> None:
        """Take note of a delivery; `alone` where a consumer of its own brought it."""
        self._open.add(tag)
        if not alone:
            self._of_consumer.add(tag)
        self._last_arrival = asyncio.get_running_loop().time()
        self._arrival.set()

    def settle(self, acks: Acks, tag: int, settle: Settle) -> None:
        """Settle a delivery now, or once it is released; one of an earlier channel, as of a deleted queue's, now."""
        if acks is self._acks:
            if self.holding:
                self._held[tag] = settle
                return
            self._open.discard(tag)
            self._of_consumer.discard(tag)
        acks.settle(tag, settle)

    @property
    def full(self) -> bool:
        """Whether the broker assigns nothing more to the consumer, as long as nothing is settled."""
        return len(self._of_consumer) >= self._prefetch

    async def hold(self, waiting: Callable[[], Awaitable[int]]) -> None:
        """Hold back from now on, and return when nothing is in transit, after 5 s at most.

        `waiting` asks the broker how many jobs it could assign; it answers behind the deliveries of the others.
        """
        self.holding = True
        loop = asyncio.get_running_loop()
        until = loop.time() + _LONGEST
        while self.holding and await self._quiet(until) and loop.time() < until and await waiting():
            pass

    async def _quiet(self, until: float) -> bool:
        """Wait until nothing has come for a moment; false where the prefetch is full before, so that nothing can."""
        loop = asyncio.get_running_loop()
        self._last_arrival = loop.time()
        while not self.full:
            left = min(self._last_arrival + _QUIET, until) - loop.time()
            if left <= 0:
                return True
            self._arrival.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._arrival.wait()
        return False

    def release(self) -> None:
        """Hold back no more, and settle what was held back."""
        self.holding = False
        held, self._held = self._held, {}
        if self._acks is not None:
            for tag, settle, multiple in self._in_order(held):
                self._acks.settle(tag, settle, multiple=multiple)

    def _in_order(self, held: dict[int, Settle]) -> list[tuple[int, Settle, bool]]:
        """Return each tag, how it is settled, and whether all before it are meant as well.

        One ack for many, since RabbitMQ forgets acks that came in a burst where the channel is closed right behind.
        """
        others = self._open - {tag for tag, settle in held.items() if settle is Settle.ACK}
        self._open -= held.keys()
        self._of_consumer -= held.keys()
        first_other = min(others, default=math.inf)
        before = [tag for tag in held if tag < first_other]
        settled = [(max(before), Settle.ACK, True)] if before else []
        return settled + [
            (tag, held[tag], False) for tag in sorted(held) if tag > first_other or tag in others
        ]
