"""Fault row 10: the broker stopped, killed, absent, or without its jobs queue for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.faults.rig.amqp_frames import (
    AmqpConversation,
    Content,
    confirms_the,
    is_client_ack,
    is_delivery,
    is_method,
    is_publish,
)
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.support.broker import running_broker
from tests.support.channel import open_channel
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.lane import Hold
from tests.support.wire.proxy import Proxy
from tests.support.wire.record import FROM_WORKER, TO_WORKER
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

JOBS = "lcm.outcome.jobs"
IN_HAND = 64
BUSY: dict[str, object] = {
    "lcm.sessions": IN_HAND,
    "broker.prefetch": IN_HAND,
    "broker.publish_timeout": "9m",
}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Give a node that these tests may stop and kill, and leave running."""
    with running_broker(Node()) as own:
        yield own


def accounts(count: int) -> list[str]:
    return [f"{n}|1|2|0|0|44|{n}" for n in range(count)]


def in_hand(amqp: Proxy) -> int:
    """Count what was delivered on the connections that are open, and not acknowledged yet."""
    delivered: dict[Content, None] = {}
    for seen in amqp.record:
        if seen.connection not in amqp.connections:
            continue
        if is_delivery()(seen.frame):
            delivered[seen.frame.content] = None
        elif is_client_ack()(seen.frame):
            for content in seen.frame.settles:
                delivered.pop(content, None)
    return len(delivered)


async def restart(node: Node, amqp: Proxy, hold: Hold) -> None:
    """Stop the node in good order, and start it."""
    since = len(amqp.record)
    restarting = asyncio.get_running_loop().create_task(node.restart())
    await amqp.passed(is_method("connection.close"), since=since)
    hold.reset()
    await restarting


async def kill(node: Node, _amqp: Proxy, hold: Hold) -> None:
    """Kill the node, and start it."""
    await node.flush()
    await node.kill()
    hold.reset()
    await node.start()


HELD: dict[str, Callable[[Proxy], Hold]] = {
    "publish": lambda amqp: amqp.hold_at(is_publish(exchange_suffix=".results"), FROM_WORKER, nth=20),
    "confirm": lambda amqp: amqp.hold_at(confirms_the(20, exchange_suffix=".results"), TO_WORKER),
}
DOWN = {"stopped": (restart, "publish"), "killed": (kill, "confirm")}


@pytest.mark.parametrize("how", DOWN)
@pytest.mark.timeout_s(300)
async def test_the_broker_goes_with_its_jobs_in_hand(
    how: str, full: bool, node: Node, faults: Report
) -> None:
    """60 jobs and more in work, their results on the way: all end well once the broker is back."""
    bring_down, quick = DOWN[how]
    vhost = await node.add_vhost(how)
    with faults.row("10", how) as row:
        async with (
            Simulator(Behaviour(delay=0.3, jitter=0.3)) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(broker_settings(vhost), node) as ledger,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **BUSY}) as worker,
        ):
            await worker.started()
            for held in HELD if full else (quick,):
                # With that held no job ends, so the worker comes to have as many in work as it may.
                hold = HELD[held](amqp)
                await ledger.submit(accounts(200))
                await hold
                await until(lambda: in_hand(amqp) >= 60)
                await bring_down(node, amqp, hold)
                row.inject(f"broker {how}")
                await ledger.settled(deadline=120)
                if held == "confirm":
                    assert ledger.repeats >= 1, "the broker had taken results of which the worker didn't hear"
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert worker.returncode is None
            assert {line["role"] for line in worker.of("broker.lost")} == {"consume", "publish"}


@pytest.mark.timeout_s(300)
async def test_the_jobs_queue_is_deleted_and_made_again(full: bool, node: Node, faults: Report) -> None:
    """What waits in it goes with it; what the worker has in hand, and whatever comes later, is done."""
    vhost = await node.add_vhost("deleted")
    settings: dict[str, object] = {"lcm.sessions": 4, "broker.prefetch": 16}
    with faults.row("10", "jobs queue deleted") as row:
        async with (
            Simulator(Behaviour(delay=0.2, jitter=0.2)) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(broker_settings(vhost), node) as ledger,
            open_channel(vhost) as channel,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **settings}) as worker,
        ):
            await worker.started()
            for _ in range(4 if full else 1):
                await ledger.submit(accounts(60))
                since = len(amqp.record)
                await until(partial(working_on, amqp, 16, since))
                await channel.queue_delete(JOBS)
                row.inject("queue deleted")
                cancelled = await amqp.passed(is_method("basic.cancel"), since=since)
                before = amqp.record[: cancelled.seq]
                handed_out = {seen.frame.content.job_id for seen in before if is_delivery()(seen.frame)}
                for job_id in ledger.accounts.keys() - handed_out:
                    del ledger.accounts[job_id]
                await ledger.submit(accounts(20))
                await ledger.settled()
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert worker.returncode is None


def working_on(amqp: Proxy, least: int, since: int) -> bool:
    return len(amqp.recorder.of(is_client_ack(), since=since)) >= 5 and in_hand(amqp) >= least


@pytest.mark.timeout_s(300)
async def test_the_broker_is_absent_when_the_worker_starts(node: Node, faults: Report) -> None:
    """The worker says so, waits without being ready, and does what is there as soon as the broker comes."""
    vhost = await node.add_vhost("absent")
    with faults.row("10", "absent at the start") as row:
        async with (
            Simulator() as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(broker_settings(vhost), node) as ledger,
        ):
            await ledger.submit(accounts(60))
            await node.flush()
            await node.kill()
            row.inject("absent")
            async with WorkerProcess({"broker.url": vhost, "lcm.url": simulator.url}) as worker:
                for role in ("consume", "publish"):
                    await until(partial(tried_twice, worker, role), deadline=60)
                assert not worker.of("worker.ready")
                assert not simulator.record
                await node.start()
                await worker.started(deadline=120)
                await ledger.settled()
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert ledger.repeats == 0


def tried_twice(worker: WorkerProcess, role: str) -> bool:
    return len([line for line in worker.of("broker.unreachable") if line["role"] == role]) >= 2
