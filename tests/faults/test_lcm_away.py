"""Fault row 6: LCM is away for longer than all retry delays together, again and again. It is nobody's fault."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation, is_delivery
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.faults.rig.ws_frames import WsConversation, is_request
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

NAMES = ["worker-1", "worker-2", "worker-3", "worker-4"]
WORKERS = len(NAMES)
PREFETCH = 10
DELAYS = ["400ms", "500ms"]
SETTINGS: dict[str, object] = {
    "lcm.sessions": 2,
    "broker.prefetch": PREFETCH,
    "broker.delivery_limit": 2,
    "broker.retry_delays": DELAYS,
    "outage.probe_delay": "200ms",
    "outage.probe_max_delay": "400ms",
    "log.stats_interval": "500ms",
}
# Statistics, one every 500 ms: for longer than all retry delays together.
LONG = 4


@pytest.mark.timeout_s(400)
async def test_lcm_comes_and_goes(broker: Node, vhost: str, faults: Report, *, full: bool) -> None:
    """However often a job is deferred, no budget and no delivery is used up for it, and all succeed in the end."""
    with faults.row("6", "comes and goes") as row:
        async with AsyncExitStack() as stack:
            simulator = await stack.enter_async_context(Simulator(Behaviour(delay=0.3)))
            amqp = await stack.enter_async_context(Proxy(AmqpConversation, vhost))
            lcm = await stack.enter_async_context(Proxy(WsConversation, simulator.url))
            limited = broker_settings(vhost, retry_delays=DELAYS, delivery_limit=2)
            ledger = await stack.enter_async_context(Ledger(limited, broker))
            workers = [
                await stack.enter_async_context(WorkerProcess(settings_of(name, amqp.url, lcm.url)))
                for name in NAMES
            ]
            await asyncio.gather(*(worker.started() for worker in workers))
            for number in range(10 if full else 4):
                await submit_what_fills(ledger, number)
                await until(partial(all_are_asking, simulator, len(simulator.record)), deadline=60)
                await lcm.refuse()
                await simulator.stop()
                row.inject("away")
                await all_say("lcm.outage_started", number + 1, workers)
                await all_say(
                    "worker.stats", [said(worker, "worker.stats") + LONG for worker in workers], workers
                )
                await simulator.start()
                await lcm.listen()
                await all_say("lcm.outage_ended", number + 1, workers)
            await ledger.settled(deadline=120)
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert amqp.recorder.of(is_delivery(redelivered=True)) == []
            lines = [line for worker in workers for line in worker.log]
            assert {line["event"] for line in lines}.isdisjoint(
                {"job.retry_later", "job.failed", "job.stale"}
            )
            deferred = Counter(line["job_id"] for line in lines if line["event"] == "job.deferred")
            assert max(deferred.values()) > len(DELAYS)
            requests = Counter(seen.frame.account for seen in lcm.recorder.of(is_request()))
            done = [line for line in lines if line["event"] == "job.succeeded"]
            assert not [line for line in done if line["attempts"] > requests[line["account"]]]


@pytest.mark.timeout_s(400)
async def test_the_agent_is_not_logged_in(broker: Node, vhost: str, faults: Report, *, full: bool) -> None:
    """With the default settings that is about LCM, not about an account: no job dies of it, and all succeed later."""
    with faults.row("6", "not logged in") as row:
        async with (
            Simulator(Behaviour(login="LogIn")) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(broker_settings(vhost, retry_delays=DELAYS, delivery_limit=2), broker) as ledger,
            WorkerProcess(settings_of(NAMES[0], amqp.url, simulator.url)) as worker,
        ):
            await ledger.submit(f"{n}|1|2|0|0|44|{n}" for n in range(2000 if full else 200))
            await all_say("lcm.outage_started", 1, [worker])
            row.inject("not logged in")
            await all_say("worker.stats", said(worker, "worker.stats") + LONG, [worker])
            simulator.behaviour = Behaviour()
            await ledger.settled(deadline=120)
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert amqp.recorder.of(is_delivery(redelivered=True)) == []


def settings_of(name: str, broker: str, lcm: str) -> dict[str, object]:
    named = {"worker.name": name, "lcm.session_name": "{worker}.{n}"}
    return {"broker.url": broker, "lcm.url": lcm, **named, **SETTINGS}


async def submit_what_fills(ledger: Ledger, number: int) -> None:
    """Submit as many jobs as all workers together then have in hand, so that none of them is without one."""
    open_ones = len(ledger.accounts) - len(ledger.results)
    await ledger.submit(f"{number}|{n}|2|0|0|44|{n}" for n in range(WORKERS * PREFETCH - open_ones))


def all_are_asking(simulator: Simulator, since: int) -> bool:
    """Tell whether LCM owes every worker a reply."""
    owed = {exchange.connection for exchange in simulator.record[since:] if exchange.replied is None}
    names = {(each.name or "").partition(".")[0] for each in simulator.connections if each.number in owed}
    return names >= set(NAMES)


def said(worker: WorkerProcess, event: str) -> int:
    return len(worker.of(event))


async def all_say(event: str, times: int | list[int], workers: Sequence[WorkerProcess]) -> None:
    """Wait until each worker has said it so often."""
    wanted = times if isinstance(times, list) else [times] * len(workers)
    await until(
        lambda: all(said(worker, event) >= least for worker, least in zip(workers, wanted, strict=True)),
        deadline=60,
    )
