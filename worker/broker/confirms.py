"""How long a publish waits for its confirm, and what it means where none comes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from worker.broker.link import Link
from worker.contract.errors import BrokerError, PublishLost, Unconfirmed


@dataclass(slots=True, frozen=True)
class Silence:
    """Seconds without a confirm after which a target counts as silent.

    `among_confirms` where other messages on the same channel were confirmed since, or where the message has a channel
    of its own; `alone` where nothing was: then the channel may be blocked by a message for another target.
    """

    among_confirms: float
    alone: float


class Waits(Protocol):
    """The channel that a message was published on, with all that waits there."""

    confirmed_at: float
    waits: set[ConfirmWait]


class ConfirmWait:
    """Bounds the wait for one confirm: `with ConfirmWait(...):` around the publish.

    While the broker is blocked the confirm may still come, so publishing again would make copies: the time starts
    over when the broker is unblocked, since only then does it work through its backlog.

    Raises, in place of the wait:
        Unconfirmed: the target is silent.
        PublishLost: nothing is confirmed on this channel, which is left then; or `give_up` said so.
    """

    def __init__(self, channel: Waits, link: Link, silence: Silence, *, has_own_channel: bool) -> None:
        self._channel = channel
        self._link = link
        self._silence = silence
        self._has_own_channel = has_own_channel
        self._why: BrokerError | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a publish is awaited in a task
        self._task = task
        self._cancelling = task.cancelling()
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._silence.among_confirms, self._look)
        self._channel.waits.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._channel.waits.discard(self)
        if self._why is None or self._task.uncancel() > self._cancelling:
            return
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise self._why from error

    def give_up(self, why: BrokerError) -> None:
        """End the wait by raising `why` in it."""
        if self._why is None:
            self._why = why
            self._task.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if self._link.blocked:
            self._since = now
        elif self._link.last_blocked > self._since:
            self._since = self._link.last_blocked
        waited = now - self._since
        others_confirmed = self._channel.confirmed_at > self._since
        if waited >= self._silence.among_confirms and (others_confirmed or self._has_own_channel):
            self.give_up(Unconfirmed(f"no confirm within {waited:.1f} s"))
        elif waited >= self._silence.alone:
            self.give_up(PublishLost(f"nothing was confirmed on this channel for {waited:.1f} s"))
        else:
            limit = self._silence.among_confirms
            due = limit if waited < limit else min(self._silence.alone, waited + limit / 2)
            self._timer = self._loop.call_later(max(due - waited, 0.001), self._look)
