"""Deliveries are taken as many as set, handled in tasks of their own, and settled once, by what they came to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.faults.rig.amqp_frames import AmqpConversation
from tests.support.broker import close_connections
from tests.support.channel import depth, open_channel, take, take_all
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, settled, until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation, anything
from tests.support.wire.record import FROM_WORKER, TO_WORKER, Recorder
from worker.broker.consumer import Consumer, Defer
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.common.clock import Clock
from worker.contract.disposition import Disposition, Ending
from worker.contract.errors import Deferred
from worker.contract.intake import PauseReason
from worker.contract.message import Delivery
from worker.sandbox.node import Node

JOBS, DEAD = "lcm.outcome.jobs", "lcm.outcome.dead"


class Handler:
    """Handles deliveries as told: each waits until it may go on, then ends by `ending`, or by `error`."""

    def __init__(self, *, ending: Ending = Ending.SUCCEEDED, open_gate: bool = True) -> None:
        self.ending = ending
        self.error: Exception | None = None
        self.seen: list[Delivery] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        if open_gate:
            self.gate.set()

    async def __call__(self, delivery: Delivery) -> Disposition:
        self.seen.append(delivery)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return Disposition(self.ending)


class Rig:
    def __init__(
        self,
        url: str,
        handle: Callable[[Delivery], Awaitable[Disposition]],
        defer: Defer | None = None,
        **settings: Any,
    ) -> None:
        section = broker_settings(url, retry_delays=["10m"], **settings)
        self.log = RecordingLog()
        self.reported: list[Disposition] = []
        self.consumer = Consumer(
            section,
            topology_of(section),
            self.log,
            handle=handle,
            defer=defer or never,
            report=self.reported.append,
            worker="w-1",
            clock=Clock(sleep=soon),
        )


async def never(_delivery: Delivery, _reason: Deferred) -> Disposition:
    raise AssertionError("nothing here is put off")


async def soon(_seconds: float) -> None:
    await asyncio.sleep(0.01)


@asynccontextmanager
async def consuming(
    url: str, handle: Callable[[Delivery], Awaitable[Disposition]], **settings: Any
) -> AsyncIterator[Rig]:
    """Give a consumer that consumes; at the end its connection is closed, with whatever is in hand."""
    rig = Rig(url, handle, **settings)
    async with running(rig.consumer.link.run()):
        await rig.consumer.link.channel()
        yield rig
        await rig.consumer.give_up()


async def submit(channel: AbstractChannel, *message_ids: str) -> None:
    await declare(channel, topology_of(broker_settings("amqp://x/", retry_delays=["10m"])))
    for message_id in message_ids:
        properties = spec.Basic.Properties(delivery_mode=2, message_id=message_id)
        await channel.basic_publish(b"{}", exchange=JOBS, routing_key="job", properties=properties)


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.properties.message_id or "" for delivery in deliveries]


def many(count: int) -> list[str]:
    return [f"m-{number}" for number in range(count)]


async def holds(channel: AbstractChannel, queue: str, count: int) -> bool:
    return await depth(channel, queue) == count


async def test_as_many_are_in_hand_as_prefetch_says(broker: Node, vhost: str) -> None:
    """Pitfall: prefetch 0 is the whole queue. The broker hands out just as many as set, and the rest stays there."""
    handler = Handler(open_gate=False)
    async with open_channel(vhost) as channel, consuming(vhost, handler, prefetch=3) as rig:
        await submit(channel, *many(10))
        await until(lambda: len(handler.seen) == 3)

        async def counted() -> bool:
            counts = (await broker.queues(vhost.rpartition("/")[2]))[JOBS]
            return counts == {"messages": 10, "ready": 7, "unacked": 3}

        await until(counted)
        assert rig.consumer.in_flight == len(handler.seen) == 3
        assert repr(rig.consumer) == "<Consumer 3 in flight, <Link consume up, generation 1>>"
        handler.gate.set()
        await until(lambda: len(rig.reported) == 10)
    async with open_channel(vhost) as channel:
        assert await take_all(channel, JOBS) == []


async def test_nothing_is_acknowledged_before_it_is_handled(vhost: str) -> None:
    """A delivery in hand stays the broker's: it comes back when the connection goes, said to be a repeat."""
    handler = Handler(open_gate=False)
    async with open_channel(vhost) as channel:
        await submit(channel, "m-1")
        async with Proxy(RawConversation, vhost) as proxy, consuming(proxy.url, handler):
            await until(lambda: handler.seen)
            proxy.reset()
            await until(lambda: len(handler.seen) == 2)
            assert [delivery.redelivered for delivery in handler.seen] == [False, True]
            assert [delivery.is_current() for delivery in handler.seen] == [False, True]


async def test_a_stale_delivery_is_handled_to_its_end_but_not_settled(vhost: str) -> None:
    """Pitfalls: callbacks die with the channel, and tags of a lost channel are unknown to the next one.

    The job in hand is not cancelled, its late ack is not sent, and the second delivery is the one that counts.
    """
    handler = Handler(open_gate=False)
    async with open_channel(vhost) as channel:
        await submit(channel, "m-1")
        async with Proxy(RawConversation, vhost) as proxy, consuming(proxy.url, handler) as rig:
            await until(lambda: handler.seen)
            proxy.reset()
            await until(lambda: len(handler.seen) == 2)
            assert (handler.cancelled, rig.consumer.in_flight) == (0, 2)
            handler.gate.set()
            await until(lambda: len(rig.reported) == 2)
            await rig.consumer.drain(1)
            assert rig.log.events == ["broker.connected", "broker.lost", "broker.connected"]
        assert await take_all(channel, JOBS) == []


async def test_a_crash_of_the_handler_dead_letters(vhost: str) -> None:
    """What even failing failed for is handed to the broker, which dead-letters it; the others go on."""
    handler = Handler()
    handler.error = TypeError("a defect")
    async with open_channel(vhost) as channel, consuming(vhost, handler) as rig:
        await submit(channel, "m-1")
        dead = await take(channel, DEAD)
        assert (dead.header.properties.message_id, dead.body) == ("m-1", b"{}")
        assert rig.log.of("job.crashed") == [{"message_id": "m-1"}]
        assert rig.reported == []
        handler.error = None
        await submit(channel, "m-2")
        await until(lambda: rig.reported)


async def test_what_is_not_to_be_settled_is_left_alone(vhost: str) -> None:
    """A Disposition that says so is neither acknowledged nor rejected: the broker keeps the job."""
    async with open_channel(vhost) as channel:
        async with consuming(vhost, Handler(ending=Ending.STALE)) as rig:
            await submit(channel, "m-1")
            await until(lambda: rig.reported)
        assert (await take(channel, JOBS)).redelivered


async def test_a_drain_loses_no_ack(vhost: str) -> None:
    """Pitfall: closing drops acks that are not yet written. After drain and close the queue holds nothing."""
    for _ in range(5):
        handler = Handler(open_gate=False)
        async with open_channel(vhost) as channel:
            await submit(channel, *many(60))
            async with consuming(vhost, handler, prefetch=60) as rig:
                await until(lambda: len(handler.seen) == 60)  # noqa: B023 - awaited at once
                handler.gate.set()
                assert await rig.consumer.drain(30) == 0
            assert await take_all(channel, JOBS) == []


async def test_a_drain_finishes_what_is_in_hand_and_takes_no_more(vhost: str) -> None:
    """While draining nothing new is taken; what is in hand is handled to its end and acknowledged."""
    handler = Handler(open_gate=False)
    async with open_channel(vhost) as channel:
        await submit(channel, "m-1", "m-2")
        async with consuming(vhost, handler, prefetch=2) as rig:
            await until(lambda: len(handler.seen) == 2)
            draining = asyncio.ensure_future(rig.consumer.drain(30))
            await submit(channel, "m-3")
            await until(lambda: holds(channel, JOBS, 1))
            assert not draining.done()
            handler.gate.set()
            assert await draining == 0
        assert ids(handler.seen) == ["m-1", "m-2"]
        [left] = await take_all(channel, JOBS)
        assert (left.header.properties.message_id, left.redelivered) == ("m-3", False)


async def test_deliveries_under_way_when_a_drain_begins_are_deferred(broker: Node, vhost: str) -> None:
    """They would only go back, each counted by the broker as returned: so a copy of each takes its place."""
    deferred: list[Delivery] = []

    async def defer(delivery: Delivery, _reason: Deferred) -> Disposition:
        deferred.append(delivery)
        return Disposition(Ending.DEFERRED)

    async with Proxy(RawConversation, vhost) as proxy, open_channel(vhost) as channel:
        async with consuming(proxy.url, Handler(), defer=defer) as rig:
            hold = proxy.hold_at(anything, TO_WORKER)
            await submit(channel, "m-1", "m-2")
            await until(lambda: handed_out(broker, vhost, 2))
            draining = asyncio.ensure_future(rig.consumer.drain(30))
            await asyncio.sleep(0)
            hold.release()
            assert await draining == 0
        assert len(deferred) == 2
        await until(lambda: holds(channel, JOBS, 0))


@pytest.mark.timeout_s(120)
async def test_pausing_at_full_load_returns_nothing(vhost: str) -> None:
    """Pitfall: what the broker has assigned and not sent counts as returned when a consumer is cancelled."""
    seen: list[Delivery] = []

    async def handle(delivery: Delivery, _reason: Deferred | None = None) -> Disposition:
        seen.append(delivery)
        return Disposition(Ending.SUCCEEDED)

    async with open_channel(vhost) as channel:
        await submit(channel)
        for _ in range(40):
            jobs = (channel.basic_publish(b"{}", exchange=JOBS, routing_key="job") for _ in range(1000))
            await asyncio.gather(*jobs)
        async with consuming(vhost, handle, defer=handle, prefetch=64) as rig:
            for _ in range(50):
                count = len(seen)
                await until(lambda: len(seen) > count + 200)  # noqa: B023 - awaited at once
                rig.consumer.pause(PauseReason.GUARD)
                await rig.consumer.emptied()
                rig.consumer.resume(PauseReason.GUARD)
            assert await rig.consumer.drain(30) == 0
        left = await take_all(channel, JOBS)
    assert left
    returned = [each for each in left if (each.header.properties.headers or {}).get("x-delivery-count")]
    assert (len(returned), [each.delivery_count for each in seen if each.delivery_count]) == (0, [])


def cancels_and_acks(recorder: Recorder) -> list[str]:
    """Return what the worker sent of these, in its order."""
    sent = [seen.frame.kind for seen in recorder.entries if seen.direction is FROM_WORKER]
    return [kind for kind in sent if kind in {"basic.cancel", "basic.ack"}]


async def pause(consumer: Consumer) -> None:
    consumer.pause(PauseReason.GUARD)
    await consumer.emptied()


async def drain(consumer: Consumer) -> None:
    assert await consumer.drain(30) == 0


async def take_another(consumer: Consumer) -> None:
    assert await consumer.take_one(30)


@pytest.mark.parametrize(
    ("stop", "jobs", "prefetch"),
    [(pause, 2, 2), (pause, 2, 4), (drain, 2, 2), (drain, 2, 4), (take_another, 3, 2)],
)
async def test_a_consumer_is_cancelled_once_what_it_brought_has_ended(
    vhost: str, stop: Callable[[Consumer], Awaitable[None]], jobs: int, prefetch: int
) -> None:
    """Pitfall: what a cancelled consumer has in hand, a quorum queue hands out no more where that one's node dies."""
    recorder, handler = Recorder(), Handler(open_gate=False)
    async with Proxy(AmqpConversation, vhost, recorder=recorder) as proxy, open_channel(vhost) as channel:
        await submit(channel, *many(jobs))
        async with consuming(proxy.url, handler, prefetch=prefetch) as rig:
            await until(lambda: len(handler.seen) == 2)
            stopping = asyncio.ensure_future(stop(rig.consumer))
            await until(lambda: len(handler.seen) == jobs)
            await settled()
            await rig.consumer.depth()  # which the broker answers after all that it was told before
            assert cancels_and_acks(recorder) == []
            handler.gate.set()
            await stopping
            await rig.consumer.depth()
        assert cancels_and_acks(recorder).index("basic.cancel") < len(cancels_and_acks(recorder)) - 1


async def handed_out(node: Node, url: str, count: int) -> bool:
    return (await node.queues(url.rpartition("/")[2]))[JOBS]["unacked"] == count


async def test_a_link_rebuilt_during_a_drain_takes_nothing(vhost: str) -> None:
    """The connection may go while draining: its successor does not consume, so that others get the jobs."""
    handler = Handler(open_gate=False)
    async with open_channel(vhost) as channel:
        await submit(channel, "m-1")
        async with Proxy(RawConversation, vhost) as proxy, consuming(proxy.url, handler) as rig:
            await until(lambda: handler.seen)
            draining = asyncio.ensure_future(rig.consumer.drain(30))
            await asyncio.sleep(0)
            proxy.reset()
            await until(lambda: rig.log.events.count("broker.connected") == 2)
            await until(lambda: holds(channel, JOBS, 1))
            handler.gate.set()
            await draining
        assert len(handler.seen) == 1


async def test_what_takes_longer_than_the_grace_is_given_up(vhost: str) -> None:
    """When the grace is over, what is still in hand is cancelled, counted, and goes back to the queue."""
    handler = Handler(open_gate=False)
    async with open_channel(vhost) as channel:
        await submit(channel, *many(3))
        async with consuming(vhost, handler) as rig:
            await until(lambda: len(handler.seen) == 3)
            assert await rig.consumer.drain(0.01) == 3
            assert (handler.cancelled, rig.consumer.in_flight) == (3, 0)
        await until(lambda: holds(channel, JOBS, 3))
        assert all(job.redelivered for job in await take_all(channel, JOBS))


async def test_giving_up_returns_everything(vhost: str) -> None:
    """A second signal: whatever is in hand is cancelled at once and goes back; nothing is settled."""
    handler = Handler(open_gate=False)
    async with open_channel(vhost) as channel:
        await submit(channel, *many(3))
        async with consuming(vhost, handler) as rig:
            await until(lambda: len(handler.seen) == 3)
            assert await rig.consumer.give_up() == 3
            await submit(channel, "m-3")
        await until(lambda: holds(channel, JOBS, 4))
    assert rig.reported == []
    assert len(handler.seen) == 3


async def test_a_drain_without_a_broker_ends(vhost: str) -> None:
    """While the broker is away, or frozen, a drain waits for what is in hand, and for nothing else."""
    handler = Handler(open_gate=False)
    async with open_channel(vhost) as channel, Proxy(RawConversation, vhost) as proxy:
        await submit(channel, "m-1")
        async with consuming(proxy.url, handler) as rig:
            await until(lambda: handler.seen)
            await proxy.refuse()
            proxy.reset()
            await until(lambda: not rig.consumer.link.is_up)
            handler.gate.set()
            assert await rig.consumer.drain(30) == 0


async def test_a_deleted_queue_is_declared_and_consumed_again(vhost: str) -> None:
    """Pitfall: connected but not consuming. When the broker cancels the consumer the whole link is rebuilt."""
    handler = Handler()
    async with open_channel(vhost) as channel, consuming(vhost, handler) as rig:
        await channel.queue_delete(JOBS)
        await until(lambda: rig.log.events.count("broker.connected") == 2)
        await submit(channel, "m-1")
        await until(lambda: rig.reported)
    assert rig.log.of("broker.lost")[0]["reason"] == "the broker cancelled the consumer"


async def test_what_is_in_hand_when_the_queue_is_deleted_is_finished(vhost: str) -> None:
    """Nobody would deliver it again: it stays wanted when its consumer is cancelled, and is handled to its end."""
    handler = Handler(open_gate=False)
    async with open_channel(vhost) as channel, consuming(vhost, handler) as rig:
        await submit(channel, "m-1", "m-2")
        await until(lambda: len(handler.seen) == 2)
        await channel.queue_delete(JOBS)
        await until(lambda: rig.log.events.count("broker.connected") == 2)
        assert [delivery.is_current() for delivery in handler.seen] == [True, True]
        handler.gate.set()
        await until(lambda: len(rig.reported) == 2)
        await submit(channel, "m-3")
        await until(lambda: len(rig.reported) == 3)


async def test_up_means_that_the_broker_has_the_consumer(broker: Node, vhost: str) -> None:
    """Whenever the link says that it is up, in its first life or a later one, the broker lists the consumer."""
    async with open_channel(vhost) as channel, consuming(vhost, Handler()) as rig:
        for times in (2, 3):
            assert (await channel.queue_declare(JOBS, passive=True)).consumer_count == 1
            lost = (await rig.consumer.link.channel()).connection
            await broker.eval(closing("w-1 consume"))
            await until(lambda: lost.is_closed)  # noqa: B023 - awaited at once
            await until(lambda: rig.log.events.count("broker.connected") == times)  # noqa: B023 - likewise
            assert rig.consumer.link.is_up


def closing(name: str) -> str:
    """Return the Erlang that closes the connections of this name."""
    told = "term_to_binary(catch rabbit_networking:connection_info(Pid, [client_properties]))"
    return (
        '[rabbit_networking:close_connection(Pid, "a test") || Pid <- rabbit_networking:connections(), '
        f'binary:match({told}, <<"{name}">>) =/= nomatch]'
    )


async def test_acks_on_a_dying_connection_keep_no_job(vhost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the library takes a connection down nobody reads its queue of frames: no job waits there for ever."""
    monkeypatch.setattr("worker.broker.consumer._LAST_WORDS_TIMEOUT", 0.05)
    handler = Handler(open_gate=False)
    async with open_channel(vhost) as channel, consuming(vhost, handler, prefetch=60) as rig:
        await submit(channel, *many(60))
        await until(lambda: len(handler.seen) == 60)
        connection: Any = (await rig.consumer.link.channel()).connection
        connection._writer_task.cancel()
        handler.gate.set()
        await until(lambda: rig.log.events.count("broker.connected") == 2)
        await until(lambda: rig.consumer.in_flight == 0)


async def test_a_lost_broker_takes_no_job_with_it(broker: Node, vhost: str) -> None:
    """However often all connections are closed, each job is handled in the end, and the queue is empty."""
    handler = Handler()
    rig = Rig(vhost, handler, prefetch=5)
    async with open_channel(vhost) as channel:
        await submit(channel, *many(100))
    async with running(rig.consumer.link.run()):
        for times in (1, 2, 3):
            await until(lambda: rig.log.events.count("broker.connected") >= times)  # noqa: B023 - awaited at once
            await close_connections(broker, vhost)
        await until(lambda: {*ids(handler.seen)} == {*many(100)})

        # What the last closing gave back to the queue comes once more, over the next connection.
        async def emptied() -> bool:
            return (await broker.queues(vhost.rpartition("/")[2]))[JOBS]["messages"] == 0

        await until(emptied)
        assert await rig.consumer.drain(30) == 0


async def test_deliveries_that_come_before_the_link_is_up_are_stopped_all_the_same(vhost: str) -> None:
    """Pitfall: a suspect that came while the link was being prepared ran before the others were stopped."""
    rig = Rig(vhost, Handler())
    prepare, prepared = rig.consumer.link._prepare, asyncio.Event()
    reached = asyncio.Event()

    async def prepare_slowly(channel: AbstractChannel, generation: int) -> None:
        await prepare(channel, generation)
        reached.set()
        await prepared.wait()

    rig.consumer.link._prepare = prepare_slowly
    async with running(rig.consumer.link.run()):
        await reached.wait()
        rig.consumer.pause(PauseReason.SUSPECT)
        emptied = asyncio.ensure_future(rig.consumer.emptied())
        await settled()
        assert not emptied.done()
        prepared.set()
        await emptied
        assert not rig.consumer.consuming


async def test_what_is_resumed_before_the_link_is_up_consumes(vhost: str) -> None:
    """A pause that ends while the link is being prepared, too late for it to notice, is caught up with."""
    handler = Handler()
    rig = Rig(vhost, handler)
    rig.consumer.pause(PauseReason.OUTAGE)
    prepare = rig.consumer.link._prepare

    async def prepare_and_resume(channel: AbstractChannel, generation: int) -> None:
        await prepare(channel, generation)
        rig.consumer.resume(PauseReason.OUTAGE)

    rig.consumer.link._prepare = prepare_and_resume
    async with open_channel(vhost) as channel, running(rig.consumer.link.run()):
        await until(lambda: rig.consumer.consuming)
        await submit(channel, "m-1")
        await until(lambda: handler.seen)


async def test_what_is_paused_before_the_link_is_up_does_not_consume(vhost: str) -> None:
    """A pause that begins while the consumer is being made stops it again."""
    handler = Handler()
    rig = Rig(vhost, handler)
    prepare = rig.consumer.link._prepare

    async def prepare_and_pause(channel: AbstractChannel, generation: int) -> None:
        await prepare(channel, generation)
        rig.consumer.pause(PauseReason.OUTAGE)

    rig.consumer.link._prepare = prepare_and_pause
    async with open_channel(vhost) as channel, running(rig.consumer.link.run()):
        await until(lambda: rig.consumer.link.is_up and not rig.consumer.consuming)
        await until(lambda: has_consumers(channel, 0))
        await submit(channel, "m-1")
        await until(lambda: holds(channel, JOBS, 1))
        assert await rig.consumer.take_one(30)
        assert len(handler.seen) == 1


async def has_consumers(channel: AbstractChannel, count: int) -> bool:
    """Tell whether the jobs queue has so many consumers."""
    return (await channel.queue_declare(JOBS, passive=True)).consumer_count == count


async def test_a_paused_worker_gets_its_turn_beside_others(vhost: str) -> None:
    """Pitfall: a healthy neighbour leaves nothing in the queue. Who waits for one job is given one, and no second."""
    busy, paused = Handler(), Handler()
    neighbour, rig = Rig(vhost, busy), Rig(vhost, paused)
    rig.consumer.pause(PauseReason.GUARD)
    async with open_channel(vhost) as channel, running(neighbour.consumer.link.run()):
        await until(lambda: neighbour.consumer.consuming)
        async with running(rig.consumer.link.run()):
            taking = asyncio.ensure_future(rig.consumer.take_one(600))
            await until(partial(has_consumers, channel, 2))
            for number in range(6):
                await submit(channel, f"m-{number}")
            assert await taking
            await until(lambda: len(busy.seen) == 5)
            assert len(paused.seen) == 1
            assert not rig.consumer.consuming
            assert await has_consumers(channel, 1)


async def test_who_waits_for_one_job_does_not_keep_a_worker_from_its_end(vhost: str) -> None:
    """Asked to leave, it waits no more, and what comes afterwards was never delivered to it."""
    rig = Rig(vhost, Handler())
    rig.consumer.pause(PauseReason.GUARD)
    async with open_channel(vhost) as channel:
        async with running(rig.consumer.link.run()):
            await until(lambda: rig.consumer.link.is_up)
            taking = asyncio.ensure_future(rig.consumer.take_one(600))
            await until(partial(has_consumers, channel, 1))
            assert await rig.consumer.drain(grace=600) == 0
            assert not await taking
            await submit(channel, "m-1")
            assert not await rig.consumer.take_one(600)
        message = await take(channel, JOBS)
    assert not (message.header.properties.headers or {}).get("x-delivery-count")


async def test_who_waits_for_one_job_notices_that_the_connection_is_lost(vhost: str, broker: Node) -> None:
    """It gives up at once, and may wait again on the next connection."""
    handler = Handler()
    rig = Rig(vhost, handler)
    rig.consumer.pause(PauseReason.GUARD)
    async with open_channel(vhost) as channel, running(rig.consumer.link.run()):
        await until(lambda: rig.consumer.link.is_up)
        taking = asyncio.ensure_future(rig.consumer.take_one(600))
        await until(partial(has_consumers, channel, 1))
        await close_connections(broker, vhost)
        assert not await taking
        async with open_channel(vhost) as another:
            await submit(another, "m-1")
            assert await rig.consumer.take_one(600)
    assert len(handler.seen) == 1


async def test_who_waits_for_one_job_trusts_no_broker_that_does_not_answer(vhost: str) -> None:
    """Not heard in time, it may still be given a job, which nobody would do: the link is made anew."""
    handler = Handler()
    async with Proxy(RawConversation, vhost) as proxy, open_channel(vhost) as channel:
        rig = Rig(proxy.url, handler)
        rig.consumer.pause(PauseReason.GUARD)
        async with running(rig.consumer.link.run()):
            await until(lambda: rig.consumer.link.is_up)
            taking = asyncio.ensure_future(rig.consumer.take_one(1))
            await until(partial(has_consumers, channel, 1))
            proxy.freeze()
            await submit(channel, "m-1")
            assert not await taking
            await until(lambda: rig.log.of("broker.lost"))
            proxy.thaw()
            assert await rig.consumer.take_one(600)
    assert "did not answer" in rig.log.of("broker.lost")[0]["reason"]
    assert len(handler.seen) == 1
