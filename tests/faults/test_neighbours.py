"""Fault rows 17 and 18: what one producer, account, peer or client does stays with it, alone and all of it at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.faults.rig.ledger import Ledger
from tests.faults.rig.neighbours import GOOD_ROUTE, NEIGHBOURS, OWN, RESULTS, Scene
from tests.faults.rig.report import Report, Row
from tests.faults.rig.workers import WorkerProcess
from tests.support.channel import open_channel
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.sandbox.node import Node
from worker.simulator.server import Simulator

MIB = 1024 * 1024
MOST_MEMORY = 256 * MIB  # beyond what the worker has when it begins; the large bodies alone are 480 MB
MOST_TIME = 2.0  # in times of what the good jobs take alone
BROKER: dict[str, object] = {"results_queue": False, "retry_delays": ["1s", "2s", "4s"]}
SETTINGS: dict[str, object] = {
    **{f"broker.{name}": value for name, value in BROKER.items()},
    "lcm.sessions": 32,
    "lcm.reply_timeout": "5s",
    "retry.attempts": 1,
    "outage.probe_delay": "500ms",
    "outage.probe_max_delay": "2s",
}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@asynccontextmanager
async def staged(broker: Node, url: str, *, full: bool) -> AsyncIterator[Scene]:
    port = free_port()
    async with (
        Simulator() as simulator,
        Ledger(broker_settings(url, **BROKER), broker, results=OWN, collect=False) as ledger,
        open_channel(url) as channel,
        WorkerProcess(
            {"broker.url": url, "lcm.url": simulator.url, "health.listen": f"127.0.0.1:{port}", **SETTINGS}
        ) as worker,
    ):
        await channel.queue_declare(OWN, durable=True, arguments={"x-queue-type": "quorum"})
        for key in (f"result.*.{GOOD_ROUTE}", "result.succeeded", "result.failed"):
            await channel.queue_bind(OWN, RESULTS, key)
        ledger.start_collecting()
        await worker.started()
        yield Scene(broker, url, channel, simulator, worker, ledger, port, full)


async def seconds_for(scene: Scene, first: int, count: int) -> float:
    """Have good jobs done, and return how long that took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    accounts = (f"{n}|1|2|0|0|44|{n}" for n in range(first, first + count))
    good = await scene.ledger.submit(accounts, route=GOOD_ROUTE)
    await until(lambda: all(job in scene.ledger.results for job in good), deadline=300)
    return clock() - began


async def check(scene: Scene, row: Row, memory: int) -> None:
    """Check that all has ended, and that nothing failed but what had to."""
    await scene.ledger.settled(240)
    row.count(scene.ledger.counts())
    scene.ledger.assert_invariants(mendable=False)
    unexpected = scene.ledger.failed.items() - scene.doomed.items()
    assert not unexpected
    assert not scene.worker.of("broker.lost")
    assert not scene.worker.of("job.crashed")
    assert not scene.worker.of("lcm.outage_started")
    assert scene.worker.peak_memory - memory < MOST_MEMORY


@pytest.mark.parametrize("name", NEIGHBOURS)
@pytest.mark.timeout_s(600)
async def test_good_jobs_beside_a_neighbour(
    name: str, full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """They are done while it goes on; what it did ends when it stops."""
    with faults.row("17", name) as row:
        async with staged(broker, vhost, full=full) as scene:
            memory = scene.worker.peak_memory
            async with NEIGHBOURS[name](scene):
                row.inject(name)
                await seconds_for(scene, 0, 1000 if full else 200)
            await check(scene, row, memory)


@pytest.mark.timeout_s(900)
async def test_good_jobs_beside_all_of_them(full: bool, broker: Node, vhost: str, faults: Report) -> None:
    """All at once cost the good jobs at most as much again as they take alone; the full form measures it."""
    count = 10_000 if full else 500
    with faults.row("18", "all at once") as row:
        async with staged(broker, vhost, full=full) as scene:
            memory = scene.worker.peak_memory
            alone = await seconds_for(scene, 0, count)
            async with AsyncExitStack() as stack:
                for name, neighbour in NEIGHBOURS.items():
                    await stack.enter_async_context(neighbour(scene))
                    row.inject(name)
                beside = await seconds_for(scene, count, count)
            await check(scene, row, memory)
            if full:  # in the quick form the harm is larger than the good
                assert beside <= MOST_TIME * alone
