"""Jobs for one account that are in flight at the same time share one exchange."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest

from tests.support.lcm import START
from tests.support.lookup import ANSWER
from tests.support.waiting import outcome_of, settled, until
from worker.common.clock import SYSTEM_CLOCK
from worker.contract.errors import Expired, GaveWay, LcmRejected, StaleDelivery
from worker.contract.lookup import LookupRequest, LookupResult
from worker.lcm.places import Places
from worker.lcm.single_flight import SingleFlight

PLACES = Places.unlimited(SYSTEM_CLOCK)


class Desk:
    """A lookup whose calls the test answers, one by one, in the order in which they came."""

    def __init__(self) -> None:
        self.calls: list[tuple[LookupRequest, asyncio.Future[LookupResult]]] = []

    async def __call__(self, request: LookupRequest) -> LookupResult:
        call: asyncio.Future[LookupResult] = asyncio.get_running_loop().create_future()
        self.calls.append((request, call))
        return await call

    def answer(self, answer: LookupResult | BaseException = ANSWER) -> None:
        """Answer the newest call."""
        call = self.calls[-1][1]
        if isinstance(answer, LookupResult):
            call.set_result(answer)
        else:
            call.set_exception(answer)


def asked(share: SingleFlight, *requests: LookupRequest) -> list[asyncio.Task[LookupResult]]:
    """Ask for each, one right after the other."""
    loop = asyncio.get_running_loop()

    async def ask(request: LookupRequest) -> LookupResult:
        return await share(request)

    return [loop.create_task(ask(request)) for request in requests]


async def test_one_exchange_serves_all_who_ask_for_an_account() -> None:
    """Those in flight together share the leader's exchange; other accounts have their own."""
    desk = Desk()
    first, *others = asked(share := SingleFlight(desk, PLACES), *(LookupRequest("a") for _ in range(3)))
    [foreign] = asked(share, LookupRequest("b"))
    await settled()
    assert [request.account for request, _ in desk.calls] == ["a", "b"]
    desk.calls[0][1].set_result(ANSWER)
    assert (await first).shared is False
    assert [(await other).shared for other in others] == [True, True]
    assert not foreign.done()
    desk.answer()
    await foreign


async def test_nothing_is_kept() -> None:
    """Who asks after the end asks LCM anew."""
    desk = Desk()
    share = SingleFlight(desk, PLACES)
    for _ in range(2):
        [task] = asked(share, LookupRequest("a"))
        await settled()
        desk.answer()
        await task
    assert len(desk.calls) == 2


async def test_a_failure_is_shared_as_an_error_of_ones_own() -> None:
    """Each follower gets the same code and words in an exception of its own, and remembers it."""
    desk, requests = Desk(), [LookupRequest("a") for _ in range(3)]
    tasks = asked(SingleFlight(desk, PLACES), *requests)
    await settled()
    desk.answer(LcmRejected("LCM rejected the account", remote_message="unknown"))
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {(type(error), str(error), cast(LcmRejected, error).remote_message) for error in errors} == {
        (LcmRejected, "LCM rejected the account", "unknown")
    }
    assert len({id(error) for error in errors}) == 3
    assert requests[1].last_error == "lcm_rejected: LCM rejected the account: unknown"


@pytest.mark.parametrize("why", ["cancelled", Expired("past"), StaleDelivery("gone"), RuntimeError("defect")])
async def test_the_next_one_leads_when_the_leader_leaves(why: str | Exception) -> None:
    """A leader's own reasons to leave are not its followers': one of them asks LCM, for all that are left."""
    desk = Desk()
    leader, *others = asked(SingleFlight(desk, PLACES), *(LookupRequest("a") for _ in range(3)))
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
    leader, gone, other = asked(SingleFlight(desk, PLACES), *(LookupRequest("a") for _ in range(3)))
    await settled()
    gone.cancel()
    await settled()
    desk.answer()
    assert (await leader, (await other).shared, gone.cancelled()) == (ANSWER, True, True)


async def test_a_follower_keeps_to_its_own_deadline() -> None:
    """An exchange that began after a job's deadline is no answer to it, nor is one that nobody can use."""
    desk = Desk()
    late = LookupRequest("a", deadline=START)
    stale = LookupRequest("a", is_wanted=lambda: False)
    in_time = LookupRequest("a", deadline=START + timedelta(seconds=1))
    leader, *others = asked(SingleFlight(desk, PLACES), LookupRequest("a"), late, stale, in_time)
    await settled()
    desk.answer()
    await leader
    ends = await asyncio.gather(*others, return_exceptions=True)
    assert [type(end) for end in ends] == [Expired, StaleDelivery, LookupResult]


async def long_under_way(
    monkeypatch: pytest.MonkeyPatch, followers: int
) -> tuple[Desk, SingleFlight, list[Any]]:
    """Return a flight that has taken long, with places for two stuck lookups, and its tasks, the leader's first."""
    monkeypatch.setattr("worker.lcm.single_flight.STUCK_AFTER", 0.0)
    desk = Desk()
    share = SingleFlight(desk, Places(16, 5, SYSTEM_CLOCK))
    leader = LookupRequest("a")
    tasks = asked(share, leader, *(LookupRequest("a") for _ in range(followers)))
    await settled()
    leader.exchanges += 1
    await until(lambda: sum(task.done() for task in tasks) >= followers - 2)
    return desk, share, tasks


async def test_who_waits_for_long_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the exchange has taken long, an eighth of the places is kept, and the other followers are deferred."""
    desk, _, (leader, *others) = await long_under_way(monkeypatch, 6)
    assert [task.done() for task in others] == [False] * 2 + [True] * 4
    assert {type(task.exception()) for task in others[2:]} == {GaveWay}
    desk.answer()
    assert [(await task).shared for task in (leader, *others[:2])] == [False, True, True]


async def test_who_joins_late_gives_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flight that is stuck takes as many followers as there are places for it; one that left makes room."""
    desk, share, (_, first, *_) = await long_under_way(monkeypatch, 2)
    [late] = asked(share, LookupRequest("a"))
    assert isinstance(await outcome_of(late), GaveWay)
    first.cancel()
    await settled()
    [later] = asked(share, LookupRequest("a"))
    await settled()
    desk.answer()
    assert (await later).shared


async def test_who_waits_for_a_session_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the leader has no session yet, nothing is known of the account, and all followers stay."""
    monkeypatch.setattr("worker.lcm.single_flight.STUCK_AFTER", 0.0)
    desk = Desk()
    tasks = asked(SingleFlight(desk, Places(16, 5, SYSTEM_CLOCK)), *(LookupRequest("a") for _ in range(9)))
    for _ in range(10):
        await settled()
    assert not any(task.done() for task in tasks)
    desk.answer()
    await asyncio.gather(*tasks)
