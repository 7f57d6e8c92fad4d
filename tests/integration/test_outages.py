"""Promise 3: an outage is nobody's fault. Jobs are deferred, uncharged, and work resumes by itself."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
from aiormq.abc import AbstractChannel

from tests.support.channel import depth, open_channel
from tests.support.in_process import DEAD, JOBS, all_good, numbered, publish, quick, results, working
from tests.support.waiting import until
from worker.broker.undelivered import Resender
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator


async def test_jobs_wait_out_an_lcm_that_cannot_be_reached(vhost: str) -> None:
    """Longer than all retry delays together, with a delivery limit of 2: nothing fails, and it ends by itself."""
    lcm = Simulator()
    await lcm.start()
    await lcm.stop()
    # On a busy machine an exchange may take long, and what timed out would be charged.
    settings = quick(vhost, lcm.url, LCM__REPLY_TIMEOUT="30s")
    async with open_channel(vhost) as channel, working(settings) as log:
        await until(lambda: "lcm.outage_started" in log.events)
        assert "worker.ready" not in log.events
        await publish(channel, *numbered(20))
        await until(lambda: log.events.count("lcm.session_failed") > 8)
        async with lcm:
            found = await results(channel, 20)
        all_good(found, 20)
        assert {result["attempts"] for result in found} == {1}
        assert await depth(channel, DEAD) == 0
        assert log.events.count("lcm.outage_started") == log.events.count("lcm.outage_ended") == 1
        assert "worker.ready" in log.events
        assert log.events.index("worker.paused") < log.events.index("worker.resumed")
        assert not [event for event in log.events if event in {"job.failed", "job.retry_later"}]


async def test_an_idle_worker_notices_that_lcm_is_gone(vhost: str) -> None:
    """Without any job to ask it for, an outage begins within `outage.probe_max_delay`, and ends when LCM is back."""
    async with Simulator() as lcm, open_channel(vhost) as channel, working(quick(vhost, lcm.url)) as log:
        await publish(channel, *numbered(1))
        await until(lambda: "job.succeeded" in log.events)
        await lcm.stop()
        await until(lambda: "lcm.outage_started" in log.events)
        await lcm.start()
        await until(lambda: "lcm.outage_ended" in log.events)
        await publish(channel, {"job_id": "later", "account_number": "9|9"})
        all_good([one for one in await results(channel, 2) if one["job_id"] != "later"], 1)


async def test_what_is_in_hand_when_lcm_goes_is_deferred(vhost: str) -> None:
    """Jobs that wait for a session, or whose exchange is cut, go to the first retry queue and come back."""
    async with Simulator(Behaviour(delay=0.05)) as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url)) as log:
            await publish(channel, *numbered(60))
            await until(lambda: "job.succeeded" in log.events)
            await lcm.stop()
            await until(lambda: "job.deferred" in log.events)
            await lcm.start()
            all_good(await results(channel, 60), 60)
        assert await depth(channel, DEAD) == 0
        assert "job.failed" not in log.events


async def test_an_lcm_where_nobody_is_logged_in_costs_no_job(vhost: str) -> None:
    """With default settings, "not logged in" is an outage: jobs are deferred, uncharged, and end once somebody is."""
    async with Simulator(Behaviour(faults={"not-logged-in": 1.0})) as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url)) as log:
            await publish(channel, *numbered(20))
            await until(lambda: "lcm.outage_started" in log.events)
            await until(lambda: "job.deferred" in log.events)
            lcm.behaviour = Behaviour()
            all_good(await results(channel, 20), 20)
        assert await depth(channel, DEAD) == 0
        assert "job.failed" not in log.events


async def test_a_task_beside_the_jobs_that_a_defect_ends_is_told_and_started_anew(
    vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall: results that wait in the undelivered queue were sent by nobody any more, without a word."""
    monkeypatch.setattr("worker.app._ANEW_AFTER", 0.01)
    runs: list[str] = []

    async def run(_: Resender) -> None:
        runs.append("run")
        if len(runs) == 1:
            raise RecursionError("a defect")

    monkeypatch.setattr(Resender, "run", run)
    async with Simulator() as lcm, working(quick(vhost, lcm.url)) as log:
        await until(lambda: len(runs) == 2)
    [told] = log.of("worker.task_broke")
    assert told["task"] == "resender"


@pytest.mark.parametrize("jobs_wait", [False, True])
async def test_sessions_that_are_closed_as_soon_as_they_are_open_are_an_outage(
    vhost: str, jobs_wait: bool
) -> None:
    """Pitfall `LCM accepts, then closes with 4401`: not ready, told at error level, and no job is failed for it."""
    behaviour = Behaviour(faults={"accept-and-close": 1.0}, close_code=4401)
    async with Simulator(behaviour) as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url)) as log:
            if jobs_wait:
                await publish(channel, *numbered(10))
            await until(lambda: "lcm.outage_started" in log.events)
            await until(lambda: len(log.of("lcm.session_failed")) > 2)
            assert "worker.ready" not in log.events
            if not jobs_wait:
                await publish(channel, *numbered(10))
            lcm.behaviour = Behaviour()
            all_good(await results(channel, 10), 10)
            await until(lambda: "worker.ready" in log.events)
        assert "4401 (unauthorized)" in log.of("lcm.outage_started")[0]["reason"]
        assert {level for level, event, _ in log.lines if event == "lcm.session_failed"} == {"error"}
        assert "job.failed" not in log.events


async def test_silence_for_all_is_an_outage_and_probed_by_one_job_at_a_time(vhost: str) -> None:
    """Exchanges that fail for different accounts stop the intake; an exchange that LCM answers starts it again."""
    async with Simulator(Behaviour(faults={"silence": 1.0})) as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url, LCM__REPLY_TIMEOUT="100ms")) as log:
            await publish(channel, *numbered(40))
            await until(lambda: "lcm.outage_started" in log.events)
            assert log.of("lcm.outage_started")[0]["by"] == "exchanges"
            before = len(lcm.record)
            await until(lambda: len(lcm.record) >= before + 8)
            lcm.behaviour = Behaviour()
            found = await results(channel, 40)
        all_good(found, 40)
        assert await depth(channel, DEAD) == 0
        assert {"lcm.outage_ended", "worker.resumed"} <= set(log.events)
        # Uncharged: nobody paid for a probe, whatever was paid before the outage began.
        assert max(result["attempts"] for result in found) <= 4


async def test_one_silent_account_fails_alone(vhost: str) -> None:
    """LCM meets it with silence for ever: it fails as timeout, the others don't wait, and there is no outage."""
    behaviour = Behaviour(rules=(Rule("0|*", "silence"),))
    async with Simulator(behaviour) as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url, LCM__REPLY_TIMEOUT="100ms")) as log:
            await publish(channel, *numbered(30))
            found = await results(channel, 30)
        failed = [result for result in found if result["status"] == "failed"]
        assert [(result["job_id"], result["error"]["code"]) for result in failed] == [("job-0", "timeout")]
        assert "lcm.outage_started" not in log.events


async def test_many_accounts_that_fail_by_themselves_are_no_outage_for_ever(vhost: str) -> None:
    """Pitfall: accounts that LCM always answers with garbage, whose retries come in a bunch. Each fails, none waits."""
    behaviour = Behaviour(rules=(Rule("bad-*", "not-json"),))
    jobs = numbered(60)
    bad = {job["job_id"]: job for job in jobs[:36:3]}
    for job in bad.values():
        job["account_number"] = f"bad-{job['account_number']}"
    async with Simulator(behaviour) as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url)) as log:
            await publish(channel, *jobs)
            found = await results(channel, 60)
        failed = {
            result["job_id"]: result["error"]["code"] for result in found if result["status"] == "failed"
        }
        assert failed == dict.fromkeys(bad, "malformed_reply")
        assert await depth(channel, DEAD) == len(bad)
        assert "lcm.outage_started" not in log.events


@pytest.mark.parametrize(
    ("fault", "known_good"),
    [("not-json", True), ("close", True), ("error", True), ("silence", True), ("error", False)],
)
async def test_jobs_behind_many_accounts_that_fail_do_not_wait_for_a_probe_of_each(
    vhost: str, fault: str, known_good: bool
) -> None:
    """Probes are so rare here that one for each account would take hours; all fail alike, as if LCM were out."""
    behaviour = Behaviour(rules=(Rule("bad-*", fault),))
    bad = [{"job_id": f"bad-{n}", "account_number": f"bad-{n}"} for n in range(24)]
    rare = {"OUTAGE__PROBE_MAX_DELAY": "1h", "LCM__REPLY_TIMEOUT": "100ms", "BROKER__PREFETCH": 8}
    async with Simulator(behaviour) as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url, **rare)) as log:
            if known_good:
                await publish(channel, {"job_id": "known", "account_number": "known"})
                await until(lambda: "job.succeeded" in log.events)
            await publish(channel, *bad, *numbered(40))
            await until(lambda: len(log.of("job.succeeded")) == 40 + known_good)
        assert ("lcm.outage_started" in log.events) is not known_good


async def test_a_deadline_ends_even_a_deferred_job(vhost: str) -> None:
    """Its own deadline is the one thing that fails a job in an outage, and it is not dead-lettered for it."""
    lcm = Simulator()
    await lcm.start()
    await lcm.stop()
    async with open_channel(vhost) as channel, working(quick(vhost, lcm.url)):
        past = {"job_id": "job-0", "account_number": "0|1", "deadline": "2020-01-01T00:00:00Z"}
        async with lcm:
            await publish(channel, past)
            found = await results(channel, 1)
        assert (found[0]["error"]["code"], await depth(channel, DEAD)) == ("expired", 0)


async def test_a_bad_deploy_does_not_dead_letter_the_whole_queue(vhost: str) -> None:
    """Nearly all of a window fail for good: the guard pauses, takes a few at a time, and ends when they succeed."""
    settings = {"GUARD__WINDOW": "20", "BROKER__PREFETCH": "8", "OUTAGE__PROBE_MAX_DELAY": "1s"}
    async with Simulator(Behaviour(faults={"refuse": 1.0})) as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url, **settings)) as log:
            await publish(channel, *numbered(1000))
            await until(lambda: "worker.paused" in log.events)
            lcm.behaviour = Behaviour()
            found = await results(channel, 1000)
        failed = sum(result["status"] == "failed" for result in found)
        assert 20 <= failed < 200
        assert await depth(channel, DEAD) == failed
        assert log.of("worker.paused")[0]["reason"] == "guard"
        assert "worker.resumed" in log.events


async def test_a_guarded_worker_comes_back_beside_a_healthy_one(vhost: str) -> None:
    """A neighbour that leaves nothing in the queue does not keep it paused: it gets its turn, and recovers."""
    refusing = Behaviour(faults={"refuse": 1.0})
    async with Simulator(refusing) as bad, Simulator() as good, open_channel(vhost) as channel:
        async with working(quick(vhost, bad.url, GUARD__WINDOW="10")) as log:
            await publish(channel, *numbered(1000))
            await until(lambda: "worker.paused" in log.events)
            async with working(quick(vhost, good.url)) as other:
                await until(partial(empty, channel, JOBS))
                bad.behaviour = Behaviour()
                count = 0

                async def more() -> bool:
                    nonlocal count
                    count += 1
                    await publish(channel, {"job_id": f"more-{count}", "account_number": f"{count}|2"})
                    return "guard.recovered" in log.events

                await until(more)
        assert log.of("worker.paused")[0]["reason"] == "guard"
        assert "job.succeeded" in other.events


async def empty(channel: AbstractChannel, queue: str) -> bool:
    return not await depth(channel, queue)


async def test_suspects_run_alone(vhost: str) -> None:
    """What came back three times has no neighbour in hand while it runs; all of them are done in the end."""
    async with Simulator(Behaviour(delay=0.05)) as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url, BROKER__DELIVERY_LIMIT="20")) as log:
            await publish(channel, *numbered(12), headers={"outcome-returns": 3}, user_id="guest")
            found = await results(channel, 12)
        all_good(found, 12)
        assert lcm.max_in_flight == 1
        times = sorted((exchange.at, exchange.replied or 0.0) for exchange in lcm.record)
        assert all(replied <= begun for (_, replied), (begun, _) in pairwise(times))
        assert "job.deferred" in log.events


async def test_a_suspect_that_lcm_never_answers_keeps_no_others_waiting(vhost: str) -> None:
    """It has the worker for itself for a moment; the others are done while it still waits."""
    silent = Behaviour(rules=(Rule("silent-*", "silence"),))
    async with Simulator(silent) as lcm, open_channel(vhost) as channel:
        slow = {"LCM__REPLY_TIMEOUT": "10m", "RETRY__BUDGET": "20m", "WORKER__SHUTDOWN_GRACE": "1s"}
        async with working(quick(vhost, lcm.url, BROKER__DELIVERY_LIMIT="20", **slow)) as log:
            waiting = {"job_id": "waits", "account_number": "silent-1"}
            await publish(channel, waiting, headers={"outcome-returns": 3}, user_id="guest")
            await until(lambda: len(lcm.record) == 1)
            await publish(channel, *numbered(12))
            all_good(await results(channel, 12), 12)
        assert [line["reason"] for line in log.of("worker.paused")] == ["suspect"]
        assert lcm.record[0].replied is None


@pytest.mark.parametrize("limit", [2, 20])
async def test_who_came_back_too_often_is_poison(vhost: str, limit: int) -> None:
    """LCM is not asked for it: it is dead-lettered with that reason, and fails as poison."""
    async with Simulator() as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url, BROKER__DELIVERY_LIMIT=limit)):
            await publish(channel, *numbered(1), headers={"outcome-returns": limit}, user_id="guest")
            found = await results(channel, 1)
        assert (found[0]["error"]["code"], await depth(channel, DEAD)) == ("poison", 1)
        assert lcm.record == []
