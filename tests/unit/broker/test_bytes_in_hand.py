"""Reading stops above the limit, and goes on below it or after 15 s."""

from __future__ import annotations

import random
from contextlib import closing

from tests.simulation.loop import VirtualLoop
from worker.broker.bytes_in_hand import BytesInHand, limit_for


def test_reading_stops_above_the_limit_and_goes_on_within_it() -> None:
    """It is counted by bytes, whatever the number of deliveries."""
    told: list[bool] = []
    with closing(new_loop()) as loop:
        in_hand = BytesInHand(told.append, 100)
        loop.call_soon(in_hand.took, 60)
        loop.call_soon(in_hand.took, 40)
        loop.advance(1)
        assert told == []
        loop.call_soon(in_hand.took, 1)
        loop.advance(2)
        assert told == [False]
        loop.call_soon(in_hand.left, 1)
        loop.advance(3)
        assert told == [False, True]


def test_one_more_is_read_after_fifteen_seconds() -> None:
    """Else heartbeats would go unread, and the connection be given up."""
    told: list[bool] = []
    with closing(new_loop()) as loop:
        in_hand = BytesInHand(told.append, 100)
        loop.call_soon(in_hand.took, 200)
        loop.advance(14.9)
        assert told == [False]
        loop.advance(16)
        assert told == [False, True]
        loop.call_soon(in_hand.took, 200)
        loop.advance(30.9)
        assert told == [False, True, False]
        loop.call_soon(in_hand.left, 200)
        loop.call_soon(in_hand.left, 200)
        loop.advance(60)
        assert told == [False, True, False, True]


def test_a_connection_that_was_made_anew_is_told_as_well() -> None:
    """It reads, until the next delivery over the limit arrives on it."""
    told: list[bool] = []
    with closing(new_loop()) as loop:
        in_hand = BytesInHand(told.append, 100)
        loop.call_soon(in_hand.took, 200)
        loop.call_soon(in_hand.took, 200)
        loop.advance(1)
        assert told == [False, False]


def test_who_waits_goes_on_within_the_limit_or_after_five_seconds() -> None:
    """A pause of the intake waits for what is over the limit, not for ever."""
    with closing(new_loop()) as loop:
        in_hand = BytesInHand(bool, 100)
        ended: list[float] = []

        async def wait() -> None:
            await in_hand.settled()
            ended.append(loop.time())

        loop.create_task(wait())
        loop.advance(1)
        assert ended == [0.0]
        loop.call_soon(in_hand.took, 200)
        loop.advance(2)
        loop.create_task(wait())
        loop.call_later(3, in_hand.left, 200)
        loop.advance(10)
        assert ended == [0.0, 5.0]
        loop.call_soon(in_hand.took, 200)
        loop.advance(11)
        loop.create_task(wait())
        loop.advance(20)
        assert ended == [0.0, 5.0, 16.0]


def test_jobs_of_the_accepted_size_never_stop_the_reading() -> None:
    """They wait for LCM, so they may be in hand for long."""
    assert limit_for(64) == 8 * 2**20
    assert limit_for(65_535) == 65_535 * 65_536


def new_loop() -> VirtualLoop:
    return VirtualLoop(random.Random(0), list[str]().append)  # noqa: S311 - no secret
