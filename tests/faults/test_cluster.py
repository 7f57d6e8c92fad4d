"""Fault row 11: the leader of the jobs queue, one node of a cluster of three, is killed, or stops for 20 s."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation
from tests.faults.rig.cluster import Cluster
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from tests.support.wire.record import Recorder
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

JOBS = "lcm.outcome.jobs"
PAUSE = 20.0
SETTINGS: dict[str, object] = {
    "lcm.sessions": 8,
    "broker.retry_delays": ["1s", "2s"],
    # Shorter than the pause, or nobody would notice it.
    "broker.publish_timeout": "5s",
}


@dataclass
class Parts:
    """Two workers, of whom the first is connected to the node that leads the jobs queue, the other to another."""

    cluster: Cluster
    leader: Node
    ledger: Ledger
    recorder: Recorder
    workers: list[WorkerProcess]

    def under_way(self) -> bool:
        return len(self.ledger.results) >= 50

    def noticed(self) -> bool:
        return bool(self.workers[0].of("broker.lost"))


@asynccontextmanager
async def parts(cluster: Cluster, vhost: str) -> AsyncIterator[Parts]:
    urls = await cluster.add_vhost(vhost)
    recorder = Recorder()
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(Behaviour(delay=0.2, jitter=0.2)))
        settings = broker_settings(*urls, retry_delays=SETTINGS["broker.retry_delays"])
        ledger = await stack.enter_async_context(Ledger(settings, cluster))
        leader = await cluster.leader_of(JOBS, vhost)
        await leader.flush()
        first = cluster.nodes.index(leader)
        proxies = [
            await stack.enter_async_context(Proxy(AmqpConversation, url, recorder=recorder))
            for url in urls[first:] + urls[:first]
        ]
        workers = []
        for start in range(2):
            tried = ",".join(proxy.url for proxy in proxies[start:] + proxies[:start])
            given = {"broker.url": tried, "lcm.url": simulator.url, **SETTINGS}
            workers.append(await stack.enter_async_context(WorkerProcess(given)))
        for worker in workers:
            await worker.started()
        yield Parts(cluster, leader, ledger, recorder, workers)


@asynccontextmanager
async def killed(here: Parts) -> AsyncIterator[None]:
    """Kill the leader, and start it again once the other two have settled everything."""
    await here.leader.kill()
    try:
        yield
        await here.ledger.settled(180)
    finally:
        await here.leader.start()
        await here.cluster.whole()


@asynccontextmanager
async def paused(here: Parts) -> AsyncIterator[None]:
    """Freeze the leader, for as long as it takes but `PAUSE` seconds at least."""
    await here.leader.pause()
    try:
        over = asyncio.ensure_future(asyncio.sleep(PAUSE))
        yield
        await over
    finally:
        await here.leader.resume()


Fault = Callable[[Parts], AbstractAsyncContextManager[None]]

QUICK: dict[str, Fault] = {"killed": killed}
FULL: dict[str, Fault] = {**QUICK, "paused": paused}


@pytest.mark.timeout_s(600)
async def test_the_leader_of_the_jobs_goes(full: bool, cluster: Cluster, faults: Report) -> None:
    """Pitfall: leader killed or paused. Another leads, workers go elsewhere, every job comes to its own result."""
    for name, fault in (FULL if full else QUICK).items():
        with faults.row("11", f"leader {name}") as row:
            async with parts(cluster, name) as here:
                await here.ledger.submit(f"{n}|1|2|0|0|44|{n}" for n in range(600 if full else 300))
                await until(here.under_way, deadline=60)
                async with asyncio.TaskGroup() as beside, fault(here):
                    row.inject(name)
                    # Confirmed when the fault is over, where the ledger itself is connected to that node.
                    beside.create_task(here.ledger.submit(f"{n}|2|2|0|0|44|{n}" for n in range(100)))
                    await until(here.noticed, deadline=60)
                    assert await cluster.leader_of(JOBS, name) is not here.leader
                await here.ledger.settled(120)
                row.count(here.ledger.counts())
                here.ledger.assert_invariants()
                assert wire_violations(here.recorder) == []
