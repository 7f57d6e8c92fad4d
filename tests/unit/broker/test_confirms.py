"""How long a confirm is waited for: the time in which the broker takes no messages doesn't count."""

from __future__ import annotations

import math
import random
import struct

import pytest
from aiormq import spec
from pamqp.header import ContentHeader

from tests.simulation.loop import VirtualLoop
from worker.broker.confirms import Confirms, Silence
from worker.broker.frames import ACK, NACK, RETURN
from worker.contract.errors import BrokerError, PublishLost, PublishRefused, Unconfirmed, Unroutable
from worker.contract.message import Message, Properties

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


def message(message_id: str) -> Message:
    return Message("results", "result.succeeded", b"{}", Properties(message_id=message_id))


def ack(tag: int, *, multiple: bool = False) -> bytes:
    return ACK + struct.pack(">Q?", tag, multiple)


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
    ended: list[tuple[float, type[BrokerError] | None]] = []

    async def wait() -> None:
        table = Confirms(link, alone=own)
        for tag, moment in enumerate(confirms, start=1):
            table.expect(message(f"other-{tag}"), Silence(1000, 1000))
            loop.call_later(moment, table.take, ack(tag))
        confirmed = table.expect(message("m"), SILENCE)
        loop.call_later(confirmed_after, table.take, ack(len(confirms) + 1))
        if given_up_after is not None:
            loop.call_later(given_up_after, table.fail, lambda: PublishLost("retired"))
        try:
            await confirmed
        except BrokerError as error:
            ended.append((loop.time(), type(error)))
        else:
            ended.append((loop.time(), None))

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


def returned(message_id: str) -> tuple[bytes, ContentHeader]:
    """Return the frames by which a broker returns a message."""
    payload = RETURN + struct.pack(">H", 312) + b"\x08NO_ROUTE\x07results\x06result"
    return payload, ContentHeader(properties=spec.Basic.Properties(message_id=message_id))


def give(table: Confirms, message_id: str) -> None:
    """Give a table the frames of a returned message."""
    payload, header = returned(message_id)
    content = table.take(payload)
    assert callable(content)
    content(header, b"{}")


async def test_a_confirm_counts_for_its_tag_alone() -> None:
    """A late confirm of a message that was returned does not stand for the same message, published again."""
    table = Confirms(Free(), alone=False)
    first = table.expect(message("m"), SILENCE)
    give(table, "m")
    with pytest.raises(Unroutable):
        await first
    assert "m" in table  # no second one may be published here before the first is settled
    assert table.take(ack(1))
    assert "m" not in table
    again = table.expect(message("m"), SILENCE)
    assert table.take(ack(1))
    assert not again.done()
    assert table.take(ack(2))
    await again


async def test_a_confirm_for_several_messages_is_one_for_each() -> None:
    """`multiple` stands for all tags up to its own, and for none beyond."""
    table = Confirms(Free(), alone=False)
    waits = [table.expect(message(f"m-{number}"), SILENCE) for number in range(4)]
    assert table.take(ack(3, multiple=True))
    assert [wait.done() for wait in waits] == [True, True, True, False]
    table.fail(lambda: PublishLost("closed"))
    with pytest.raises(PublishLost):
        await waits[3]


async def test_a_refusal_is_told() -> None:
    """basic.nack is no confirm."""
    table = Confirms(Free(), alone=False)
    wait = table.expect(message("m"), SILENCE)
    assert table.take(NACK + struct.pack(">QB", 1, 0))
    with pytest.raises(PublishRefused):
        await wait


async def test_a_message_that_nobody_awaits_any_more_is_settled_all_the_same() -> None:
    """The task of a job may be cancelled between publish and confirm."""
    table = Confirms(Free(), alone=False)
    table.expect(message("m"), SILENCE).cancel()
    give(table, "m")
    assert table.take(ack(1))
    assert "m" not in table


async def test_other_frames_are_left_to_the_library() -> None:
    """What is no confirm and returns nothing is not taken; a message that nobody knows is no matter."""
    table = Confirms(Free(), alone=False)
    assert table.take(b"\x00\x55\x00\x0b") is False  # confirm.select-ok
    give(table, "unknown")
    assert table.take(ack(7))


class Free:
    """A link that was never blocked."""

    blocked = False
    last_blocked = -math.inf
