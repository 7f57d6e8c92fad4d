"""The pool and the lookup above it, on real sockets: reconnecting, pacing, cancelling, and losing nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.lcm import ACCOUNT, looking_up, names, pooled
from tests.support.log import RecordingLog
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation
from worker.common.clock import Clock
from worker.contract.errors import ConnectionLost, Expired, LcmRejected, MalformedReply, ReplyTimeout
from worker.contract.lookup import Lookup, LookupRequest
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator


def inquire(look_up: Lookup, *accounts: str) -> list[asyncio.Task[bool]]:
    """Look up each account; tell of each whether the answer is that account's own."""

    async def ask(account: str) -> bool:
        return names((await look_up(LookupRequest(account))).items, account)

    return [asyncio.get_running_loop().create_task(ask(account)) for account in accounts]


def accounts(count: int) -> list[str]:
    """Return as many different accounts."""
    return [f"18|{number}" for number in range(count)]


async def test_no_more_sessions_than_allowed() -> None:
    """However many ask, LCM sees `sessions` connections, and one request at a time on each."""
    async with Simulator(Behaviour(jitter=0.002)) as lcm, looking_up(lcm.url, sessions=3) as (pool, look_up):
        assert all(await asyncio.gather(*inquire(look_up, *accounts(60))))
        assert (len(lcm.connections), lcm.max_in_flight) == (3, 1)
        assert repr(pool) == "<Pool 0 busy, 3 idle, 0 opening, 0 waiting>"


async def test_one_exchange_per_session() -> None:
    """With `max_exchanges = 1` each exchange has a session of its own, closed in good order afterwards."""
    async with Simulator() as lcm, looking_up(lcm.url, sessions=2, max_exchanges=1) as (_, look_up):
        assert all(await asyncio.gather(*inquire(look_up, *accounts(10))))
        assert sorted(exchange.connection for exchange in lcm.record) == list(range(10))
        await until(lambda: lcm.live == 0)


async def test_peers_that_say_everything_twice() -> None:
    """Pitfall `the peer sends a reply twice`: with a session for each exchange every answer is the account's own."""
    behaviour = Behaviour(faults={"twice": 0.3, "unprompted": 0.3}, seed=1)
    async with Simulator(behaviour) as lcm, looking_up(lcm.url, sessions=4, max_exchanges=1) as (_, look_up):
        assert all(await asyncio.gather(*inquire(look_up, *accounts(40))))


async def test_a_reply_that_can_not_be_read_delays_no_session() -> None:
    """The session ends, and another opens without a pause: it was LCM's answer for one account, and others wait."""
    behaviour = Behaviour(rules=(Rule("9|*", "not-json"),))
    async with (
        Simulator(behaviour) as lcm,
        looking_up(lcm.url, sessions=1, retry={"attempts": 1}, outage={"failures": 100}) as (pool, look_up),
    ):
        for number in range(5):
            with pytest.raises(MalformedReply):
                await look_up(LookupRequest(f"9|{number}"))
            assert not pool.backing_off
        assert all(await asyncio.gather(*inquire(look_up, *accounts(3))))


async def test_sessions_cut_while_idle_fail_no_job() -> None:
    """Pitfall `idle sessions cut by a load balancer`: cleanly or by a reset, the next job doesn't notice."""
    log = RecordingLog()
    settings: dict[str, Any] = {"sessions": 3, "retry": {"attempts": 1}}
    async with Simulator() as lcm, looking_up(lcm.url, log=log, **settings) as (_, look_up):
        for reset in (False, True):
            assert all(await asyncio.gather(*inquire(look_up, *accounts(9))))
            await lcm.close_sessions(reset=reset)
            request = LookupRequest(ACCOUNT)
            assert names((await look_up(request)).items, ACCOUNT)
            assert request.exchanges == 1
    assert "lcm.outage_started" not in log.events


async def test_a_cut_that_is_noticed_only_in_the_exchange() -> None:
    """Where a cut and a request cross, the exchange is repeated on a fresh session, and counts once."""
    rules = (Rule("18|1", "reset", 1),)
    async with (
        Simulator(Behaviour(rules=rules)) as lcm,
        looking_up(lcm.url, sessions=1, retry={"attempts": 1}) as (_, look_up),
    ):
        assert all(await asyncio.gather(*inquire(look_up, "18|0")))
        request = LookupRequest("18|1")
        assert names((await look_up(request)).items, "18|1")
        assert (request.exchanges, [e.connection for e in lcm.record]) == (1, [0, 0, 1])


async def test_a_cut_on_a_fresh_session_counts() -> None:
    """Where LCM closes in every exchange, attempts are used up; the repeated one is on top of them."""
    async with (
        Simulator(Behaviour(faults={"close": 1})) as lcm,
        looking_up(lcm.url, sessions=1, retry={"attempts": 2}) as (_, look_up),
    ):
        request = LookupRequest(ACCOUNT)
        with pytest.raises(ConnectionLost):
            await look_up(request)
        assert (request.exchanges, len(lcm.record)) == (2, 2)


async def test_accept_and_close_is_paced() -> None:
    """Pitfall `accept-then-close made 1,625 connections in 2 s`: one attempt, then one after each longer pause."""
    pauses: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 7:
            enough.set()
            await asyncio.get_running_loop().create_future()

    outage = {"probe_delay": 1, "probe_max_delay": 30}
    async with (
        Simulator(Behaviour(faults={"accept-and-close": 1})) as lcm,
        looking_up(lcm.url, sessions=1, outage=outage, retry={"attempts": 50}) as (pool, look_up),
    ):
        pool._clock = Clock(sleep=sleep, jitter=max)
        asking = inquire(look_up, *accounts(5))
        await enough.wait()
        assert pauses == [1, 2, 4, 8, 16, 30, 30]
        assert len(lcm.connections) == len(pauses)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


@pytest.mark.parametrize("fault", ["unauthorized", "unavailable", "accept-and-close"])
async def test_work_resumes_by_itself(fault: str) -> None:
    """Promise 3: while LCM is away nobody fails for it, and all are served once it is back."""
    log = RecordingLog()
    async with Simulator(Behaviour(faults={fault: 1})) as lcm:
        settings: dict[str, Any] = {"sessions": 2, "retry": {"attempts": 100, "budget": 1000}}
        async with looking_up(lcm.url, log=log, **settings) as (pool, look_up):
            asking = inquire(look_up, *accounts(6))
            await until(lambda: len(lcm.connections) >= 6)
            assert not any(task.done() for task in asking)
            assert pool.backing_off
            lcm.behaviour = Behaviour()
            assert all(await asyncio.gather(*asking))
            assert not pool.backing_off
    assert log.events.count("lcm.outage_started") == log.events.count("lcm.outage_ended")
    assert (fault == "unauthorized") == any(level == "error" for level, _, _ in log.lines)


async def test_a_restart_of_lcm_is_survived() -> None:
    """LCM goes in the middle of many exchanges, stays away for some attempts, and comes back: all are answered."""
    log = RecordingLog()
    lcm = Simulator(Behaviour(delay=0.001))
    await lcm.start()
    async with looking_up(lcm.url, log=log, sessions=4, retry={"attempts": 50}) as (_, look_up):
        asking = inquire(look_up, *accounts(100))
        await until(lambda: len(lcm.record) > 20)
        await lcm.stop()
        await until(lambda: len(log.of("lcm.session_failed")) > 3)
        await lcm.start()
        assert all(await asyncio.gather(*asking))
    await lcm.stop()


async def test_one_silent_account_fails_alone() -> None:
    """Pitfall `LCM answers one account with silence`: its sessions go, the others' jobs don't."""
    behaviour = Behaviour(rules=(Rule("18|0", "silence"),))
    async with Simulator(behaviour) as lcm:
        settings: dict[str, Any] = {"sessions": 2, "reply_timeout": 0.05, "retry": {"attempts": 3}}
        log = RecordingLog()
        async with looking_up(lcm.url, log=log, **settings) as (_, look_up):
            silent, *others = inquire(look_up, *accounts(30))
            assert all(await asyncio.gather(*others))
            with pytest.raises(ReplyTimeout):
                await silent
            assert [e.account for e in lcm.record].count("18|0") == 3
        assert "lcm.outage_started" not in log.events


async def test_silence_for_one_account_slows_nobody_down() -> None:
    """Pitfall `LCM answers one account with silence`: its sessions, fresh or used, don't pace the next opening."""
    behaviour = Behaviour(rules=(Rule("18|0", "silence"),))
    async with Simulator(behaviour) as lcm:
        outage = {"probe_delay": 30, "probe_max_delay": 60}
        settings: dict[str, Any] = {"sessions": 1, "reply_timeout": 0.05, "retry": {"attempts": 3}}
        async with looking_up(lcm.url, outage=outage, **settings) as (pool, look_up):
            [silent] = inquire(look_up, "18|0")
            with pytest.raises(ReplyTimeout):
                await silent
            assert not pool.backing_off
            assert all(await asyncio.gather(*inquire(look_up, "18|1")))


async def test_a_waiter_that_is_cancelled() -> None:
    """Who gives up waiting for a session takes none along: the next one is served."""
    async with Simulator(Behaviour(delay=0.01)) as lcm, pooled(lcm.url, sessions=1) as pool:
        session = await pool.acquire()
        first, second = (asyncio.ensure_future(pool.acquire()) for _ in range(2))
        await until(lambda: pool.waiting == 2)
        first.cancel()
        pool.release(session)
        assert await second is session
        assert repr(pool) == "<Pool 1 busy, 0 idle, 0 opening, 0 waiting>"
        pool.release(session)


async def test_an_exchange_that_is_cancelled() -> None:
    """Cancelled in mid-exchange, a job takes its session with it, and the next one gets a good one."""
    behaviour = Behaviour(rules=(Rule("18|0", "silence"),))
    async with Simulator(behaviour) as lcm, looking_up(lcm.url, sessions=1) as (pool, look_up):
        in_exchange, waiting = inquire(look_up, *accounts(2))
        await until(lambda: lcm.record)
        in_exchange.cancel()
        assert await waiting
        assert [exchange.connection for exchange in lcm.record] == [0, 1]
        assert repr(pool) == "<Pool 0 busy, 1 idle, 0 opening, 0 waiting>"
        await until(lambda: lcm.live == 1)


async def test_a_leader_that_is_cancelled() -> None:
    """Of several jobs for one account the first is cancelled: the next asks LCM anew, and all others share it."""
    behaviour = Behaviour(rules=(Rule(ACCOUNT, "silence", 1),))
    async with Simulator(behaviour) as lcm, looking_up(lcm.url, sessions=2) as (pool, look_up):
        leader, *others = inquire(look_up, *[ACCOUNT] * 5)
        await until(lambda: lcm.record)
        leader.cancel()
        assert all(await asyncio.gather(*others))
        assert (len(lcm.record), leader.cancelled()) == (2, True)
        assert repr(pool) == "<Pool 0 busy, 1 idle, 0 opening, 0 waiting>"


async def test_cancellations_at_any_moment_leak_nothing() -> None:
    """Whenever jobs are cancelled, no session and no place is lost, and what remains is answered rightly."""
    async with (
        Simulator(Behaviour(jitter=0.002, faults={"refuse": 0.2}, seed=7)) as lcm,
        looking_up(lcm.url, sessions=3) as (pool, look_up),
    ):
        for turns in range(60):
            asking = inquire(look_up, *accounts(6))
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in asking[:4]:
                task.cancel()
            for end in await asyncio.gather(*asking, return_exceptions=True):
                assert end is True or isinstance(end, LcmRejected | asyncio.CancelledError)
        await until(lambda: not pool._opening and not pool._closing)
        assert (len(pool._busy), pool.waiting) == (0, 0)
        assert len(pool._idle) + len(pool._free_slots) == 3
        await until(lambda: lcm.live == len(pool._idle))


async def test_the_deadline_of_a_job_holds_while_it_waits_for_a_session() -> None:
    """A job whose deadline passed before it got a session is not asked for."""
    deadline = datetime.now(UTC) + timedelta(milliseconds=30)
    async with (
        Simulator(Behaviour(faults={"unavailable": 1})) as lcm,
        looking_up(lcm.url, sessions=1) as (_, look_up),
    ):
        asking = asyncio.ensure_future(_ask(look_up, LookupRequest(ACCOUNT, deadline)))
        await until(lambda: datetime.now(UTC) > deadline)
        lcm.behaviour = Behaviour()
        with pytest.raises(Expired):
            await asking
        assert lcm.record == []


async def _ask(look_up: Lookup, request: LookupRequest) -> bool:
    return names((await look_up(request)).items, request.account)


async def test_closing_the_pool_leaves_nothing() -> None:
    """With sessions in use, idle and being opened, with waiters and a frozen peer, all connections are gone."""
    async with (
        Simulator() as lcm,
        Proxy(RawConversation, lcm.url) as proxy,
        pooled(proxy.url, sessions=3, reply_timeout=30) as pool,
    ):
        busy, idle = await asyncio.gather(pool.acquire(), pool.acquire())
        pool.release(idle)
        lcm.behaviour = Behaviour(faults={"silence": 1})
        asking = asyncio.ensure_future(busy.exchange(ACCOUNT, 30))
        await until(lambda: lcm.record)
        proxy.freeze()
        asked = [asyncio.ensure_future(pool.acquire()) for _ in range(3)]
        await until(lambda: proxy.accepted == 3)
        await pool.close()
        ends = await asyncio.gather(asking, *asked, return_exceptions=True)
        assert isinstance(ends[0], ConnectionLost)
        assert sum(isinstance(end, asyncio.CancelledError) for end in ends) == 2
        pool.release(busy)
        proxy.thaw()
        await until(lambda: not proxy.connections)
