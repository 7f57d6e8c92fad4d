"""Who gets which session, when another is opened, and how the pool waits while LCM is away."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from tests.support.lcm_bench import Bench, Scripted
from tests.support.waiting import settled
from worker.contract.errors import SessionNotOpened
from worker.lcm.session import Session


async def test_its_repr_tells_its_state() -> None:
    """The repr counts sessions in use, idle and opening, and who waits."""
    bench = Bench(sessions=6)
    sessions = [await bench.session() for _ in range(4)]
    bench.used(sessions[0])
    waiting = [bench.acquire(fresh=True) for _ in range(5)]
    await settled()
    assert repr(bench.pool) == "<Pool 3 busy, 1 idle, 2 opening, 5 waiting>"
    await bench.pool.close()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_sessions_are_opened_as_they_are_needed() -> None:
    """No session is opened before someone asks, and no more of them than ask."""
    bench = Bench(sessions=4)
    assert (bench.openings, repr(bench.pool)) == ([], "<Pool 0 busy, 0 idle, 0 opening, 0 waiting>")
    asked = [bench.acquire() for _ in range(2)]
    await settled()
    assert [slot for slot, _, _ in bench.openings] == [1, 2]
    assert [(await bench.opened()).slot for _ in asked] == [1, 2]
    assert [(await task).slot for task in asked] == [1, 2]


async def test_the_session_used_last_is_used_next() -> None:
    """Of several idle sessions the one used last is the least likely to have been cut meanwhile."""
    bench = Bench(sessions=2)
    first, second = await bench.session(), await bench.session()
    bench.used(second)
    bench.used(first)
    assert await bench.acquire() is first
    assert await bench.acquire() is second


async def test_whoever_waits_longest_is_served_first() -> None:
    """A session given back goes to the first in the queue, past whom nobody gets."""
    bench = Bench(sessions=1)
    session = await bench.session()
    waiting = [bench.acquire() for _ in range(3)]
    await settled()
    served = []
    for _ in waiting:
        bench.used(session)
        late = bench.acquire()
        await settled()
        served.append([task.done() for task in waiting])
        late.cancel()
    assert served == [[True, False, False], [True, True, False], [True, True, True]]


async def test_a_fresh_session_is_one_without_exchanges() -> None:
    """Who asks for a fresh session is not given a used one, and is given an unused one before all others."""
    bench = Bench(sessions=2)
    used = await bench.session()
    bench.used(used)
    fresh = bench.acquire(fresh=True)
    await settled()
    assert not fresh.done()
    assert await bench.acquire() is used
    any_will_do = bench.acquire()
    opened = await bench.opened()
    assert await fresh is opened
    assert not any_will_do.done()
    any_will_do.cancel()


async def test_who_needs_a_fresh_session_is_not_starved_by_a_full_pool() -> None:
    """With every place taken by a used session, one that lies idle is closed to make room for a fresh one."""
    bench = Bench(sessions=2)
    busy, idle = await bench.session(), await bench.session()
    fresh = [bench.acquire(fresh=True) for _ in range(2)]
    await settled()
    assert bench.openings == []
    bench.used(idle)
    assert await bench.opened() is await fresh[0]
    bench.used(busy)
    assert await bench.opened() is await fresh[1]
    assert (idle.ended_by_us, busy.ended_by_us, bench.sleeps) == (True, True, [])


async def test_a_session_that_has_ended_is_never_given_out() -> None:
    """Whether it ends in use or while idle, its place is free for another one, and it is gone."""
    bench = Bench(sessions=1)
    in_use = await bench.session()
    in_use.abort("timed out")
    bench.release(in_use)
    idle = await bench.session()
    assert idle is not in_use
    bench.used(idle)
    idle.abort("cut by a load balancer")
    assert repr(bench.pool) == "<Pool 0 busy, 0 idle, 0 opening, 0 waiting>"
    assert await bench.session() is not idle
    assert bench.log.of("lcm.session_closed")[0] == {
        "session": 1,
        "reason": "timed out",
        "exchanges": 0,
        "unasked": 0,
    }


async def test_a_waiter_that_is_cancelled_leaves_no_trace() -> None:
    """The opening that was started for it gives a session that the next one gets."""
    bench = Bench(sessions=1)
    gone, next_one = bench.acquire(), bench.acquire()
    await settled()
    gone.cancel()
    opened = await bench.opened()
    assert await next_one is opened
    assert repr(bench.pool) == "<Pool 1 busy, 0 idle, 0 opening, 0 waiting>"


async def test_a_waiter_cancelled_while_it_is_given_a_session_passes_it_on() -> None:
    """Assigned and cancelled in the same turn of the loop: the session goes to the next, and is not lost."""
    bench = Bench(sessions=1)
    session = await bench.session()
    gone, next_one = bench.acquire(), bench.acquire()
    await settled()
    bench.used(session)
    gone.cancel()
    assert await next_one is session
    assert gone.cancelled()
    bench.used(session)
    assert repr(bench.pool) == "<Pool 0 busy, 1 idle, 0 opening, 0 waiting>"


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_session_is_replaced_after_its_last_exchange(limit: int) -> None:
    """With `max_exchanges` a session is closed once it has made so many, and is not counted as a failure."""
    bench = Bench(sessions=1, max_exchanges=limit)
    session = await bench.session()
    for _ in range(limit - 1):
        bench.used(session)
        assert await bench.acquire() is session
    bench.used(session)
    replaced = await bench.session()
    assert replaced is not session
    assert (session.ended_by_us, bench.sleeps) == (True, [])


async def test_a_place_is_free_only_once_its_session_is_closed() -> None:
    """LCM counts connections as well: while one says goodbye there is not one more than allowed."""
    bench = Bench(sessions=1, max_exchanges=1)
    session = await bench.session()
    waiting = bench.acquire()
    await settled()
    bench.used(session)
    assert bench.openings == []
    opened = await bench.opened()
    assert await waiting is opened


async def test_closing_ends_everything() -> None:
    """Waiters are cancelled, openings given up, sessions in use aborted and idle ones closed; no task is left."""
    bench = Bench(sessions=3)
    busy, idle = await bench.session(), await bench.session()
    bench.used(idle)
    waiting = [bench.acquire(fresh=True) for _ in range(2)]
    await settled()
    await bench.pool.close()
    assert (busy.reason, idle.reason) == ("the worker stops", "closed by us")
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    bench.release(busy)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("lcm-")]
    assert repr(bench.pool) == "<Pool 0 busy, 0 idle, 0 opening, 0 waiting>"


async def test_failed_openings_are_paced_one_at_a_time() -> None:
    """Pitfall `accept-then-close made 1,625 connections in 2 s`: openings that fail wait, doubling, one by one."""
    bench = Bench(sessions=3)
    waiting = [bench.acquire() for _ in range(3)]
    await settled()
    assert len(bench.openings) == 3
    for _ in range(3):
        await bench.failed()
    for _ in range(4):
        assert repr(bench.pool) == "<Pool 0 busy, 0 idle, 1 opening, 3 waiting>"
        await bench.failed()
    assert bench.sleeps == [1, 2, 4, 8, 16]
    # The three that failed together are one.
    assert len(bench.away) == 5
    await bench.pool.close()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_refusal_waits_the_longest() -> None:
    """After a 401 or a wrong certificate the longest delay comes first, and the log says it as an error."""
    bench = Bench(sessions=1)
    asked = bench.acquire()
    await bench.failed(SessionNotOpened("HTTP 401", refused=True))
    assert bench.sleeps == [30]
    assert ("error", "lcm.session_failed", {"error": "HTTP 401", "waiting": 1}) in bench.log.lines
    await bench.opened()
    await asked


async def test_a_pause_that_lcm_asks_for_is_kept() -> None:
    """With `Retry-After` the next opening waits for as long, whatever the backoff says."""
    bench = Bench(sessions=1)
    asked = bench.acquire()
    await bench.failed(SessionNotOpened("HTTP 503", pause=120))
    await bench.opened()
    await asked
    assert bench.sleeps == [121]


async def test_only_a_good_exchange_ends_the_pacing() -> None:
    """A session that opens and is closed without an answer is a failure like any other."""
    bench = Bench(sessions=1)
    for _ in range(3):
        session = await bench.session()
        session.exchanges += 1
        session.abort("closed by LCM")
        bench.release(session)
    assert bench.sleeps == [1, 2]
    session = await bench.session()
    bench.used(session)
    session.abort("cut")
    await bench.session()
    assert bench.sleeps == [1, 2, 4]


async def test_lcm_is_away_when_no_session_is_left() -> None:
    """A failed opening says that LCM is away only where no session is there; a good exchange ends the pacing."""
    bench = Bench(sessions=2)
    first = await bench.session()
    asked = bench.acquire()
    await bench.failed()
    assert bench.away == []
    first.abort("cut")
    bench.release(first)
    await bench.failed()
    await bench.failed()
    assert [str(error) for error in bench.away] == ["not there"] * 2
    session = await bench.opened()
    assert await asked is session
    assert bench.pool.backing_off
    bench.used(session)
    assert not bench.pool.backing_off


async def test_a_closed_port_is_tried_soon_and_told_ever_less_often() -> None:
    """Where nobody listens the pause stays the first, and the log is not flooded."""
    bench = Bench(sessions=1)
    asked = bench.acquire()
    for _ in range(40):
        await bench.failed(SessionNotOpened("nobody", nobody_listens=True))
    await bench.failed(SessionNotOpened("HTTP 503"))
    assert bench.sleeps == [1] * 41
    told = [line["error"] for line in bench.log.of("lcm.session_failed")]
    assert told == ["nobody"] * 6 + ["HTTP 503"]
    assert len(bench.away) == 41
    await bench.opened()
    await asked


async def test_a_defect_in_opening_is_paced_like_a_failure() -> None:
    """An error that nobody foresaw neither loses the waiters nor is repeated without a pause."""
    bench = Bench(sessions=1)
    asked = bench.acquire()
    await bench.failed(RuntimeError("unforeseen"))
    assert bench.sleeps == [1]
    assert bench.log.of("lcm.session_failed") == [
        {"error": "a defect of the worker: RuntimeError", "waiting": 1}
    ]
    opened = await bench.opened()
    assert await asked is opened


async def test_a_look_opens_a_session_where_there_is_none() -> None:
    """It shows whether LCM is in reach. Where a session tells that already nothing is opened."""
    bench = Bench(sessions=2)
    looking = asyncio.ensure_future(bench.pool.ensure_session())
    await bench.failed()
    assert len(bench.away) == 1
    await bench.opened()
    await looking
    assert repr(bench.pool) == "<Pool 0 busy, 1 idle, 0 opening, 0 waiting>"
    await bench.pool.ensure_session()
    assert len(bench.openings) == 0


async def test_a_look_that_lcm_cuts_does_not_slow_down_the_next_job() -> None:
    """What lies idle may be cut by a load balancer again and again; the next session is opened without a pause."""
    bench = Bench(sessions=1)
    for _ in range(3):
        looking = asyncio.ensure_future(bench.pool.ensure_session())
        session = await bench.opened()
        await looking
        session.abort("cut")
    await bench.session()
    assert bench.sleeps == []


async def test_lcm_that_ends_every_session_at_once_is_away() -> None:
    """Accepted, then closed by a refusal, without a request: an opening that failed, told and paced as a 401."""
    bench = Bench(sessions=1)
    probing = asyncio.ensure_future(bench.pool.probe())
    session = await bench.opened(lasts=False)
    assert (bench.away, bench.log.of("lcm.session_opened")) == ([], [])
    session.refuse("closed by LCM with code 4401 (unauthorized): token expired")
    assert not await probing
    assert [str(error) for error in bench.away] == [
        "closed by LCM with code 4401 (unauthorized): token expired"
    ]
    assert ("error", "lcm.session_failed") in [line[:2] for line in bench.log.lines]
    asked = bench.acquire()
    await bench.opened()
    await asked
    assert bench.sleeps == [30]


async def test_the_first_request_waits_for_nothing() -> None:
    """While all is well a session is given out as soon as it is open; its opening has succeeded with the answer."""
    bench = Bench(sessions=1)
    asked = bench.acquire()
    session = await bench.opened(lasts=False)
    assert (await asked, bench.told) == (session, 0)
    bench.used(session)
    await settled()
    assert (bench.told, len(bench.log.of("lcm.session_opened"))) == (1, 1)


async def test_a_session_that_ends_over_its_first_request_leaves_a_doubt() -> None:
    """The request, or what we are? The next session tells: it is given out only once it has lasted."""
    bench = Bench(sessions=1)
    asked = bench.acquire()
    session = await bench.opened(lasts=False)
    (await asked).exchanges += 1
    session.refuse("policy violation")
    assert bench.away == []
    asked = bench.acquire()
    tried = await bench.opened(lasts=False)
    assert not asked.done()
    tried.refuse("policy violation")
    await settled()
    assert len(bench.away) == 1
    lasting = await bench.opened(lasts=False)
    assert not asked.done()
    lasting.last()
    assert await asked is lasting
    lasting.abort("cut")
    bench.release(lasting)
    asked = bench.acquire()
    assert await bench.opened(lasts=False) is await asked


async def test_closing_ends_a_trial() -> None:
    """A session that nobody was given yet is ended with the pool, and leaves no task."""
    bench = Bench(sessions=1)
    asked = bench.acquire()
    await bench.failed()
    tried = await bench.opened(lasts=False)
    await bench.pool.close()
    assert (tried.reason, asked.cancelled()) == ("the worker stops", True)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("lcm-")]
    assert repr(bench.pool) == "<Pool 0 busy, 0 idle, 0 opening, 0 waiting>"


FULL = SessionNotOpened("HTTP 503", full=True)


async def test_a_full_lcm_is_not_away_and_is_tried_for_more_one_at_a_time() -> None:
    """Openings that fail for want of room while others succeed leave those at work; answers on them hasten nothing."""
    bench = Bench(sessions=8)
    asked = [bench.acquire() for _ in range(12)]
    await settled()
    # Those that come first may be heard of last.
    bench.openings.reverse()
    for _ in range(5):
        await bench.failed(FULL)
    # One more is tried, beside the three that are under way.
    more = bench.openings.pop()
    sessions = [await bench.opened() for _ in range(3)]
    bench.openings.append(more)
    for _ in range(3):
        for session in sessions:
            bench.used(session)
            await settled()
        assert repr(bench.pool).startswith("<Pool 3 busy, 0 idle, 1 opening,")
        if len(bench.sleeps) < 3:
            await bench.failed(FULL)
    assert (bench.away, bench.sleeps, bench.pool.backing_off) == ([], [1, 2, 4], False)
    assert [(line["open"], line["wanted"]) for line in bench.log.of("lcm.session_failed")] == [(0, 8), (3, 8)]
    await bench.pool.close()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_room_is_there_once_lcm_has_answered_on_one_session_more() -> None:
    """Each answer on a session beyond the room has the next one tried at once, alone and given out once it lasts."""
    bench = Bench(sessions=4)
    first = await bench.session()
    asked = [bench.acquire() for _ in range(6)]
    await settled()
    for _ in range(3):
        await bench.failed(FULL)
    for number in range(3):
        assert len(bench.openings) == 1
        session = await bench.opened(lasts=False)
        assert sum(task.done() for task in asked) == number
        session.last()
        await settled()
        assert sum(task.done() for task in asked) == number + 1
        if number < 2:
            session.exchange()
            bench.release(session)
            await settled()
            taken = next(task for task in asked if task.done())
            asked.remove(taken)
    assert (bench.sleeps, bench.away) == ([1], [])
    bench.used(first)
    await bench.pool.close()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_a_place_of_ours_is_taken_again_at_once_where_lcm_is_full() -> None:
    """A session that ends is replaced without a pause, though one more waits for its turn."""
    bench = Bench(sessions=3, max_exchanges=1)
    first, second = await bench.session(), await bench.session()
    asked = [bench.acquire() for _ in range(3)]
    await settled()
    asleep = bench.sleeping()
    await bench.failed(SessionNotOpened("HTTP 503", full=True, pause=60))
    bench.used(first)
    replaced = await bench.opened()
    assert await asked[0] is replaced
    assert (bench.sleeps, bench.openings) == ([61], [])
    # All that were open are cut: those are opened anew as well, whoever waits for one more.
    for session in (second, replaced):
        session.exchange()
        session.abort("cut")
        bench.release(session)
    await settled()
    assert (len(bench.openings), bench.away) == (2, [])
    asleep.set_result(None)
    await bench.pool.close()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_who_needs_a_fresh_session_gets_one_of_a_full_lcm() -> None:
    """Where there is no room for one more, an idle session is closed for it."""
    bench = Bench(sessions=3)
    idle = await bench.session()
    asked = bench.acquire()
    await settled()
    asleep = bench.sleeping()
    await bench.failed(FULL)
    bench.used(idle)
    assert await asked is idle
    fresh = bench.acquire(fresh=True)
    await settled()
    assert bench.openings == []
    bench.used(idle)
    assert await bench.opened() is await fresh
    assert idle.ended_by_us
    asleep.set_result(None)
    await bench.pool.close()


async def test_lcm_that_refuses_every_session_is_away_though_it_says_that_it_is_full() -> None:
    """With none of ours open it is an outage, told once, and what was known of its room is forgotten."""
    bench = Bench(sessions=3)
    asked = [bench.acquire() for _ in range(3)]
    await settled()
    asleep = bench.sleeping()
    for _ in range(3):
        await bench.failed(FULL)
    assert len(bench.away) == 1
    # The one more that waits for its turn is not tried beside the one that probes.
    asleep.set_result(None)
    await settled()
    assert (bench.pool.backing_off, len(bench.openings)) == (True, 1)
    session = await bench.opened()
    assert session is await asked[0]
    bench.used(session)
    await settled()
    assert len(bench.openings) == 1
    await bench.pool.close()
    await asyncio.gather(*asked, return_exceptions=True)


async def refused_once(bench: Bench) -> tuple[Scripted, asyncio.Future[None], list[asyncio.Task[Scripted]]]:
    """Have LCM refuse one session more than one; return that, the pause before the next try, and who waits."""
    session = await bench.session()
    asked = [bench.acquire() for _ in range(2)]
    await settled()
    asleep = bench.sleeping()
    for _ in asked:
        await bench.failed(FULL)
    await settled()
    return session, asleep, asked


async def test_room_that_was_refused_over_an_account_is_there() -> None:
    """Told that LCM is not full, the pool opens as many sessions as are needed, at once."""
    bench = Bench(sessions=4)
    _, asleep, asked = await refused_once(bench)
    assert bench.openings == []
    bench.pool.not_full()
    asked.append(bench.acquire())
    await settled()
    assert len(bench.openings) == 2
    asleep.set_result(None)
    await bench.pool.close()
    await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize(("limit", "proves"), [(0, True), (1, False), (2, True)])
async def test_a_session_may_prove_room_where_it_takes_two_exchanges(limit: int, proves: bool) -> None:
    """Not where `max_exchanges` is 1, and not once LCM has answered on it."""
    bench = Bench(sessions=1, max_exchanges=limit)
    session = await bench.session()
    assert bench.pool.may_prove(cast(Session, session)) == proves
    session.exchange()
    assert not bench.pool.may_prove(cast(Session, session))


async def test_lcm_that_is_full_for_the_only_session_has_the_room_it_had() -> None:
    """With none of ours beside it what was known of its room is forgotten; good exchanges open more at once."""
    bench = Bench(sessions=3)
    session, asleep, asked = await refused_once(bench)
    asked.append(bench.acquire())
    session.exchange()
    bench.release(session)
    session.abort("cut")
    last = await bench.opened()
    last.exchanges, last.not_opened = 1, FULL
    last.abort("full")
    bench.release(last)
    asleep.set_result(None)
    await settled()
    again = await bench.opened()
    again.last()
    await settled()
    again.exchange()
    bench.pool.answered_on(cast(Session, again))
    asked += [bench.acquire() for _ in range(2)]
    await settled()
    assert len(bench.openings) == 2
    await bench.pool.close()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_none_beyond_the_room_is_opened_while_lcm_ends_sessions() -> None:
    """Where one ended without an answer LCM is tried one at a time, and no other opening begins only to end."""
    bench = Bench(sessions=3)
    first = await bench.session()
    asked = [bench.acquire() for _ in range(4)]
    await settled()
    for _ in range(2):
        await bench.failed(FULL)
    second = await bench.opened()
    second.exchange()
    bench.release(second)
    third = await bench.opened()
    third.exchanges = 1
    third.abort("broken")
    await settled()
    assert (bench.pool.backing_off, bench.pool.counts()["opening"], bench.pool.waiting) == (True, 0, 1)
    bench.used(first)
    assert await asked[3] is first
    await bench.pool.close()


@pytest.mark.parametrize("at_once", [1, 3])
async def test_lcm_that_is_full_as_a_session_opens_is_away_where_there_is_no_other(at_once: int) -> None:
    """Said in one write with the answer to the handshake it ends the session before that is open, and counts alike."""
    bench = Bench(sessions=3)
    asked = [bench.acquire() for _ in range(at_once)]
    await settled()
    asleep = bench.sleeping()
    for _ in range(at_once):
        slot, on_ended, opening = bench.openings.pop(0)
        session = Scripted(slot, on_ended)
        session.not_opened = FULL
        session.abort("full")
        opening.set_result(session)
        await settled()
    assert (len(bench.away), bench.pool.backing_off, bench.openings) == (1, True, [])
    asleep.set_result(None)
    await bench.pool.close()
    await asyncio.gather(*asked, return_exceptions=True)
