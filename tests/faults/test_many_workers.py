"""Fault row 14: many workers at once, accounts that repeat, and sessions that drop at any moment."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report, Row
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from tests.support.wire.proxy import Proxy
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

DELAYS = ["500ms", "1s", "2s"]
SETTINGS: dict[str, object] = {
    "lcm.reply_timeout": "500ms",
    "retry.first_delay": "10ms",
    "retry.max_delay": "50ms",
    "outage.probe_delay": "100ms",
    "outage.probe_max_delay": "400ms",
    "broker.retry_delays": DELAYS,
}
OFTEN = 60  # exchanges between two cuts


@pytest.mark.timeout_s(300)
async def test_every_job_gets_its_own_list_from_many_workers(
    broker: Node, vhost: str, faults: Report, *, full: bool
) -> None:
    """Two jobs in five are for one of five accounts; whatever drops, each job has the list of its own account."""
    number, jobs = (8, 2400) if full else (3, 300)
    with faults.row("14", "sessions drop at random") as row:
        drawn = {fault: row.random.uniform(0.01, 0.04) for fault in ("reset", "close", "twice", "late")}
        behaviour = Behaviour(faults=drawn, jitter=0.02, late_by=0.8, seed=row.random.getrandbits(32))
        async with AsyncExitStack() as stack:
            simulator = await stack.enter_async_context(Simulator(behaviour))
            amqp = await stack.enter_async_context(Proxy(AmqpConversation, vhost))
            settings = broker_settings(vhost, retry_delays=DELAYS)
            ledger = await stack.enter_async_context(Ledger(settings, broker))
            workers = [
                await stack.enter_async_context(
                    WorkerProcess(
                        {
                            "broker.url": amqp.url,
                            "lcm.url": simulator.url,
                            "lcm.sessions": row.random.randint(2, 4),
                            **SETTINGS,
                        }
                    )
                )
                for _ in range(number)
            ]
            await asyncio.gather(*(worker.started() for worker in workers))
            async with running(drop_sessions(simulator, row)):
                await ledger.submit(mixed(jobs, row.random))
                await ledger.settled(deadline=200)
            row.count_faults(Counter(each.fault for each in simulator.record if each.fault))
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert simulator.violations == 0
            assert all(worker.of("job.succeeded") for worker in workers)
            assert simulator.max_in_flight == 1
            assert any(
                line["source"] == "shared" for worker in workers for line in worker.of("job.succeeded")
            )


def mixed(number: int, drawn: random.Random) -> list[str]:
    """Return accounts of which two in five are the same few."""
    few = [f"{n}|1|2|0|0|44|0" for n in range(5)]
    return [drawn.choice(few) if drawn.random() < 0.4 else f"{n}|1|2|0|0|44|{n}" for n in range(number)]


def asked(simulator: Simulator, least: int) -> bool:
    return len(simulator.record) >= least


async def drop_sessions(simulator: Simulator, row: Row) -> None:
    """Every so often cut all sessions, or those that are idle: cleanly, or by a reset."""
    while True:
        await until(partial(asked, simulator, len(simulator.record) + OFTEN), deadline=math.inf)
        reset, idle_only = row.random.random() < 0.5, row.random.random() < 0.5
        row.inject("idle sessions dropped" if idle_only else "all sessions dropped")
        await simulator.close_sessions(reset=reset, idle_only=idle_only)
