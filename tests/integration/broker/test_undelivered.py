"""Results that no queue takes are parked and sent again, and hold up nobody: returned, refused, ignored, deleted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.support.broker import fall_silent, speak_again
from tests.support.channel import depth, open_channel, take, take_all
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from worker.broker.delivery import own_users
from worker.broker.outbox import Outbox
from worker.broker.publisher import Publisher
from worker.broker.topology import topology_of
from worker.broker.undelivered import Resender
from worker.common.clock import Clock
from worker.contract.disposition import Sent
from worker.contract.message import Message, Properties
from worker.sandbox.node import Node

RESULTS, UNDELIVERED, DEAD = (f"lcm.outcome.{name}" for name in ("results", "undelivered", "dead"))
FULL = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
SPEED = 30.0


async def sped_up(seconds: float) -> None:
    await asyncio.sleep(seconds / SPEED)


FAST = Clock(sleep=sped_up, monotonic=lambda: time.monotonic() * SPEED)
"""Pauses between canaries and passes are cut to a thirtieth; how long a confirm may take is not."""


@dataclass
class Sender:
    """A worker's side that publishes."""

    outbox: Outbox
    resender: Resender
    log: RecordingLog
    counted: Counter[str]

    async def send(self, *results: Message) -> list[Sent]:
        return list(await asyncio.gather(*(self.outbox.result(each, always) for each in results)))


def always() -> bool:
    return True


def result(number: int, route: str = "a") -> Message:
    properties = Properties(message_id=f"{route}-{number}", headers={"traceparent": "00-1"})
    return Message(RESULTS, f"result.succeeded.{route}", b"{}", properties)


@asynccontextmanager
async def sender(url: str, **settings: Any) -> AsyncIterator[Sender]:
    section = broker_settings(url, retry_delays=["10m"], **{"results_queue": False, **settings})
    topology, log, counted = topology_of(section), RecordingLog(), Counter[str]()

    def count(ended: str) -> None:
        counted[ended] += 1

    publisher = Publisher(section, topology, log, worker="w-1", clock=FAST, count=count)
    outbox = Outbox(publisher, topology, log, clock=FAST)
    resender = Resender(
        outbox, publisher, topology, log, users=own_users(section.urls), clock=FAST, count=lambda _: None
    )
    async with running(publisher.link.run()), running(resender.run()):
        await publisher.link.channel()
        yield Sender(outbox, resender, log, counted)


async def bind(channel: AbstractChannel, queue: str, route: str, **arguments: Any) -> None:
    await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum", **arguments})
    await channel.queue_bind(queue, RESULTS, f"result.*.{route}")


async def taken(channel: AbstractChannel, queue: str, count: int) -> list[str]:
    """Take so many messages off a queue and return their ids."""
    found = [await take(channel, queue) for _ in range(count)]
    assert all("outcome-routing-key" not in (each.header.properties.headers or {}) for each in found)
    return [each.header.properties.message_id or "" for each in found]


async def test_returned_results_are_parked_and_sent_when_a_queue_is_bound(vhost: str) -> None:
    """Nobody bound the route: each result is parked with its properties, other routes go on; all come when bound."""
    async with open_channel(vhost) as channel, sender(vhost) as here:
        await bind(channel, "other", "b")
        ends = await here.send(*(result(n) for n in range(64)), *(result(n, "b") for n in range(20)))
        assert Counter(ends) == {Sent.PARKED: 64, Sent.DELIVERED: 20}
        assert here.counted["returned"] <= 64
        await bind(channel, "own", "a")
        assert sorted(await taken(channel, "own", 64)) == sorted(f"a-{n}" for n in range(64))
        await until(lambda: here.log.of("result.route_recovered"))
        assert [line["routing_key"] for line in here.log.of("result.undelivered")][:1] == [
            "result.succeeded.a"
        ]
        assert await here.send(result(99)) == [Sent.DELIVERED]
        await until(lambda: is_empty(channel, UNDELIVERED))


async def is_empty(channel: AbstractChannel, queue: str) -> bool:
    return await depth(channel, queue) == 0


async def test_a_parked_result_keeps_its_properties(vhost: str) -> None:
    """What was parked has the same id and headers, and the routing key as one more header."""
    async with open_channel(vhost) as channel, sender(vhost) as here:
        await here.send(result(1))
        parked = await take(channel, UNDELIVERED)
    properties = parked.header.properties
    assert (properties.message_id, properties.delivery_mode) == ("a-1", 2)
    headers = {
        name: value for name, value in (properties.headers or {}).items() if name != "x-delivery-count"
    }
    assert headers == {"traceparent": "00-1", "outcome-routing-key": "result.succeeded.a"}


async def test_a_full_queue_costs_a_healthy_one_at_most_one_copy_more(vhost: str) -> None:
    """Refused by a full queue, results are parked at once; a healthy queue bound beside gets each twice at most."""
    async with open_channel(vhost) as channel, sender(vhost) as here:
        await bind(channel, "healthy", "a")
        await bind(channel, "full", "a", **FULL)
        assert await here.send(*(result(n) for n in range(3))) != []
        ends = await here.send(*(result(n) for n in range(3, 40)))
        assert set(ends) == {Sent.PARKED}
        await until(lambda: here.counted["refused"] > 4)
        await channel.queue_delete("full")
        await until(lambda: here.log.of("result.route_recovered"))
        copies = Counter[str]()

        async def all_came() -> bool:
            copies.update(await taken(channel, "healthy", await depth(channel, "healthy")))
            return copies.keys() == {f"a-{n}" for n in range(40)}

        await until(all_came)
        await until(lambda: is_empty(channel, UNDELIVERED))
        assert await all_came()
    assert max(copies.values()) <= 2


async def test_a_silent_queue_stops_only_its_own_route(broker: Node, vhost: str) -> None:
    """A queue that neither confirms nor refuses: its results are parked, those of other routes go meanwhile."""
    async with open_channel(vhost) as channel, sender(vhost) as here:
        await bind(channel, "silent", "a")
        await bind(channel, "other", "b")
        assert await here.send(result(0), result(0, "b")) == [Sent.DELIVERED] * 2
        await fall_silent(broker, vhost, "silent")
        try:
            lost = asyncio.ensure_future(here.send(*(result(n) for n in range(1, 30))))
            for n in range(1, 100):
                assert await here.send(result(n, "b")) == [Sent.DELIVERED]
            assert not lost.done()
            while not lost.done():
                assert await here.send(result(0, "b")) == [Sent.DELIVERED]
            assert set(await lost) == {Sent.PARKED}
            assert await here.send(result(30)) == [Sent.PARKED]
        finally:
            await speak_again(broker, vhost, "silent")
        await until(lambda: here.log.of("result.route_recovered"))
        await until(lambda: is_empty(channel, UNDELIVERED))
        found = {each.header.properties.message_id for each in await take_all(channel, "silent")}
        assert found == {f"a-{n}" for n in range(31)}
    assert "broker.lost" not in here.log.events


async def test_a_new_connection_is_not_blocked_by_a_silent_queue(broker: Node, vhost: str) -> None:
    """Pitfall: on a new channel the first publish to such a queue blocks all others. They go on another channel."""
    async with open_channel(vhost) as channel:
        async with sender(vhost):
            await bind(channel, "silent", "a")
            await bind(channel, "other", "b")
        await fall_silent(broker, vhost, "silent")
        try:
            async with sender(vhost) as here:
                ends = await here.send(result(1), *(result(n, "b") for n in range(10)), result(2))
                assert ends == [Sent.PARKED, *[Sent.DELIVERED] * 10, Sent.PARKED]
                assert "broker.lost" not in here.log.events
        finally:
            await speak_again(broker, vhost, "silent")


async def test_a_deleted_results_exchange_is_declared_again(vhost: str) -> None:
    """With `active`, our own exchange and queue come back when they are missed, on the same connection."""
    async with open_channel(vhost) as channel, sender(vhost, results_queue=True) as here:
        for delete in (channel.exchange_delete, channel.queue_delete):
            await delete(RESULTS)
            assert set(await here.send(*(result(n) for n in range(20)))) == {Sent.DELIVERED}
            assert len({each.header.properties.message_id for each in await take_all(channel, RESULTS)}) == 20
    assert "broker.lost" not in here.log.events


async def test_a_deleted_exchange_that_is_not_ours_to_declare_parks(vhost: str) -> None:
    """With `passive`, results without their exchange are parked, and the log names it."""
    async with open_channel(vhost) as channel:
        async with sender(vhost):
            pass
        async with sender(vhost, declare="passive") as here:
            await channel.exchange_delete(RESULTS)
            assert set(await here.send(*(result(n) for n in range(20)))) == {Sent.PARKED}
            assert (
                "exchange 'lcm.outcome.results' does not exist"
                in here.log.of("result.undelivered")[0]["reason"]
            )
            await channel.exchange_declare(RESULTS, exchange_type="topic", durable=True)
            await bind(channel, "own", "a")
            assert len(set(await taken(channel, "own", 20))) == 20


async def test_a_pass_leaves_nothing_at_the_head(vhost: str) -> None:
    """A route that still takes nothing stands before no other: what is behind it in the queue is sent."""
    async with open_channel(vhost) as channel, sender(vhost) as here:
        await here.send(*(result(n) for n in range(300)))
        await here.send(result(1, "b"))
        await bind(channel, "own", "b")
        assert await taken(channel, "own", 1) == ["b-1"]
        ids: set[str] = set()
        while len(ids) < 300:
            ids.add((await take(channel, UNDELIVERED)).header.properties.message_id or "")
        assert ids == {f"a-{n}" for n in range(300)}


async def test_what_is_no_parked_result_is_left_alone(vhost: str) -> None:
    """A message that somebody else put there has no routing key to go by: it stays."""
    async with open_channel(vhost) as channel, sender(vhost) as here:
        await channel.basic_publish(b"foreign", routing_key=UNDELIVERED)
        await until(lambda: len(here.log.of("result.undelivered")) >= 2)
    async with open_channel(vhost) as channel:
        assert (await take(channel, UNDELIVERED)).body == b"foreign"


async def test_a_result_that_another_user_parked_is_not_sent(vhost: str) -> None:
    """What no user of ours published stays, with its routing key and who published it, however often it is moved."""
    forged = spec.Basic.Properties(headers={"outcome-routing-key": "result.succeeded.a"})
    async with open_channel(vhost) as channel, sender(vhost) as here:
        await bind(channel, "own", "a")
        await channel.basic_publish(b"forged", routing_key=UNDELIVERED, properties=forged)
        await until(lambda: len(here.log.of("result.undelivered")) >= 3)
        assert await depth(channel, "own") == 0
    async with open_channel(vhost) as channel:
        found = (await take(channel, UNDELIVERED)).header.properties
    headers = dict(found.headers or {})
    assert (headers["outcome-routing-key"], headers["outcome-user-id"]) == ("result.succeeded.a", "")
    assert found.user_id == "guest"


async def test_two_workers_send_each_parked_result_once(vhost: str) -> None:
    """Of several workers one makes a pass at a time, so nothing is sent twice."""
    async with open_channel(vhost) as channel, sender(vhost) as one, sender(vhost) as other:
        await asyncio.gather(one.send(*(result(n) for n in range(100))), other.send(result(100)))
        await bind(channel, "own", "a")
        ids = await taken(channel, "own", 101)
        await until(lambda: is_empty(channel, UNDELIVERED))
        assert await depth(channel, "own") == 0
    assert sorted(ids) == sorted(f"a-{n}" for n in range(101))
