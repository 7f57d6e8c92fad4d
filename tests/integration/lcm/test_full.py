"""LCM has fewer sessions for us than `lcm.sessions`: work goes on with those that it has, and more are tried for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.support.lcm import SOON
from tests.support.log import RecordingLog
from tests.support.settings import lcm_settings
from tests.support.waiting import until
from worker.contract.errors import ConnectionLost, LcmError, SessionNotOpened
from worker.contract.lookup import Lookup, LookupRequest
from worker.lcm.breaker import Breaker
from worker.lcm.handshake import SessionOpener
from worker.lcm.lookup import build_lookup
from worker.lcm.outage import OutageMonitor
from worker.lcm.pool import Pool
from worker.settings import OutageSettings, RetrySettings
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

WAYS = ("http", "close", "error")


class Worker:
    """The part of a worker that speaks to LCM; LCM is away for it where `away` says so."""

    def __init__(self, url: str, **settings: Any) -> None:
        lcm = lcm_settings(url, **settings)
        self.log = RecordingLog()
        self.away: list[SessionNotOpened] = []
        outage = OutageSettings.model_validate(SOON)
        self.pool = Pool(SessionOpener(lcm, "worker-1"), lcm, outage, self.log, on_away=self.away.append)
        retry = RetrySettings.model_validate({"attempts": 1})
        self.outages = OutageMonitor(Breaker(5, 1, 30), self.log)
        self.look_up: Lookup = build_lookup(self.pool, lcm, retry, outages=self.outages)

    async def work(self, jobs: int) -> set[int]:
        """Look up so many accounts; return the numbers of exchanges that were charged for one."""
        requests = [LookupRequest(f"18|{number}") for number in range(jobs)]
        await asyncio.gather(*map(self.look_up, requests))
        return {request.exchanges for request in requests}

    @property
    def open(self) -> int:
        """How many sessions it has."""
        counts = self.pool.counts()
        return counts["busy"] + counts["idle"]


@asynccontextmanager
async def working(lcm: Simulator, **settings: Any) -> AsyncIterator[Worker]:
    """Give a worker of this simulator."""
    worker = Worker(lcm.url, **settings)
    try:
        yield worker
    finally:
        await worker.pool.close()


@pytest.mark.parametrize("when_full", WAYS)
async def test_a_full_lcm_costs_no_job_anything(when_full: str) -> None:
    """With room for 3 of 8 sessions every job succeeds at its first attempt, without an outage; then the pool grows."""
    behaviour = Behaviour(max_sessions=3, when_full=when_full, delay=0.005)
    async with Simulator(behaviour) as lcm, working(lcm, sessions=8) as worker:
        assert await worker.work(200) == {1}
        assert (lcm.peak_sessions, worker.open, worker.away) == (3, 3, [])
        assert len(lcm.record) == 200
        # A try now and then: not one after each answer.
        assert len(lcm.connections) < 60
        told = worker.log.of("lcm.session_failed")
        assert 0 < len(told) < 10
        assert told[-1]["wanted"] == 8
        assert {level for level, event, _ in worker.log.lines if event == "lcm.session_failed"} == {"warning"}

        lcm.behaviour = replace(behaviour, max_sessions=4)
        async with asyncio.timeout(20):
            while lcm.peak_sessions < 4 or worker.open < 4:
                assert await worker.work(40) == {1}
        assert (lcm.peak_sessions, worker.away) == (4, [])


async def test_sessions_that_end_are_replaced_while_lcm_is_full() -> None:
    """With one exchange to a session a place of ours is taken again at once, though one more is not to be had."""
    behaviour = Behaviour(max_sessions=3, delay=0.001)
    async with Simulator(behaviour) as lcm, working(lcm, sessions=8, max_exchanges=1) as worker:
        assert await worker.work(100) == {1}
        assert (lcm.peak_sessions, worker.away) == (3, [])
        refused = [attempt for attempt in lcm.connections if not attempt.accepted]
        assert len(refused) < 50


@pytest.mark.parametrize("when_full", WAYS)
async def test_whoever_has_no_session_gets_one_once_it_is_free(when_full: str) -> None:
    """While another worker holds all sessions LCM is away, and is tried until one is free; then the job is done."""
    behaviour = Behaviour(max_sessions=2, when_full=when_full, delay=0.02)
    async with Simulator(behaviour) as lcm, working(lcm, sessions=2) as first:
        assert await first.work(2) == {1}
        async with working(lcm, sessions=2, reply_timeout=5) as second:
            second.look_up = build_lookup(
                second.pool, lcm_settings(lcm.url), RetrySettings.model_validate({"attempts": 100})
            )
            job = asyncio.ensure_future(second.work(1))
            await until(lambda: len(lcm.connections) >= 4)
            assert not job.done()
            assert when_full == "error" or second.away
            await first.pool.close()
            await job
            assert (second.open, lcm.peak_sessions) == (1, 2)


@pytest.mark.parametrize(("fault", "error"), [("close", ConnectionLost), ("error", LcmError)])
async def test_an_lcm_that_says_it_is_full_over_some_accounts_harms_those_alone(
    fault: str, error: type[Exception]
) -> None:
    """Where it has just answered for another, what it says of room is the job's failure; all others have room."""
    behaviour = Behaviour(rules=(Rule("bad-*", fault),), close_code=1013, delay=0.001)
    async with (
        Simulator(behaviour) as lcm,
        working(lcm, sessions=8, full_errors=["WEBSOCKET_ERROR"]) as worker,
    ):
        assert await worker.work(1) == {1}
        bad = [LookupRequest(f"bad-{number}") for number in range(30)]
        failing = asyncio.gather(*map(worker.look_up, bad), return_exceptions=True)
        async with asyncio.timeout(30):
            assert await worker.work(20) == {1}
            assert {type(ended) for ended in await failing} == {error}
        assert {request.exchanges for request in bad} == {1}
        assert (worker.away, worker.outages.out) == ([], "")
