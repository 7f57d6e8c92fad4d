"""The messages published on one channel whose confirm has not come, and how long each may take."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pamqp.header import ContentHeader

from worker.broker.frames import ACK, NACK, RETURN, OnContent
from worker.contract.errors import PublishLost, PublishRefused, Unconfirmed, Unroutable
from worker.contract.message import Message

_TAG_AND_MULTIPLE = struct.Struct(">QB")


@dataclass(slots=True, frozen=True)
class Silence:
    """Seconds without a confirm after which a target counts as silent.

    `among_confirms` where other messages on the same channel were confirmed since, or where the message has a channel
    of its own; `alone` where nothing was: then the channel may be blocked by a message for another target.
    """

    among_confirms: float
    alone: float


class BlockedLink(Protocol):
    """A link, as far as it tells whether the broker is blocked."""

    @property
    def blocked(self) -> bool:
        """Whether it is."""

    last_blocked: float


@dataclass(slots=True)
class _Pending:
    """A message that was published. Not the message itself: its confirm may never come."""

    message_id: str
    exchange: str
    routing_key: str
    silence: Silence
    since: float
    confirmed: asyncio.Future[None]


class Confirms:
    """The unconfirmed messages of one channel, by their delivery tags; handles the channel's method frames.

    A confirm counts for the message of its tag alone, so the late one of a message that was given up stands for no
    other. The broker names a returned message by its id alone: no two of one id may be in here at a time.

    While the broker is blocked a confirm may still come, so publishing again would make copies: the time that a
    confirm may take starts over when the broker is unblocked, since only then does it work through its backlog.
    """

    def __init__(self, link: BlockedLink, *, alone: bool) -> None:
        self._link = link
        self._alone = alone
        self._loop = asyncio.get_running_loop()
        self._last_tag = 0
        self._pending: dict[int, _Pending] = {}
        self._tags: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self._confirmed_at = -math.inf

    def __contains__(self, message_id: str) -> bool:
        """Tell whether a message of this id may still be returned or confirmed."""
        return message_id in self._tags

    def expect(self, message: Message, silence: Silence) -> asyncio.Future[None]:
        """Count a message that is being published; return what ends with its confirm.

        Raises, in whoever awaits it:
            Unroutable: it was returned.
            PublishRefused: the broker refused it.
            Unconfirmed: its target is silent.
            PublishLost: nothing is confirmed on this channel, which is to be left then.
            Exception: what `fail` and `give_up` were given.
        """
        now = self._loop.time()
        self._last_tag += 1
        pending = _Pending(
            message.properties.message_id or "",
            message.exchange,
            message.routing_key,
            silence,
            now,
            self._loop.create_future(),
        )
        self._pending[self._last_tag] = pending
        self._tags[pending.message_id] = self._last_tag
        self._look_at(now + silence.among_confirms)
        return pending.confirmed

    def fail(self, error_for: Callable[[], BaseException]) -> None:
        """End every wait by an error: the channel is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._due = math.inf
        pending, self._pending = self._pending, {}
        self._tags.clear()
        for each in pending.values():
            _give_up(each, error_for())

    def take(self, payload: bytes) -> OnContent | bool:
        """Take a method frame where it is a confirm, or returns a message; tell whether it is."""
        if payload.startswith(ACK):
            self._settle(payload, taken=True)
        elif payload.startswith(NACK):
            self._settle(payload, taken=False)
        elif payload.startswith(RETURN):
            return self._returned
        else:
            return False
        return True

    def _settle(self, payload: bytes, *, taken: bool) -> None:
        self._confirmed_at = self._loop.time()
        tag, multiple = _TAG_AND_MULTIPLE.unpack_from(payload, len(ACK))
        tags = [each for each in self._pending if each <= tag] if multiple & 1 else [tag]
        for each in tags:
            pending = self._pending.pop(each, None)
            if pending is None:
                continue
            if self._tags.get(pending.message_id) == each:
                del self._tags[pending.message_id]
            if pending.confirmed.done():
                continue  # returned before, or given up
            if taken:
                pending.confirmed.set_result(None)
            else:
                pending.confirmed.set_exception(PublishRefused("the broker refused it: basic.nack"))

    def _returned(self, header: ContentHeader, _body: bytes) -> None:
        self._confirmed_at = self._loop.time()
        tag = self._tags.get(header.properties.message_id or "")
        if tag is not None:
            pending = self._pending[tag]
            why = f"no queue takes {pending.routing_key!r} of exchange {pending.exchange!r}"
            _give_up(pending, Unroutable(why))

    def _look_at(self, moment: float) -> None:
        """Have the waits looked at by then; one timer is enough, since it finds out what is due next."""
        if moment >= self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = moment, self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        self._due = math.inf
        now, due = self._loop.time(), math.inf
        for pending in self._pending.values():
            if not pending.confirmed.done():
                due = min(due, now + self._left(pending, now))
        if due < math.inf:
            self._look_at(due)

    def _left(self, pending: _Pending, now: float) -> float:
        """Return the seconds after which this wait is to be looked at again; infinite where it has ended."""
        if self._link.blocked:
            pending.since = now
        elif self._link.last_blocked > pending.since:
            pending.since = self._link.last_blocked
        waited, limits = now - pending.since, pending.silence
        others_confirmed = self._confirmed_at > pending.since
        if waited >= limits.among_confirms and (others_confirmed or self._alone):
            return _give_up(pending, Unconfirmed(f"no confirm within {waited:.1f} s"))
        if waited >= limits.alone:
            return _give_up(pending, PublishLost(f"nothing was confirmed on this channel for {waited:.1f} s"))
        step = limits.among_confirms
        due = step if waited < step else min(limits.alone, waited + step / 2)
        return max(due - waited, 0.001)


def _give_up(pending: _Pending, error: BaseException) -> float:
    if not pending.confirmed.done():
        pending.confirmed.set_exception(error)
    return math.inf
