"""How the pool waits while LCM is away, and when it says so."""

from __future__ import annotations

import asyncio

from tests.lcm_bench import Bench
from tests.lcm_support import settled
from worker.errors import SessionNotOpened


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
    assert bench.pool.paced
    bench.used(session)
    assert not bench.pool.paced


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
    looking = asyncio.ensure_future(bench.pool.look())
    await bench.failed()
    assert len(bench.away) == 1
    await bench.opened()
    await looking
    assert repr(bench.pool) == "<Pool 0 busy, 1 idle, 0 opening, 0 waiting>"
    await bench.pool.look()
    assert len(bench.openings) == 0


async def test_a_look_that_lcm_cuts_does_not_slow_down_the_next_job() -> None:
    """What lies idle may be cut by a load balancer again and again; the next session is opened without a pause."""
    bench = Bench(sessions=1)
    for _ in range(3):
        looking = asyncio.ensure_future(bench.pool.look())
        session = await bench.opened()
        await looking
        session.abort("cut")
    await bench.session()
    assert bench.sleeps == []
