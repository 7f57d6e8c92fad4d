"""What the pipeline publishes by: results, dead letters, and copies for the retry queues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from worker.contract.disposition import Sent
from worker.contract.message import Message

IsWanted = Callable[[], bool]
"""Turns false when nobody needs the message any more."""


class Outbox(Protocol):
    """Publishes, and returns once the broker has confirmed that a queue has the message.

    Each raises StaleDelivery, where `is_wanted` turned false before, and MessageTooLarge. `result` and `dead` raise
    Deferred where neither the queues that the message is for nor the one that keeps it in their place takes it.
    """

    async def result(
        self, message: Message, is_wanted: IsWanted, /, *, has_dead_letter: bool = False
    ) -> Sent: ...
    async def dead(self, message: Message, is_wanted: IsWanted, /) -> None: ...
    async def retry(self, message: Message, is_wanted: IsWanted, /) -> None: ...
