"""Publishing returns only once the broker has the message, whatever happens on the way."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from aiormq.abc import AbstractChannel

from tests.support.broker import close_connections
from tests.support.channel import depth, open_channel, take, take_all
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation, anything
from tests.support.wire.record import TO_WORKER
from worker.broker.publisher import Publisher
from worker.broker.topology import topology_of
from worker.common.clock import Clock
from worker.contract.errors import NotTaken, PublishRefused, StaleDelivery, Unroutable
from worker.contract.message import Message, Properties
from worker.sandbox.node import Node

RESULTS = "lcm.outcome.results"


async def soon(_seconds: float) -> None:
    await asyncio.sleep(0.01)


@asynccontextmanager
async def publishing(url: str, log: RecordingLog, **settings: Any) -> AsyncIterator[Publisher]:
    section = broker_settings(url, retry_delays=["10m"], **settings)
    publisher = Publisher(section, topology_of(section), log, worker="w-1", clock=Clock(sleep=soon))
    async with running(publisher.link.run()):
        warm = result("first")
        publisher.channels.give_back(await publisher.channels.lend(warm, alone=False))
        yield publisher


def always() -> bool:
    return True


def result(message_id: str = "m-1", key: str = "result.succeeded", body: bytes = b"{}") -> Message:
    return Message(RESULTS, key, body, Properties(message_id=message_id))


def beside(publisher: Publisher, message: Message, **options: Any) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(publisher.publish(message, always, **options))


async def bind(channel: AbstractChannel, key: str, **arguments: Any) -> str:
    """Bind a queue of its own to the results, and return its name."""
    declared = await channel.queue_declare("", exclusive=True, arguments=arguments or None)
    await channel.queue_bind(declared.queue or "", RESULTS, key)
    return declared.queue or ""


async def test_a_published_message_is_in_its_queue(vhost: str) -> None:
    """When `publish` returns, the queue holds the message: persistent, with its properties and its body."""
    properties = Properties(
        message_id="m-1",
        content_type="application/json",
        correlation_id="c-1",
        headers={"traceparent": "00-1"},
        message_type="t",
        app_id="a",
    )
    async with publishing(vhost, RecordingLog()) as publisher, open_channel(vhost) as channel:
        await publisher.publish(Message(RESULTS, "result.succeeded.emea", b"\x00{}", properties), always)
        [found] = await take_all(channel, RESULTS)
    assert found.body == b"\x00{}"
    got = found.header.properties
    assert (got.delivery_mode, got.message_id, got.correlation_id) == (2, "m-1", "c-1")
    assert (got.content_type, got.message_type, got.app_id) == ("application/json", "t", "a")
    assert (got.headers or {})["traceparent"] == "00-1"
    assert found.routing_key == "result.succeeded.emea"


async def test_many_at_once_all_arrive(vhost: str) -> None:
    """Publishes in flight at the same time are each confirmed on their own."""
    async with publishing(vhost, RecordingLog()) as publisher, open_channel(vhost) as channel:
        ids = {f"m-{number}" for number in range(200)}
        await asyncio.gather(*(publisher.publish(result(message_id), always) for message_id in ids))
        assert {found.header.properties.message_id for found in await take_all(channel, RESULTS)} == ids


async def test_with_patience_an_unroutable_message_is_published_again(vhost: str) -> None:
    """Pitfall: unroutable publishes report success. With patience they go out again until somebody is bound."""
    told: list[NotTaken] = []
    async with (
        publishing(vhost, RecordingLog(), results_queue=False) as publisher,
        open_channel(vhost) as channel,
    ):
        waiting = [
            beside(publisher, result(f"m-{number}"), patience=math.inf, on_refusal=told.append)
            for number in range(3)
        ]
        await until(lambda: len(told) > 5)
        assert not any(task.done() for task in waiting)
        own = await bind(channel, "result.*")
        await asyncio.gather(*waiting)
        assert await depth(channel, own) == 3
    assert {type(error) for error in told} == {Unroutable}


async def test_an_unroutable_message_raises(vhost: str) -> None:
    """The caller is told at once, and the next publish of the same id is none the worse."""
    log = RecordingLog()
    async with publishing(vhost, log, results_queue=False) as publisher, open_channel(vhost) as channel:
        with pytest.raises(Unroutable, match=r"'result\.failed' of exchange 'lcm\.outcome\.results'"):
            await publisher.publish(result(key="result.failed"), always)
        own = await bind(channel, "result.failed")
        await publisher.publish(result(key="result.failed"), always)
        assert await depth(channel, own) == 1


async def test_two_of_one_id_are_never_in_flight_together(vhost: str) -> None:
    """Pitfall: returns are matched by message id. Of two with one id, the one without a queue is the one told so."""
    async with (
        publishing(vhost, RecordingLog(), results_queue=False) as publisher,
        open_channel(vhost) as channel,
    ):
        own = await bind(channel, "result.succeeded")
        for _ in range(20):
            lost = beside(publisher, result("same", "result.failed"))
            kept = beside(publisher, result("same", "result.succeeded"))
            told = await asyncio.gather(lost, kept, return_exceptions=True)
            assert isinstance(told[0], Unroutable)
            assert told[1] is None
        assert await depth(channel, own) == 20


async def test_a_message_that_is_tried_again_blocks_no_other(vhost: str) -> None:
    """While one message waits for a binding, others go out, also one of its own id."""
    told: list[NotTaken] = []
    async with (
        publishing(vhost, RecordingLog(), results_queue=False) as publisher,
        open_channel(vhost) as channel,
    ):
        own = await bind(channel, "result.succeeded")
        held = beside(publisher, result("m-1", "result.failed"), patience=math.inf, on_refusal=told.append)
        await until(lambda: told)
        await publisher.publish(result("m-1"), always)
        await publisher.publish(result("m-2"), always)
        assert await depth(channel, own) == 2
        assert not held.done()
        await bind(channel, "result.failed")
        await held


async def test_a_full_queue_is_waited_for_with_patience(vhost: str) -> None:
    """A queue that refuses publishes when full answers basic.nack: the message goes out again until it is taken."""
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    told: list[NotTaken] = []
    async with (
        publishing(vhost, RecordingLog(), results_queue=False) as publisher,
        open_channel(vhost) as channel,
    ):
        own = await bind(channel, "#", **limits)
        await publisher.publish(result("m-1"), always)
        with pytest.raises(PublishRefused, match="refused"):
            await publisher.publish(result("m-2"), always)
        waiting = beside(publisher, result("m-2"), patience=math.inf, on_refusal=told.append)
        await until(lambda: told)
        assert not waiting.done()
        assert (await take(channel, own)).header.properties.message_id == "m-1"
        await waiting
        assert (await take(channel, own)).header.properties.message_id == "m-2"


async def test_a_delivery_gone_stale_is_not_published(vhost: str) -> None:
    """What nobody can acknowledge any more is not sent, neither at first nor when it is tried again."""
    wanted, told = [True], list[NotTaken]()
    async with (
        publishing(vhost, RecordingLog(), results_queue=False) as publisher,
        open_channel(vhost) as channel,
    ):
        held = asyncio.ensure_future(
            publisher.publish(result(), lambda: bool(wanted), patience=math.inf, on_refusal=told.append)
        )
        await until(lambda: told)
        wanted.clear()
        with pytest.raises(StaleDelivery):
            await held
        own = await bind(channel, "#")
        with pytest.raises(StaleDelivery):
            await publisher.publish(result(), lambda: False)
        assert await depth(channel, own) == 0


@pytest.mark.parametrize("how", ["reset", "cut"])
async def test_what_was_not_confirmed_is_published_again(vhost: str, how: str) -> None:
    """Cut between publish and confirm, whether by a reset or in good order, a message goes out again, same id."""
    log = RecordingLog()
    async with Proxy(RawConversation, vhost) as proxy, open_channel(vhost) as channel:
        async with publishing(proxy.url, log) as publisher:
            hold = proxy.hold_at(anything, TO_WORKER)
            waiting = beside(publisher, result())
            await hold
            assert not waiting.done()
            getattr(hold, how)()
            await waiting
        copies = await take_all(channel, RESULTS)
    assert {found.header.properties.message_id for found in copies} == {"m-1"}
    assert len(copies) <= 2


async def holds(channel: AbstractChannel, queue: str, count: int) -> bool:
    return await depth(channel, queue) >= count


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_end_between_two_frames_is_a_loss_like_any_other(
    vhost: str, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """A broker killed under load: a burst of frames, then the end. Nobody gets the library's bare Exception of it."""

    async def main() -> None:
        async with Proxy(RawConversation, vhost) as proxy, open_channel(vhost) as channel:
            async with publishing(proxy.url, RecordingLog(), results_queue=False) as publisher:
                hold = proxy.hold_at(anything, TO_WORKER)
                nowhere = [beside(publisher, result(f"u-{n}", "result.none")) for n in range(50)]
                own = await bind(channel, "result.some")
                some = [beside(publisher, result(f"m-{n}", "result.some")) for n in range(50)]
                await until(lambda: holds(channel, own, 50))
                some += [beside(publisher, result(f"l-{n}", "result.some")) for n in range(10)]
                await under_way(publisher, "l-9")
                await hold
                hold.hang_up()
                told = await asyncio.gather(*nowhere, *some, return_exceptions=True)
            ids = {found.header.properties.message_id for found in await take_all(channel, own)}
        assert {type(end) for end in told[:50]} == {Unroutable}
        assert set(told[50:]) == {None}
        assert ids == {*(f"m-{n}" for n in range(50)), *(f"l-{n}" for n in range(10))}

    run(main())


async def under_way(publisher: Publisher, message_id: str) -> None:
    """Wait until a publish has begun, and not a moment longer."""
    while not any(message_id in shared.confirms for shared in publisher.channels._shared.values()):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


async def test_a_silent_connection_is_given_up(vhost: str) -> None:
    """Without a confirm within `publish_timeout` the connection is dropped, whatever its peer does, and all go again.

    Pitfall: the library waits for a frozen peer when it closes. More is on its way than the buffers hold.
    """
    log = RecordingLog()
    async with Proxy(RawConversation, vhost) as proxy, open_channel(vhost) as channel:
        async with publishing(proxy.url, log, publish_timeout="1s") as publisher:
            proxy.freeze()
            large = bytes(2_000_000)
            waiting = [beside(publisher, result(f"m-{number}", body=large)) for number in range(8)]
            await until(lambda: "broker.lost" in log.events)
            proxy.thaw()
            await asyncio.gather(*waiting)
        ids = {found.header.properties.message_id for found in await take_all(channel, RESULTS)}
    assert ids == {f"m-{number}" for number in range(8)}
    assert "publish_timeout" in log.of("broker.lost")[0]["reason"]


async def test_the_library_s_cancellation_is_not_the_caller_s(vhost: str) -> None:
    """Pitfall: aiormq throws CancelledError into whoever waits on a dead connection. The message goes out again."""
    log = RecordingLog()
    async with (
        Proxy(RawConversation, vhost) as proxy,
        publishing(proxy.url, log) as publisher,
        open_channel(vhost) as channel,
    ):
        connection: Any = (await publisher.link.channel()).connection
        hold = proxy.hold_at(anything, TO_WORKER)
        waiting = beside(publisher, result())
        await under_way(publisher, "m-1")
        await hold
        connection._reader_task.cancel()
        await until(lambda: "broker.lost" in log.events)
        hold.hang_up()
        await waiting
        assert await depth(channel, RESULTS) >= 1
    assert "publish.lost" in log.events


async def test_a_caller_s_cancellation_is_obeyed(vhost: str) -> None:
    """Who is cancelled while waiting for a confirm gets CancelledError, and the id is free for the next."""
    async with Proxy(RawConversation, vhost) as proxy, publishing(proxy.url, RecordingLog()) as publisher:
        hold = proxy.hold_at(anything, TO_WORKER)
        waiting = beside(publisher, result())
        await under_way(publisher, "m-1")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        hold.release()
        await publisher.publish(result(), always)


async def test_publishing_waits_for_an_absent_broker(vhost: str) -> None:
    """While the broker is away a publish waits, and goes out when it is back."""
    log = RecordingLog()
    async with Proxy(RawConversation, vhost) as proxy, open_channel(vhost) as channel:
        async with publishing(proxy.url, log) as publisher:
            await proxy.refuse()
            proxy.reset()
            await until(lambda: not publisher.link.is_up)
            waiting = beside(publisher, result())
            await until(lambda: "broker.unreachable" in log.events)
            assert not waiting.done()
            await proxy.listen()
            await waiting
        assert await depth(channel, RESULTS) == 1


async def test_a_deleted_exchange_comes_back(vhost: str) -> None:
    """A publish to an exchange that was deleted closes the channel; it is declared anew, and the message goes."""
    log = RecordingLog()
    async with publishing(vhost, log) as publisher, open_channel(vhost) as channel:
        await channel.exchange_delete(RESULTS)
        await publisher.publish(result(), always)
        assert await depth(channel, RESULTS) == 1
    assert "broker.lost" not in log.events


async def test_a_blocked_broker_is_waited_for(broker: Node, vhost: str) -> None:
    """Pitfall: a memory alarm. However short `publish_timeout` is, the message waits and arrives exactly once."""
    log = RecordingLog()
    # A short one, but longer than a confirm takes on a busy machine once the alarm is over.
    async with publishing(vhost, log, publish_timeout="1s") as publisher, open_channel(vhost) as channel:
        await broker.alarm(True)
        try:
            waiting = beside(publisher, result())
            await until(lambda: "broker.blocked" in log.events)
            assert publisher.link.blocked_for > 0
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(1.5)  # the timeout itself has to pass
            assert publisher.link.last_blocked > began
            assert repr(publisher.link) == "<Link publish blocked, generation 1>"
            assert not waiting.done()
        finally:
            await broker.alarm(False)
        await waiting
        await until(lambda: "broker.unblocked" in log.events)
        assert len(await take_all(channel, RESULTS)) == 1
    assert log.events == ["broker.connected", "broker.blocked", "broker.unblocked"]


async def test_a_blocked_connection_that_is_lost_publishes_again(broker: Node, vhost: str) -> None:
    """Lost during an alarm, the connection is rebuilt, and what was on its way arrives after the alarm."""
    log = RecordingLog()
    async with publishing(vhost, log) as publisher, open_channel(vhost) as channel:
        await broker.alarm(True)
        try:
            waiting = beside(publisher, result())
            await until(lambda: publisher.link.blocked)
            await close_connections(broker, vhost)
            await until(lambda: len(log.of("broker.connected")) > 1)
            assert not waiting.done()
        finally:
            await broker.alarm(False)
        await waiting
        assert channel.is_closed
    async with open_channel(vhost) as channel:
        assert await depth(channel, RESULTS) >= 1
