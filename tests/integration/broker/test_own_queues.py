"""Queues of our own that refuse, full or deleted: no job waits in its place for them, and other jobs go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count

import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.support.channel import depth, open_channel, take_all
from tests.support.log import RecordingLog
from tests.support.waiting import running, until
from worker.app import App
from worker.sandbox.node import Node
from worker.settings import load
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

JOBS, RESULTS, DEAD, RETRY = (f"lcm.outcome.{name}" for name in ("jobs", "results", "dead", "retry.10m"))
BEHAVIOUR = Behaviour(rules=(Rule("bad*", "refuse"), Rule("odd*", "not-json")))


@dataclass
class Here:
    app: App
    log: RecordingLog
    channel: AbstractChannel
    url: str

    async def submit(self, *accounts: str) -> None:
        properties = spec.Basic.Properties(delivery_mode=2)
        await asyncio.gather(
            *(
                self.channel.basic_publish(
                    json.dumps({"account_number": account}).encode(), routing_key=JOBS, properties=properties
                )
                for account in accounts
            )
        )

    async def ready(self) -> bool:
        return self.app.status.ready().ok


@asynccontextmanager
async def working(url: str, **settings: str) -> AsyncIterator[Here]:
    log = RecordingLog()
    async with Simulator(BEHAVIOUR) as lcm, open_channel(url) as channel:
        given = {
            "BROKER__URL": url,
            "LCM__URL": lcm.url,
            "BROKER__RETRY_DELAYS": "1s",
            "GUARD__RATIO": "0",
            "RETRY__ATTEMPTS": "1",
            "OUTAGE__FAILURES": "1000",
            **settings,
        }
        app = App(load(None, {f"LCM_WORKER_{name}": value for name, value in given.items()}), log)
        async with running(app.run()) as work:
            await until(lambda: "worker.ready" in log.events)
            yield Here(app, log, channel, url)
            app.stop()
            app.stop()
            await work


async def limit(broker: Node, url: str, queue: str, most: int) -> None:
    """Set a length limit by policy, as an operator does."""
    vhost = url.rpartition("/")[2]
    pattern = "^" + queue.replace(".", "[.]") + "$"
    await broker.ctl(
        "set_policy", "-p", vhost, "full", pattern, json.dumps({"max-length": most}), "--apply-to", "queues"
    )


async def unlimited(broker: Node, url: str) -> None:
    await broker.ctl("clear_policy", "-p", url.rpartition("/")[2], "full")


def ended(here: Here, count: int) -> bool:
    return len(here.log.of("job.failed") + here.log.of("job.deferred")) >= count


def good_done(here: Here, count: int) -> bool:
    return len(here.log.of("job.succeeded")) >= count


@pytest.mark.timeout_s(120)
async def test_a_full_dead_letter_queue_stops_no_good_job(broker: Node, vhost: str) -> None:
    """60 bad jobs ahead of 50 good ones: the bad ones are deferred, and end once there is room."""
    async with working(vhost) as here:
        await limit(broker, vhost, DEAD, 1)
        await here.submit("bad0", "bad1")  # RabbitMQ notices that a queue is full a moment after it is
        await until(lambda: ended(here, 2))
        await here.submit(*(f"bad{n}" for n in range(2, 60)), *(f"good{n}" for n in range(50)))
        await until(lambda: good_done(here, 50) and here.log.of("job.deferred"))
        assert len(here.log.of("job.failed")) < 10
        assert any("dead-letter queue" in line["reason"] for line in here.log.of("job.deferred"))
        assert [line["exchange"] for line in here.log.of("queue.refuses")] == ["lcm.outcome.dead"]
        await unlimited(broker, vhost)
        await until(lambda: len(here.log.of("job.failed")) >= 60, deadline=60)
        assert await depth(here.channel, DEAD) == 60


async def test_a_deleted_dead_letter_queue_is_declared_again(vhost: str) -> None:
    """Under a standing exchange: the first dead letter is returned, so the queue is declared, and takes them all."""
    async with working(vhost) as here:
        await here.channel.queue_delete(DEAD)
        await here.submit(*(f"bad{n}" for n in range(60)), *(f"good{n}" for n in range(50)))
        await until(lambda: good_done(here, 50) and len(here.log.of("job.failed")) >= 60)
        assert not here.log.of("job.deferred")
        assert await depth(here.channel, DEAD) == 60


@pytest.mark.timeout_s(120)
async def test_a_deleted_dead_letter_queue_of_others_is_named(vhost: str) -> None:
    """With `passive` nothing is declared: the log names what is missing, bad jobs are deferred, good ones go on."""
    async with working(vhost):
        pass
    async with working(vhost, BROKER__DECLARE="passive") as here:
        await here.channel.queue_delete(DEAD)
        await here.submit(*(f"bad{n}" for n in range(60)), *(f"good{n}" for n in range(50)))
        await until(lambda: good_done(here, 50) and len(here.log.of("job.deferred")) >= 60)
        assert (
            "no queue takes 'dead' of exchange 'lcm.outcome.dead'" in here.log.of("queue.refuses")[0]["error"]
        )
        await here.channel.queue_declare(
            DEAD,
            durable=True,
            arguments={"x-queue-type": "quorum", "x-delivery-limit": 1000000, "x-overflow": "reject-publish"},
        )
        await here.channel.queue_bind(DEAD, DEAD, "dead")
        await until(lambda: len(here.log.of("job.failed")) >= 60, deadline=60)


@pytest.mark.timeout_s(120)
async def test_a_full_retry_queue_pauses_the_intake(broker: Node, vhost: str) -> None:
    """A refused retry copy has no other place: no more jobs are taken, the worker is not ready and says why."""
    async with working(vhost, BROKER__RETRY_DELAYS="10m") as here:
        await limit(broker, vhost, RETRY, 1)
        odd = (f"odd{n}" for n in count())

        async def is_paused() -> bool:
            await here.submit(next(odd))  # RabbitMQ notices that a queue is full a moment after it is
            return "worker.paused" in here.log.events

        await until(is_paused)
        assert here.log.of("worker.paused")[0]["reason"] == "copies_refused"
        [reason] = [each for each in here.app.status.ready().reasons if each.code == "copies_refused"]
        assert "refused" in reason.detail
        assert len(here.log.of("copies.refused")) == 1
        await unlimited(broker, vhost)
        submitted = int(next(odd).removeprefix("odd"))
        # What came while the consumer was being cancelled is deferred.
        copied = partial(here.log.of, "job.retry_later"), partial(here.log.of, "job.deferred")
        await until(lambda: sum(len(lines()) for lines in copied) == submitted, deadline=60)
        await until(lambda: here.app.status.ready().ok)
        await here.submit("good")
        await until(lambda: good_done(here, 1))


async def test_a_deleted_retry_queue_is_declared_again(vhost: str) -> None:
    """The first copy that is returned has it declared."""
    async with working(vhost, BROKER__RETRY_DELAYS="10m") as here:
        await here.channel.queue_delete(RETRY)
        await here.submit("odd1", "odd2", "odd3", "good")
        await until(lambda: good_done(here, 1) and len(here.log.of("job.retry_later")) >= 3)
        assert "worker.paused" not in here.log.events
        assert await depth(here.channel, RETRY) == 3


@pytest.mark.timeout_s(120)
@pytest.mark.parametrize("how", ["full", "deleted"])
async def test_where_not_even_the_undelivered_queue_takes_results_jobs_are_deferred(
    broker: Node, vhost: str, how: str
) -> None:
    """Results that nobody takes and that can't be parked: their jobs go round, no place is held, nothing is lost."""
    async with working(vhost, BROKER__RESULTS_QUEUE="false") as here:
        await here.channel.queue_declare("own", durable=True)
        await here.channel.queue_bind("own", RESULTS, "result.succeeded.b")
        undelivered = "lcm.outcome.undelivered"
        if how == "full":
            # By one result before the others: a queue takes more than its limit of what comes at once.
            await limit(broker, vhost, undelivered, 1)
            await here.submit("good0")
            await until(lambda: good_done(here, 1))
        else:
            await here.channel.queue_delete(undelivered)
            await here.submit("good0")
        await here.submit(*(f"good{n}" for n in range(1, 30)))
        if how == "deleted":
            await until(lambda: good_done(here, 30))
            assert await depth(here.channel, undelivered) == 30
            return
        await until(lambda: len(here.log.of("job.deferred")) >= 29)
        await unlimited(broker, vhost)
        await until(lambda: good_done(here, 30), deadline=60)
        ids = {each.header.properties.message_id for each in await take_all(here.channel, undelivered)}
        assert len(ids) == 30
