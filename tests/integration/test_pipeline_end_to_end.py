"""A job's whole way on a real broker and a simulated LCM: what it leaves in which queue, and with which properties."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid5

from aiormq import spec
from aiormq.abc import AbstractChannel, DeliveredMessage

from tests.support.channel import depth, open_channel, take, take_all
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation, anything
from tests.support.wire.record import TO_WORKER
from worker.app import App
from worker.broker.consumer import Consumer
from worker.broker.outbox import Outbox
from worker.broker.publisher import Publisher
from worker.broker.topology import topology_of
from worker.contract.disposition import Disposition
from worker.contract.job import NAMESPACE
from worker.contract.lookup import ExchangeTiming, LookupRequest, LookupResult
from worker.contract.message import Message, Properties
from worker.contract.outcomes import OutcomeList
from worker.pipeline import Pipeline
from worker.sandbox.node import Node
from worker.settings import Settings
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

JOBS, RESULTS, DEAD = "lcm.outcome.jobs", "lcm.outcome.results", "lcm.outcome.dead"
# Headers that the broker adds to whatever it hands out.
BROKER_S = {"x-delivery-count"}


class World:
    """A running worker, its LCM, its log, and a channel of the test's own."""

    def __init__(self, channel: AbstractChannel, lcm: Simulator, app: App, log: RecordingLog) -> None:
        self.channel = channel
        self.lcm = lcm
        self.app = app
        self.log = log

    async def submit(self, body: object, **properties: Any) -> bytes:
        """Publish a job, given as JSON or as bytes, and return its body."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.channel.basic_publish(
            raw,
            exchange=JOBS,
            routing_key="job",
            properties=spec.Basic.Properties(delivery_mode=2, **properties),
            mandatory=True,
        )
        return raw

    async def result(self) -> tuple[dict[str, Any], DeliveredMessage]:
        message = await take(self.channel, RESULTS)
        return json.loads(message.body), message

    async def settled(self) -> None:
        """Wait until nothing is in hand."""
        await until(lambda: self.app.consumer.in_flight == 0)


@asynccontextmanager
async def working(
    url: str, behaviour: Behaviour | None = None, *, publish_url: str = "", **sections: dict[str, Any]
) -> AsyncIterator[World]:
    """Run a worker with tiny delays; at its end it is drained and the jobs queue is empty."""
    async with Simulator(behaviour) as lcm:
        given: dict[str, dict[str, Any]] = {
            "broker": {"url": url, "retry_delays": ["40ms", "80ms"], "prefetch": 8},
            "lcm": {"url": lcm.url, "sessions": 2, "reply_timeout": "5s"},
            "retry": {"attempts": 1},
            "worker": {"name": "w-1"},
        }
        settings = Settings.model_validate(
            {name: values | sections.get(name, {}) for name, values in given.items()}
        )
        log = RecordingLog()
        app = App(settings, log)
        async with running(app.run()) as run, open_channel(publish_url or url) as channel:
            await until(lambda: run.done() or "worker.ready" in log.events)
            yield World(channel, lcm, app, log)
            app.stop()
            await run
            assert await take_all(channel, JOBS) == []
            assert lcm.violations == 0
            assert lcm.max_in_flight <= 1


def own_headers(message: DeliveredMessage) -> dict[str, Any]:
    """Return a message's headers, but for those that the broker adds."""
    headers = message.header.properties.headers or {}
    return {name: value for name, value in headers.items() if name not in BROKER_S}


async def test_a_job_becomes_a_result(vhost: str) -> None:
    """A succeeded job leaves one result, in the contract's form, and nothing anywhere else."""
    async with working(vhost) as world:
        headers = {"traceparent": "00-0af7-b7ad-01", "tracestate": "a=b", "other": "x"}
        job = {"job_id": "job-1", "account_number": "18|1", "route": "emea", "metadata": {"campaign": 7}}
        await world.submit(job, correlation_id="c-1", headers=headers)
        result, message = await world.result()
        await world.settled()
        assert await depth(world.channel, DEAD) == await depth(world.channel, RESULTS) == 0
    assert list(result) == [
        "job_id", "account_number", "status", "outcomes", "fingerprint", "warnings", "source", "attempts",
        "looked_up_at", "completed_at", "duration_ms", "worker", "metadata",
    ]  # fmt: skip
    assert (result["job_id"], result["account_number"], result["status"]) == ("job-1", "18|1", "succeeded")
    assert (result["source"], result["attempts"], result["worker"]) == ("lcm", 1, "w-1")
    assert (result["metadata"], result["warnings"]) == ({"campaign": 7}, [])
    properties = message.header.properties
    assert message.routing_key == "result.succeeded.emea"
    assert (properties.content_type, properties.message_type) == ("application/json", "lcm.outcome.result.v1")
    assert (properties.correlation_id, properties.app_id) == ("c-1", "lcm-outcome-worker")
    assert properties.delivery_mode == 2
    assert own_headers(message) == {"traceparent": "00-0af7-b7ad-01", "tracestate": "a=b"}
    assert properties.message_id == str(uuid5(NAMESPACE, '["job-1","18|1","succeeded",0]'))


async def test_a_repeat_carries_the_same_message_id(vhost: str) -> None:
    """Delivery is at least once: both results of a job submitted twice have one message id and one fingerprint."""
    async with working(vhost, lcm={"share": False}) as world:
        for _ in range(2):
            await world.submit({"job_id": "job-1", "account_number": "18|1"})
        (first, one), (second, two) = await world.result(), await world.result()
        assert len(world.lcm.record) == 2
    assert one.header.properties.message_id == two.header.properties.message_id
    assert one.header.properties.correlation_id == "job-1"
    assert first["fingerprint"] == second["fingerprint"]


async def test_the_amqp_message_id_serves_as_job_id(vhost: str) -> None:
    """A job without an id in its body is known by its message id, else by one derived from its body."""
    async with working(vhost) as world:
        await world.submit({"account_number": "18|1"}, message_id="m-1")
        assert (await world.result())[0]["job_id"] == "m-1"


async def test_a_rejected_job_is_dead_lettered_and_said(vhost: str) -> None:
    """What LCM rejects is in the dead-letter queue, byte for byte, with all headers, and has a failed result."""
    async with working(vhost, Behaviour(rules=(Rule("bad", "refuse"),))) as world:
        body = await world.submit(b'{"account_number" : "bad",\n "job_id":"job-1" }', correlation_id="c-1")
        result, message = await world.result()
        dead = await take(world.channel, DEAD)
        assert "job.failed" in world.log.events
    assert (result["status"], result["error"]["code"]) == ("failed", "lcm_rejected")
    assert result["error"]["transient"] is False
    assert not {"outcomes", "fingerprint", "source", "looked_up_at"} & result.keys()
    assert (message.routing_key, message.header.properties.correlation_id) == ("result.failed", "c-1")
    assert dead.body == body
    headers = own_headers(dead)
    assert datetime.now(UTC) - datetime.fromisoformat(headers.pop("outcome-failed-at")) < timedelta(minutes=1)
    assert headers == {
        "outcome-job-id": "job-1",
        "outcome-error-code": "lcm_rejected",
        "outcome-error-reason": result["error"]["message"],
        "outcome-attempts": 1,
        "outcome-worker": "w-1",
    }


async def test_a_body_that_is_no_job_fails_too(vhost: str) -> None:
    """Whatever bytes come in, they end in the dead-letter queue, with a failed result."""
    async with working(vhost) as world:
        for body in (b"", b"\xff\x00", b"[]", b"{" * 5000, b'{"account_number": "' + b"x" * 70_000 + b'"}'):
            await world.submit(body)
            result, message = await world.result()
            assert result["error"]["code"] == "invalid_job"
            assert result["account_number"] is None
            assert message.header.properties.correlation_id == result["job_id"]
            assert (await take(world.channel, DEAD)).body == body
        assert world.lcm.record == []


async def test_a_job_goes_through_the_retry_queues_and_succeeds(vhost: str) -> None:
    """After two transient failures, each followed by a delay, the third delivery succeeds, all attempts counted."""
    async with working(vhost, Behaviour(rules=(Rule("slow", "error", 2),))) as world:
        await world.submit({"job_id": "job-1", "account_number": "slow"})
        result, _ = await world.result()
        assert (result["status"], result["attempts"]) == ("succeeded", 3)
        assert [fields["delay"] for fields in world.log.of("job.retry_later")] == [0.04, 0.08]
        assert len(world.lcm.record) == 3
        assert await depth(world.channel, DEAD) == 0


async def test_a_job_that_never_succeeds_fails_after_its_last_delay(vhost: str) -> None:
    """Once per delay, then no more: the job fails with its last error and every attempt counted."""
    async with working(vhost, Behaviour(rules=(Rule("never", "boolean"),))) as world:
        await world.submit({"job_id": "job-1", "account_number": "never"})
        result, _ = await world.result()
        headers = own_headers(await take(world.channel, DEAD))
        assert len(world.lcm.record) == 3
    assert (result["error"]["code"], result["error"]["transient"], result["attempts"]) == (
        "malformed_reply",
        True,
        3,
    )
    assert (headers["outcome-error-code"], headers["outcome-attempts"]) == ("malformed_reply", 3)
    assert "outcome-retries" not in headers


async def test_a_deadline_ends_the_retries(vhost: str) -> None:
    """A delay that would pass the deadline is not begun: the job expires, with a result and no dead-letter copy."""
    soon = (datetime.now(UTC) + timedelta(seconds=300)).isoformat()
    rules = Behaviour(rules=(Rule("never", "error"),))
    async with working(vhost, rules, broker={"url": vhost, "retry_delays": ["40ms", "10m"]}) as world:
        await world.submit({"job_id": "job-1", "account_number": "never", "deadline": soon})
        result, _ = await world.result()
        await world.settled()
        assert await depth(world.channel, DEAD) == 0
    assert result["error"]["code"] == "expired"
    assert "lcm_error" in result["error"]["message"]
    assert result["attempts"] == 2


async def test_nobody_bound_for_failures_stops_no_work(vhost: str) -> None:
    """Pitfall: a consumer bound to `result.succeeded` alone. The failed result is logged, the next job goes on."""
    rules = Behaviour(rules=(Rule("bad", "refuse"),))
    async with working(vhost, rules, broker={"url": vhost, "results_queue": False}) as world:
        own = (await world.channel.queue_declare("", exclusive=True)).queue or ""
        await world.channel.queue_bind(own, RESULTS, "result.succeeded")
        await world.submit({"job_id": "job-1", "account_number": "bad"})
        assert own_headers(await take(world.channel, DEAD))["outcome-job-id"] == "job-1"
        await world.submit({"job_id": "job-2", "account_number": "good"})
        assert json.loads((await take(world.channel, own)).body)["job_id"] == "job-2"
        await world.settled()
        assert world.log.of("result.unroutable") == [{"job_id": "job-1", "account": "bad"}]


async def test_no_job_is_acknowledged_before_its_result_is_confirmed(broker: Node, vhost: str) -> None:
    """Promise 1: though its result stands in the queue, a job stays the broker's until the confirm has come."""
    log, reported = RecordingLog(), list[Disposition]()

    async def look_up(_request: LookupRequest) -> LookupResult:
        return LookupResult(
            OutcomeList([("0", "Success")]), datetime.now(UTC), datetime.now(UTC), ExchangeTiming(1, 1, 0.0)
        )

    async with Proxy(RawConversation, vhost) as proxy, open_channel(vhost) as channel:
        near, far = broker_settings(vhost), broker_settings(proxy.url)
        topology = topology_of(near)
        publisher = Publisher(far, topology, log, worker="w-1")
        pipeline = Pipeline(
            look_up, Outbox(publisher, topology, log), topology, worker="w-1", delivery_limit=20
        )
        consumer = Consumer(
            near, topology, log, handle=pipeline, defer=pipeline.defer, report=reported.append, worker="w-1"
        )
        async with running(publisher.link.run()), running(consumer.link.run()):
            await asyncio.gather(publisher.link.channel(), consumer.link.channel())
            first = Message(RESULTS, "result.failed", b"", Properties(message_id="first"))
            publisher.channels.give_back(await publisher.channels.lend(first, alone=False))
            hold = proxy.hold_at(anything, TO_WORKER)
            body = b'{"account_number": "18|1"}'
            await channel.basic_publish(body, exchange=JOBS, routing_key="job")
            await until(lambda: holds(channel, RESULTS, 1))
            assert (consumer.in_flight, reported) == (1, [])
            assert (await broker.queues(vhost.rpartition("/")[2]))[JOBS]["messages"] == 1
            hold.release()
            await until(lambda: reported)
            assert await consumer.drain(30) == 0
        assert await take_all(channel, JOBS) == []


async def holds(channel: AbstractChannel, queue: str, count: int) -> bool:
    return await depth(channel, queue) == count


async def test_a_stale_delivery_is_not_looked_up(vhost: str) -> None:
    """Pitfall: deliveries buffered from a lost channel. Jobs that waited when the connection went are asked for once.

    Only the one that was with LCM at that moment may be asked for again.
    """
    async with Proxy(RawConversation, vhost) as proxy:
        slow = Behaviour(delay=0.3)
        async with working(proxy.url, slow, publish_url=vhost, lcm={"sessions": 1}) as world:
            for number in range(4):
                await world.submit({"job_id": f"job-{number}", "account_number": f"a-{number}"})
            await until(lambda: world.app.consumer.in_flight == 4 and world.lcm.record)
            proxy.reset()
            ids = {(await world.result())[0]["job_id"] for _ in range(4)}
            await world.settled()
            asked = Counter(exchange.account for exchange in world.lcm.record)
            assert await depth(world.channel, RESULTS) == 0
            assert len(world.log.of("job.stale")) == 4
            first = world.lcm.record[0].account
    assert ids == {f"job-{number}" for number in range(4)}
    assert asked - Counter([first]) in (Counter(asked.keys()), Counter(asked.keys()) - Counter([first]))
