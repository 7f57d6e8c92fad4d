"""Fault row 8: nobody takes the results, or only some of them, or whoever takes them is full."""

from __future__ import annotations

from functools import partial

import pytest
from aiormq.abc import AbstractChannel
from pamqp.common import FieldTable

from tests.faults.rig.amqp_frames import AmqpConversation, is_publish, is_refusal, is_return
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.proxy import Proxy
from tests.faults.rig.record import FROM_WORKER
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.support import broker_settings, open_channel, until
from worker.sandbox.lcm import Behaviour, Simulator
from worker.sandbox.lcm_behaviour import Rule
from worker.sandbox.rabbitmq import Node
from worker.settings import BrokerSettings

RESULTS, OWN = "lcm.outcome.results", "dialer.results"
SESSIONS = 4
PREFETCH = 2 * SESSIONS
HOLDS = {"held": "10m", "deferred": "1s"}
SETTINGS: dict[str, object] = {
    "lcm.sessions": SESSIONS,
    "broker.results_queue": False,
    "broker.retry_delays": "1s,2s",
}


def settings_of(url: str) -> BrokerSettings:
    return broker_settings(url, results_queue=False, retry_delays=["1s", "2s"])


def accounts(count: int) -> list[str]:
    return [f"{n}|1|2|0|0|44|{n}" for n in range(count)]


async def make_queue(channel: AbstractChannel, key: str, limit: FieldTable | None = None) -> None:
    """Bind a dialer's own queue, as the only one, to the results."""
    await channel.queue_declare(OWN, durable=True, arguments={"x-queue-type": "quorum", **(limit or {})})
    await channel.queue_bind(OWN, RESULTS, key)


def said(worker: WorkerProcess, event: str, times: int) -> bool:
    return len(worker.of(event)) >= times


def returned(amqp: Proxy, jobs: int, since: int) -> bool:
    """Tell whether the broker has returned the results of so many jobs."""
    return len({seen.frame.content.job_id for seen in amqp.recorder.of(is_return(), since=since)}) >= jobs


@pytest.mark.parametrize("way", HOLDS)
@pytest.mark.timeout_s(300)
async def test_results_wait_until_a_queue_is_bound(
    way: str, full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """Unbound in mid-work: held and said once an episode, deferred after outage.hold; all go out when bound again."""
    batch = 60
    with faults.row("8", f"unbound, {way}") as row:
        async with (
            Simulator() as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(settings_of(vhost), broker, results=OWN) as ledger,
            open_channel(vhost) as channel,
            WorkerProcess(
                {"broker.url": amqp.url, "lcm.url": simulator.url, "outage.hold": HOLDS[way], **SETTINGS}
            ) as worker,
        ):
            await make_queue(channel, "result.#")
            await worker.started()
            for episode in range(1, 4 if full else 2):
                nth = row.random.randrange(5, 30)
                hold = amqp.hold_at(is_publish(exchange_suffix=".results"), FROM_WORKER, nth=nth)
                done = len(ledger.accounts)
                await ledger.submit(accounts(batch))
                await hold
                # Else an earlier result could be confirmed after the first that is returned: two episodes.
                await until(partial(said, worker, "job.succeeded", done + nth - 1))
                await channel.queue_unbind(OWN, RESULTS, "result.#")
                row.inject("unbound")
                since = len(amqp.record)
                hold.release()
                await until(partial(returned, amqp, PREFETCH, since))
                if way == "deferred":
                    await until(partial(said, worker, "job.deferred", episode * PREFETCH))
                await channel.queue_bind(OWN, RESULTS, "result.#")
                await ledger.settled()
                told = [(line["routing_key"], line["held"]) for line in worker.of("result.unroutable")]
                assert told == [("result.succeeded", True)] * episode
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert ledger.repeats == 0
            if way == "held":
                assert len(simulator.record) == len(ledger.accounts)
            assert all("held too long" in line["reason"] for line in worker.of("job.deferred"))
            assert bool(worker.of("job.deferred")) == (way == "deferred")


@pytest.mark.timeout_s(300)
async def test_failed_results_that_nobody_takes_hold_nothing_up(
    full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """Pitfall: a consumer bound to `result.succeeded` alone. A failed result is tried once; its dead letter stays."""
    refused = Behaviour(rules=(Rule("*|0", "refuse"),))
    with faults.row("8", "succeeded alone") as row:
        async with (
            Simulator(refused) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(settings_of(vhost), broker, results=OWN) as ledger,
            open_channel(vhost) as channel,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **SETTINGS}) as worker,
        ):
            await make_queue(channel, "result.succeeded")
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
            told = {(line["job_id"], line["held"]) for line in worker.of("result.unroutable")}
            assert told == {(job_id, False) for job_id in failing}
            published = amqp.recorder.of(is_publish(exchange_suffix=".results"))
            tried = [seen for seen in published if seen.frame.content.routing_key == "result.failed"]
            assert len(tried) == len(failing)
            assert not worker.of("job.deferred")


@pytest.mark.timeout_s(300)
async def test_results_wait_until_a_full_queue_has_room(
    full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """Refused by a full queue with reject-publish, results are held, and go out as it is drained."""
    with faults.row("8", "queue full") as row:
        async with (
            Simulator() as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(settings_of(vhost), broker, results=OWN, collect=False) as ledger,
            open_channel(vhost) as channel,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **SETTINGS}) as worker,
        ):
            await make_queue(channel, "result.#", {"x-max-length": 5, "x-overflow": "reject-publish"})
            await worker.started()
            await ledger.submit(accounts(200 if full else 40))
            await amqp.passed(is_refusal(exchange_suffix=".results"))
            await until(lambda: worker.of("publish.refused"))
            assert worker.of("publish.refused")[0]["held"] is True
            await ledger.settled()
            row.inject("refused", len(amqp.recorder.of(is_refusal(exchange_suffix=".results"))))
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert ledger.repeats == 0
            assert len(simulator.record) == len(ledger.accounts)
            assert not worker.of("job.deferred")
