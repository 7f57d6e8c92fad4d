"""Fault row 8: a results queue that doesn't take, in each of four ways, beside one that does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from aiormq.exceptions import DeliveryError

from tests.faults.rig.amqp_frames import AmqpConversation, is_publish
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.support.broker import fall_silent, speak_again
from tests.support.channel import open_channel
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from worker.sandbox.node import Node
from worker.settings import BrokerSettings
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

RESULTS, OWN, TROUBLED = "lcm.outcome.results", "dialer.results", "dialer.troubled"
FULL: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
SETTINGS: dict[str, object] = {
    "lcm.sessions": 4,
    "broker.results_queue": False,
    "broker.retry_delays": "1s,2s",
}


def settings_of(url: str) -> BrokerSettings:
    return broker_settings(url, results_queue=False, retry_delays=["1s", "2s"])


def accounts(first: int, count: int) -> list[str]:
    return [f"{n}|1|2|0|0|44|{n}" for n in range(first, first + count)]


def said(worker: WorkerProcess, event: str, times: int) -> bool:
    return len(worker.of(event)) >= times


@dataclass
class Scene:
    """The broker, and a channel with the dialer's own queue, which takes the results of route `b`."""

    broker: Node
    url: str
    channel: AbstractChannel

    async def make(self, queue: str, *keys: str, **arguments: Any) -> None:
        await self.channel.queue_declare(
            queue, durable=True, arguments={"x-queue-type": "quorum", **arguments}
        )
        for key in keys:
            await self.channel.queue_bind(queue, RESULTS, key)


@asynccontextmanager
async def returned(scene: Scene) -> AsyncIterator[None]:
    """Bind no queue for route `a`."""
    yield
    await scene.make(OWN, "result.*.a")


@asynccontextmanager
async def refused(scene: Scene) -> AsyncIterator[None]:
    """Bind a full queue for route `a` beside the dialer's own, and delete it at the end."""
    await scene.make(OWN, "result.*.a")
    await scene.make(TROUBLED, "result.*.a", **FULL)
    with suppress(DeliveryError):  # once it is full
        for _ in range(10):
            await scene.channel.basic_publish(b"", routing_key=TROUBLED)
    yield
    await scene.channel.queue_delete(TROUBLED)


@asynccontextmanager
async def silent(scene: Scene) -> AsyncIterator[None]:
    """Bind a queue for route `a` that neither confirms nor refuses, beside the dialer's own."""
    await scene.make(OWN, "result.*.a")
    await scene.make(TROUBLED, "result.*.a")
    await fall_silent(scene.broker, scene.url, TROUBLED)
    try:
        yield
    finally:
        await speak_again(scene.broker, scene.url, TROUBLED)


@asynccontextmanager
async def deleted(scene: Scene) -> AsyncIterator[None]:
    """Delete the results exchange, and bind the dialer's queue for route `b` alone to the one that is declared anew."""
    await scene.channel.exchange_delete(RESULTS)
    await scene.channel.exchange_declare(RESULTS, exchange_type="topic", durable=True)
    await scene.make(OWN, "result.*.b")
    yield
    await scene.make(OWN, "result.*.a")


Way = Callable[[Scene], AbstractAsyncContextManager[None]]
WAYS: dict[str, Way] = {"returned": returned, "refused": refused, "silent": silent, "deleted": deleted}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.timeout_s(300)
async def test_results_that_are_not_taken_stop_no_others(
    way: str, full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """Route `a` is parked and holds nothing; route `b` goes on; nothing is asked twice; all come in the end."""
    batch = 300 if full else 64
    with faults.row("8", way) as row:
        async with (
            Simulator() as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(settings_of(vhost), broker, results=OWN, collect=False) as ledger,
            open_channel(vhost) as channel,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **SETTINGS}) as worker,
        ):
            scene = Scene(broker, vhost, channel)
            await scene.make(OWN, "result.*.b")
            await worker.started()
            await ledger.submit(accounts(0, 4), route="b")
            await until(partial(said, worker, "job.succeeded", 4))
            async with WAYS[way](scene):
                row.inject(way)
                ledger.start_collecting()
                await ledger.submit(accounts(100, batch), route="a")
                good = await ledger.submit(accounts(1000, batch), route="b")
                await until(lambda: set(good) <= set(ledger.results))
                await until(partial(said, worker, "job.succeeded", 4 + 2 * batch))
                parked = [line for line in worker.of("job.succeeded") if line.get("parked")]
                assert len(parked) >= batch - 4
                assert not worker.of("broker.lost")
            await ledger.settled(180)
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert len(simulator.record) == len(ledger.accounts)
            # A queue beside the one that refuses, or is silent, gets what is tried there once more.
            assert ledger.repeats <= (0 if way in {"returned", "deleted"} else batch + 5)


@pytest.mark.timeout_s(300)
async def test_failed_results_that_nobody_takes_hold_nothing_up(
    full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """Pitfall: a consumer bound to `result.succeeded` alone. A failed result is tried once; its dead letter stays."""
    failing_accounts = Behaviour(rules=(Rule("*|0", "refuse"),))
    with faults.row("8", "succeeded alone") as row:
        async with (
            Simulator(failing_accounts) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(settings_of(vhost), broker, results=OWN) as ledger,
            open_channel(vhost) as channel,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **SETTINGS}) as worker,
        ):
            await Scene(broker, vhost, channel).make(OWN, "result.succeeded")
            await worker.started()
            jobs = range(600 if full else 100)
            ids = await ledger.submit([f"{n}|{n % 5}" for n in jobs])
            failing = {job_id for n, job_id in zip(jobs, ids, strict=True) if n % 5 == 0}
            await ledger.settled()
            await until(partial(said, worker, "result.unroutable", len(failing)))
            row.inject("unroutable", len(worker.of("result.unroutable")))
            row.count(ledger.counts())
            ledger.assert_invariants(mendable=False)
            assert wire_violations(amqp.recorder) == []
            assert not ledger.failed
            assert ledger.dead.keys() == failing
            letters = [letter for letters in ledger.dead.values() for letter in letters]
            assert {letter.code for letter in letters} == {"lcm_rejected"}
            assert {line["job_id"] for line in worker.of("result.unroutable")} == failing
            published = amqp.recorder.of(is_publish(exchange_suffix=".results"))
            tried = [seen for seen in published if seen.frame.content.routing_key == "result.failed"]
            assert len(tried) == len(failing)
            assert not worker.of("job.deferred")
