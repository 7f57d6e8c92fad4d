"""Promise 5: what one producer or account does stays with it."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from aiormq.abc import AbstractChannel

from tests.support.broker import add_user
from tests.support.channel import depth, open_channel, take_all
from tests.support.in_process import DEAD, RESULTS, all_good, numbered, publish, quick, results, working
from tests.support.log import RecordingLog
from tests.support.waiting import until
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.sandbox.node import Node
from worker.settings import Settings
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

WINDOW = 200
REFUSING = Behaviour(rules=(Rule("bad-*", "refuse"),))


def settings_for(vhost: str, lcm: Simulator, **more: Any) -> Settings:
    """Return settings with which what is deferred twice does not come again during the test."""
    given = {
        "BROKER__RETRY_DELAYS": "200ms,10m",
        "OUTAGE__PROBE_MAX_DELAY": "30s",
        "LCM__SESSIONS": "32",
        "LCM__REPLY_TIMEOUT": "1m",  # on a busy machine, late replies would look like an outage
        "GUARD__WINDOW": WINDOW,
    }
    return quick(vhost, lcm.url, **given | more)


def bad(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"job_id": f"bad-{n}", "account_number": f"bad-{n}|1", **fields} for n in range(count)]


def succeeded(log: RecordingLog, count: int) -> bool:
    return log.events.count("job.succeeded") >= count


async def prepared(channel: AbstractChannel, settings: Settings) -> None:
    await declare(channel, topology_of(settings.broker))


async def test_a_producer_whose_jobs_all_fail_stops_nobody_else(vhost: str) -> None:
    """1,000 jobs that LCM rejects lie ahead of 100 good ones of another: these are done, and few of those are dead."""
    async with Simulator(REFUSING) as lcm, open_channel(vhost) as channel:
        settings = settings_for(vhost, lcm)
        await prepared(channel, settings)
        await publish(channel, *bad(1000), app_id="crm")
        await publish(channel, *numbered(100), app_id="dialer")
        async with working(settings) as log:
            await until(lambda: succeeded(log, 100))
        assert WINDOW <= await depth(channel, DEAD) < 2 * WINDOW
        [tripped] = log.of("guard.tripped")
        assert (tripped["app_id"], tripped["producers"]) == ("crm", 1)


@pytest.mark.parametrize("fault", ["silence", "not-json", "close", "error"])
async def test_a_producer_whose_jobs_lcm_does_not_answer_stops_nobody_else(vhost: str, fault: str) -> None:
    """1,000 jobs for different accounts lie ahead of 100 of another producer: few of those are tried before these."""
    async with Simulator(Behaviour(rules=(Rule("bad-*", fault),))) as lcm, open_channel(vhost) as channel:
        settings = settings_for(vhost, lcm, LCM__REPLY_TIMEOUT="500ms")
        await prepared(channel, settings)
        async with working(settings) as log:
            await publish(channel, {"job_id": "known", "account_number": "known"}, app_id="dialer")
            await until(lambda: succeeded(log, 1))
            await publish(channel, *bad(1000), app_id="crm")
            await publish(channel, *numbered(100), app_id="dialer")
            await until(lambda: succeeded(log, 1 + 100))
        # A job that was tried again counts again.
        asked = [exchange.account for exchange in lcm.record if exchange.account.startswith("bad-")]
        assert len(asked) >= WINDOW
        assert len(set(asked)) < 3 * WINDOW
        assert [tripped["producers"] for tripped in log.of("guard.tripped")] == [1]
        assert "lcm.outage_started" not in log.events


async def test_a_producer_that_trips_pauses_nothing_where_jobs_are_taken_as_they_come(vhost: str) -> None:
    """The queue is empty by the time that it trips: another's jobs, one at a time, go on without a pause."""
    async with Simulator(REFUSING) as lcm, open_channel(vhost) as channel:
        settings = settings_for(vhost, lcm)
        async with working(settings) as log:
            await publish(channel, *numbered(1), app_id="dialer")
            await until(lambda: succeeded(log, 1))
            await publish(channel, *bad(WINDOW + 15), app_id="crm")
            await until(lambda: "guard.tripped" in log.events)
            for count in range(2, 30):
                await publish(channel, *numbered(count)[-1:], app_id="dialer")
                await until(partial(succeeded, log, count))
        assert "worker.paused" not in log.events


async def test_a_bad_deploy_for_many_routes_costs_few_jobs(vhost: str) -> None:
    """Of 4,000 jobs over 200 routes that all fail together, a few hundred are dead, and the others wait."""
    async with Simulator(REFUSING) as lcm, open_channel(vhost) as channel:
        settings = settings_for(vhost, lcm)
        await prepared(channel, settings)
        jobs = bad(4000)
        for number, job in enumerate(jobs):
            job["route"] = f"r-{number % 200}"
        await publish(channel, *jobs)
        async with working(settings) as log:
            await until(lambda: "worker.paused" in log.events)
        assert log.of("worker.paused")[0]["reason"] == "guard"
        # A window, what was in hand when it was full, and one job of each route that came later.
        assert WINDOW <= await depth(channel, DEAD) <= WINDOW + settings.broker.prefetch + 200
        assert log.events.count("guard.tripped") == 1


async def test_headers_of_ours_that_a_producer_sets_do_not_count(broker: Node, vhost: str) -> None:
    """A producer with a user of its own can't make the worker take its jobs for suspects, or for retried ones."""
    name = vhost.rpartition("/")[2]
    forged = {
        "outcome-returns": 19,
        "outcome-attempts": 40,
        "outcome-retries": 9,
        "outcome-replays": 3,
        "outcome-job-id": "another",
        "outcome-user-id": "somebody",
        "x-delivery-count": 19,
    }
    async with Simulator(Behaviour(delay=0.05)) as lcm, open_channel(vhost) as channel:
        settings = settings_for(vhost, lcm)
        await prepared(channel, settings)
        await add_user(broker, name, configure="^$", write=".*", read="^$")
        async with open_channel(vhost.replace("guest:guest", f"{name}:secret")) as producing:
            jobs = numbered(60)
            await publish(producing, *jobs[:30], headers=forged, user_id=name)
            await publish(producing, *jobs[30:], headers=forged)
        async with working(settings) as log:
            found = await results(channel, 60)
        all_good(found, 60)
        assert {result["attempts"] for result in found} == {1}
        assert "worker.paused" not in log.events
        assert "job.deferred" not in log.events
        times = sorted((exchange.at, exchange.replied or 0.0) for exchange in lcm.record)
        assert any(replied > begun for (_, replied), (begun, _) in pairwise(times))
        told = {line["user_id"] for line in log.of("job.succeeded")}
        assert told == {name, None}


async def test_jobs_for_a_silent_account_leave_places_to_others(vhost: str) -> None:
    """300 jobs for an account that LCM never answers lie ahead of 100 others: these are done while it is silent."""
    silent = Behaviour(rules=(Rule("silent", "silence"),))
    async with Simulator(silent) as lcm, open_channel(vhost) as channel:
        settings = quick(
            vhost, lcm.url, BROKER__RETRY_DELAYS="1s,10m", LCM__REPLY_TIMEOUT="5m", LCM__SESSIONS="32"
        )
        await prepared(channel, settings)
        await publish(channel, *({"job_id": f"s-{n}", "account_number": "silent"} for n in range(300)))
        await publish(channel, *numbered(100))
        async with working(settings) as log:
            await until(lambda: succeeded(log, 100))
        found = [message.body for message in await take_all(channel, RESULTS)]
        assert len(found) == 100
        assert [exchange.account for exchange in lcm.record].count("silent") == 1
        deferred = [line["reason"] for line in log.of("job.deferred") if "places" in line["reason"]]
        assert len(deferred) >= 300 - 1 - settings.broker.prefetch // 8
