"""How long a confirm is waited for: the time in which the broker takes no messages doesn't count."""

from __future__ import annotations

import asyncio
import math
import random
from typing import cast

import pytest

from tests.simulation.loop import VirtualLoop
from worker.broker.confirms import ConfirmWait, Silence
from worker.broker.link import Link
from worker.contract.errors import BrokerError, PublishLost, Unconfirmed

SILENCE = Silence(among_confirms=3, alone=8)


class BlockedLink:
    """Blocked for some spans of time, which it notices every half second, as a real link does."""

    def __init__(self, loop: VirtualLoop, *spans: tuple[float, float]) -> None:
        self.last_blocked = -math.inf
        self._loop = loop
        self._spans = spans
        self._look()

    @property
    def blocked(self) -> bool:
        return any(start <= self._loop.time() < end for start, end in self._spans)

    def _look(self) -> None:
        if self.blocked:
            self.last_blocked = self._loop.time()
        self._loop.call_later(0.5, self._look)


class Channel:
    """A channel on which other messages are confirmed at some times."""

    def __init__(self, loop: VirtualLoop, *confirms: float) -> None:
        self.confirmed_at = -math.inf
        self.waits: set[ConfirmWait] = set()
        for moment in confirms:
            loop.call_later(moment, self._note, moment)

    def _note(self, moment: float) -> None:
        self.confirmed_at = moment


def ends(
    *,
    blocked: list[tuple[float, float]] | None = None,
    confirms: tuple[float, ...] = (),
    confirmed_after: float = 1000,
    own: bool = False,
    given_up_after: float | None = None,
) -> tuple[float, type[BrokerError] | None]:
    """Return when a wait that begins at 0 ends, and with what."""
    loop = VirtualLoop(random.Random(0), list[str]().append)  # noqa: S311 - no secret
    link = BlockedLink(loop, *blocked or [])
    channel = Channel(loop, *confirms)
    ended: list[tuple[float, type[BrokerError] | None]] = []

    async def wait() -> None:
        try:
            with ConfirmWait(channel, cast(Link, link), SILENCE, has_own_channel=own) as waiting:
                assert channel.waits == {waiting}
                if given_up_after is not None:
                    loop.call_later(given_up_after, waiting.give_up, PublishLost("retired"))
                await asyncio.sleep(confirmed_after)
        except BrokerError as error:
            ended.append((loop.time(), type(error)))
        else:
            ended.append((loop.time(), None))
        assert not channel.waits
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    loop.create_task(wait())
    loop.advance(100)
    loop.close()
    return ended[0]


def test_a_confirm_ends_the_waiting() -> None:
    """A confirm in time is the end, however quiet the channel is."""
    assert ends(confirmed_after=7.9) == (7.9, None)


def test_among_confirms_a_silent_target_is_found_soon() -> None:
    """Where others on the channel are confirmed, only this message's target can be silent."""
    assert ends(confirms=(0.5, 1.0)) == (3, Unconfirmed)
    when, why = ends(confirms=(4.0,))
    assert why is Unconfirmed
    assert 4 <= when <= 5.5


def test_where_nothing_is_confirmed_the_channel_is_left() -> None:
    """Another message may block the channel: this one is to be published on one of its own."""
    assert ends() == (8, PublishLost)


def test_on_a_channel_of_its_own_only_the_target_can_be_silent() -> None:
    """Nothing else is there that could block it."""
    assert ends(own=True) == (3, Unconfirmed)


def test_a_retired_channel_ends_the_waiting() -> None:
    """Whoever retires the channel says why."""
    assert ends(given_up_after=2) == (2, PublishLost)


@pytest.mark.parametrize(
    ("spans", "earliest"),
    [([(0, 9.9)], 17.5), ([(2, 4)], 11.5), ([(5, 35.2)], 43), ([(1, 2), (6, 7)], 14.5)],
    ids=["until just before", "in between", "several times as long", "twice"],
)
def test_the_time_of_an_alarm_does_not_count(spans: list[tuple[float, float]], earliest: float) -> None:
    """The channel is left only after all of the time since the broker was last seen to be blocked."""
    when, why = ends(blocked=spans)
    assert why is PublishLost
    assert earliest <= when <= earliest + 2
