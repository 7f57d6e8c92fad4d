"""Acks are held back until nothing is in transit, and one ack for many never covers what is not settled yet."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.loop import VirtualLoop
from tests.support.waiting import settled
from worker.broker.ack_gate import AckGate
from worker.broker.acks import Acks
from worker.contract.disposition import Settle


class Told(Acks):
    """A channel's acks, which note what they are told: tag, how, and whether all before it are meant as well."""

    def __init__(self) -> None:
        self.all: list[tuple[int, Settle, bool]] = []

    def settle(self, tag: int, settle: Settle, *, multiple: bool = False) -> None:
        self.all.append((tag, settle, multiple))


def gate_of(prefetch: int) -> tuple[AckGate, Told]:
    """Return the gate of a new channel, and what the broker is told on that."""
    gate, told = AckGate(prefetch), Told()
    gate.restart(told)
    return gate, told


async def none_wait() -> int:
    return 0


def held_for(*arrivals: float, prefetch: int = 4, waiting: Callable[[], Awaitable[int]] = none_wait) -> float:
    """Return how long `hold` takes where deliveries arrive at these times."""
    loop = VirtualLoop(random.Random(0), list[str]().append)  # noqa: S311 - no secret
    gate = AckGate(prefetch)
    ended: list[float] = []

    async def hold() -> None:
        await gate.hold(waiting)
        ended.append(loop.time())

    for tag, moment in enumerate(arrivals, start=1):
        loop.call_later(moment, gate.arrived, tag)
    loop.create_task(hold())
    loop.advance(10)
    loop.close()
    return round(ended[0], 3)


def test_a_full_prefetch_is_still_at_once() -> None:
    """The broker assigns nothing more once as many are unacknowledged as it may."""
    assert held_for(0.0, 0.01, 0.02, 0.03) == 0.03


def test_a_quiet_moment_is_enough_below_that() -> None:
    """Where nothing has come for 100 ms, the queue has nothing to assign."""
    assert held_for() == 0.1
    assert held_for(0.05, 0.12) == 0.22


def test_a_broker_that_is_merely_slow_is_waited_for() -> None:
    """Quiet as it is, it says that jobs wait, which it is about to assign."""
    answers = iter([7, 3, 0])

    async def waiting() -> int:
        return next(answers)

    assert held_for(0.15, 0.25, waiting=waiting) == 0.45
    answers = iter([7] * 20)
    assert held_for(0.15, 0.25, 0.95, 1.0, waiting=waiting) == 1.0


async def test_only_what_the_consumer_brought_fills_its_prefetch() -> None:
    """Pitfall: the prefetch is each consumer's own. What an earlier one has in hand takes none of the present one's."""
    gate, told = gate_of(2)
    gate.arrived(1)
    gate.begin()
    gate.arrived(2, alone=True)
    gate.arrived(3)
    holding = asyncio.ensure_future(gate.hold(some_wait))
    await settled()
    assert not holding.done()
    gate.arrived(4)
    await holding
    for tag in (1, 2, 3, 4):
        gate.settle(told, tag, Settle.ACK)
    assert told.all == []
    gate.release()
    assert told.all == [(4, Settle.ACK, True)]


async def some_wait() -> int:
    return 5


def test_it_takes_no_longer_than_five_seconds() -> None:
    """Neither a slow trickle nor a job that is never assigned keeps a worker from pausing."""

    async def waiting() -> int:
        return 1

    assert held_for(*(0.09 * n for n in range(1, 100)), prefetch=1000) == 5.0
    assert held_for(waiting=waiting) == 5.0


async def test_nothing_is_held_back_before_and_after() -> None:
    """Only what is settled while it holds waits for the release."""
    gate, told = gate_of(2)
    gate.arrived(1)
    gate.arrived(2)
    gate.settle(told, 1, Settle.ACK)
    gate.arrived(3)
    await gate.hold(none_wait)
    gate.settle(told, 3, Settle.ACK)
    assert told.all == [(1, Settle.ACK, False)]
    gate.release()
    gate.settle(told, 2, Settle.ACK)
    gate.release()
    assert told.all == [(tag, Settle.ACK, False) for tag in (1, 3, 2)]


async def test_a_new_channel_is_not_held_and_what_it_brings_is_settled_on_it() -> None:
    """A connection lost and made anew within a hold: what was held back is void, and nothing new stays unsettled."""
    gate, told = gate_of(4)
    gate.arrived(1)
    holding = asyncio.ensure_future(gate.hold(some_wait))
    await settled()
    gate.settle(told, 1, Settle.ACK)
    anew = Told()
    gate.restart(anew)
    gate.arrived(1)
    gate.settle(anew, 1, Settle.DEAD_LETTER)
    gate.settle(told, 2, Settle.ACK)
    await holding
    gate.release()
    assert (told.all, anew.all) == ([(2, Settle.ACK, False)], [(1, Settle.DEAD_LETTER, False)])


@given(st.lists(st.sampled_from([None, Settle.ACK, Settle.DEAD_LETTER]), max_size=12), st.integers(0, 12))
def test_one_ack_for_many_covers_nothing_else(ends: list[Settle | None], settled_before: int) -> None:
    """However they ended, each held delivery is settled exactly once, in its own way, and no other is."""

    async def settled() -> dict[int, Settle]:
        gate, told = gate_of(1)
        for tag in range(1, len(ends) + 1):
            gate.arrived(tag)
        still_open = set(range(settled_before + 1, len(ends) + 1))
        for tag in range(1, min(settled_before, len(ends)) + 1):
            gate.settle(told, tag, Settle.ACK)
        if ends:
            gate.arrived(len(ends) + 1)  # full, so that it holds at once
            still_open.add(len(ends) + 1)
        await gate.hold(none_wait)
        for tag, settle in enumerate(ends, start=1):
            if settle is not None and tag > settled_before:
                gate.settle(told, tag, settle)
        found: dict[int, Settle] = {}
        told.all.clear()
        gate.release()
        for tag, settle, multiple in told.all:
            covered = {each for each in still_open - found.keys() if each <= tag} if multiple else {tag}
            assert not covered & found.keys()
            found |= dict.fromkeys(covered, settle)
        return found

    expected = {
        tag: settle for tag, settle in enumerate(ends, start=1) if settle is not None and tag > settled_before
    }
    assert asyncio.run(settled()) == expected
