"""Jobs for one account that are in flight at the same time share one exchange."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import cast

import pytest

from tests.lcm_support import START, outcome_of, settled
from worker.errors import Expired, LcmRejected, StaleDelivery
from worker.inquiry import Answer, Inquiry
from worker.lcm.lookup import Share

ANSWER = Answer([("7", "Busy")], START, START, 0.5, session=1, exchange=1)


class Desk:
    """A lookup whose calls the test answers, one by one, in the order in which they came."""

    def __init__(self) -> None:
        self.calls: list[tuple[Inquiry, asyncio.Future[Answer]]] = []

    async def __call__(self, inquiry: Inquiry) -> Answer:
        call: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.calls.append((inquiry, call))
        return await call

    def answer(self, answer: Answer | BaseException = ANSWER) -> None:
        """Answer the newest call."""
        call = self.calls[-1][1]
        if isinstance(answer, Answer):
            call.set_result(answer)
        else:
            call.set_exception(answer)


def asked(share: Share, *inquiries: Inquiry) -> list[asyncio.Task[Answer]]:
    """Ask for each, one right after the other."""
    loop = asyncio.get_running_loop()

    async def ask(inquiry: Inquiry) -> Answer:
        return await share(inquiry)

    return [loop.create_task(ask(inquiry)) for inquiry in inquiries]


async def test_one_exchange_serves_all_who_ask_for_an_account() -> None:
    """Those in flight together share the leader's exchange; other accounts have their own."""
    desk = Desk()
    first, *others = asked(share := Share(desk), *(Inquiry("a") for _ in range(3)))
    [foreign] = asked(share, Inquiry("b"))
    await settled()
    assert [inquiry.account for inquiry, _ in desk.calls] == ["a", "b"]
    desk.calls[0][1].set_result(ANSWER)
    assert (await first).shared is False
    assert [(await other).shared for other in others] == [True, True]
    assert not foreign.done()
    desk.answer()
    await foreign


async def test_nothing_is_kept() -> None:
    """Who asks after the end asks LCM anew."""
    desk = Desk()
    share = Share(desk)
    for _ in range(2):
        [task] = asked(share, Inquiry("a"))
        await settled()
        desk.answer()
        await task
    assert len(desk.calls) == 2


async def test_a_failure_is_shared_as_an_error_of_ones_own() -> None:
    """Each follower gets the same code and words in an exception of its own, and remembers it."""
    desk, inquiries = Desk(), [Inquiry("a") for _ in range(3)]
    tasks = asked(Share(desk), *inquiries)
    await settled()
    desk.answer(LcmRejected("LCM rejected the account", said="unknown"))
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {(type(error), str(error), cast(LcmRejected, error).said) for error in errors} == {
        (LcmRejected, "LCM rejected the account", "unknown")
    }
    assert len({id(error) for error in errors}) == 3
    assert inquiries[1].last_error == "lcm_rejected: LCM rejected the account: unknown"


@pytest.mark.parametrize("why", ["cancelled", Expired("past"), StaleDelivery("gone"), RuntimeError("defect")])
async def test_the_next_one_leads_when_the_leader_leaves(why: str | Exception) -> None:
    """A leader's own reasons to leave are not its followers': one of them asks LCM, for all that are left."""
    desk = Desk()
    leader, *others = asked(Share(desk), *(Inquiry("a") for _ in range(3)))
    await settled()
    if isinstance(why, str):
        leader.cancel()
    else:
        desk.answer(why)
    assert type(await outcome_of(asyncio.wait_for(leader, 1))) is (
        asyncio.CancelledError if isinstance(why, str) else type(why)
    )
    await settled()
    assert len(desk.calls) == 2
    desk.answer()
    assert [(await other).shared for other in others] == [False, True]


async def test_a_follower_that_is_cancelled_changes_nothing() -> None:
    """The leader and the other followers get their answer."""
    desk = Desk()
    leader, gone, other = asked(Share(desk), *(Inquiry("a") for _ in range(3)))
    await settled()
    gone.cancel()
    await settled()
    desk.answer()
    assert (await leader, (await other).shared, gone.cancelled()) == (ANSWER, True, True)


async def test_a_follower_keeps_to_its_own_deadline() -> None:
    """An exchange that began after a job's deadline is no answer to it, nor is one that nobody can use."""
    desk = Desk()
    late = Inquiry("a", deadline=START)
    stale = Inquiry("a", is_wanted=lambda: False)
    in_time = Inquiry("a", deadline=START + timedelta(seconds=1))
    leader, *others = asked(Share(desk), Inquiry("a"), late, stale, in_time)
    await settled()
    desk.answer()
    await leader
    ends = await asyncio.gather(*others, return_exceptions=True)
    assert [type(end) for end in ends] == [Expired, StaleDelivery, Answer]
