"""A link comes up, notices whatever it loses, and is rebuilt as a whole, with the next generation."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiormq.abc import AbstractChannel
from yarl import URL

from tests.support.broker import close_connections
from tests.support.certificates import Authority
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation
from tests.support.wire.swallowing import resolve, swallowing
from tests.support.wire.tls_front import TlsFront
from worker.broker.link import Link
from worker.common.clock import Clock
from worker.contract.errors import BrokerAway, TopologyError
from worker.sandbox.folder import free_port
from worker.sandbox.node import Node

Prepare = Callable[[AbstractChannel, int], Awaitable[None]]


async def soon(_seconds: float) -> None:
    await asyncio.sleep(0.01)


async def nothing(_channel: AbstractChannel, _generation: int) -> None:
    """A channel that needs no preparing."""


def link_to(*urls: str, log: RecordingLog, prepare: Prepare = nothing, **options: Any) -> Link:
    wanted: dict[str, Any] = {"confirms": True, "clock": Clock(sleep=soon)} | options
    return Link("test", broker_settings(*urls), prepare, log, worker="w-1", **wanted)


def lives(log: RecordingLog) -> list[int]:
    """The generations that were up, in turn."""
    return [fields["generation"] for fields in log.of("broker.connected")]


def errors(log: RecordingLog) -> list[str]:
    """Why the link could not be made, each time that it was told."""
    return [fields["error"] for fields in log.of("broker.unreachable")]


async def reborn(link: Link, log: RecordingLog, times: int = 2) -> None:
    await until(lambda: len(lives(log)) == times and link.is_up)


async def test_a_link_is_up_only_when_it_is_prepared(vhost: str) -> None:
    """Pitfall: "connected" taken for "consuming". Until the channel is prepared the link is down and has none."""
    log, go, seen = RecordingLog(), asyncio.Event(), list[int]()

    async def prepare(_channel: AbstractChannel, generation: int) -> None:
        seen.append(generation)
        await go.wait()

    link = link_to(vhost, log=log, prepare=prepare)
    async with running(link.run()):
        await until(lambda: seen)
        assert not link.is_up
        assert repr(link) == "<Link test down, generation 1>"
        go.set()
        channel = await link.channel()
        assert link.is_up
        assert not channel.is_closed
        assert repr(link) == "<Link test up, generation 1>"
        assert log.events == ["broker.connected"]


async def test_a_node_that_answers_and_has_not_what_is_needed_is_passed_over(vhost: str) -> None:
    """A stream without a replica on the first node: the link goes to the next, rather than to the first for ever."""
    log, at = RecordingLog(), list[str]()

    async def prepare(channel: AbstractChannel, _generation: int) -> None:
        at.append(str(channel.connection.url))
        if len(at) == 1:
            raise BrokerAway("no replica here")

    async with Proxy(RawConversation, vhost) as first, Proxy(RawConversation, vhost) as second:
        link = link_to(first.url, second.url, log=log, prepare=prepare)
        async with running(link.run()):
            await until(lambda: link.is_up)
    assert [URL(url).port for url in at] == [first.port, second.port]


async def test_several_urls_are_tried_in_turn(vhost: str) -> None:
    """The nodes of a cluster: the first that answers is taken, and after its end the next one that does."""
    log, nobody = RecordingLog(), f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    async with Proxy(RawConversation, vhost) as first, Proxy(RawConversation, vhost) as second:
        link = link_to(nobody, first.url, second.url, log=log)
        async with running(link.run()):
            await link.channel()
            assert (len(first.connections), len(second.connections)) == (1, 0)
            await first.refuse()
            first.reset()
            await reborn(link, log)
            assert len(second.connections) == 1
    assert "broker.unreachable" not in log.events


@pytest.mark.parametrize("how", ["reset", "cut"])
async def test_a_lost_connection_is_rebuilt(vhost: str, how: str) -> None:
    """Cut by a reset or ended in good order, the link comes back with a new channel and a higher generation."""
    log = RecordingLog()
    async with Proxy(RawConversation, vhost) as proxy:
        link = link_to(proxy.url, log=log)
        async with running(link.run()):
            before = await link.channel()
            getattr(proxy, how)()
            await reborn(link, log)
            assert await link.channel() is not before
    assert lives(log)[0] < lives(log)[1] == link.generation - 1
    assert next(event for event in log.events if event != "broker.connected") == "broker.lost"


async def test_a_connection_closed_by_the_broker_says_why(broker: Node, vhost: str) -> None:
    """What the broker gave as its reason is in the log, and the link comes back."""
    log = RecordingLog()
    link = link_to(vhost, log=log)
    async with running(link.run()):
        await link.channel()
        await close_connections(broker, vhost, "maintenance tonight")
        await reborn(link, log)
    assert "maintenance tonight" in log.of("broker.lost")[0]["reason"]


async def test_a_channel_closed_by_the_broker_takes_the_whole_link(vhost: str) -> None:
    """The channel alone may go, such as for an ack of an unknown tag: everything is rebuilt, and the reason said."""
    log = RecordingLog()
    link = link_to(vhost, log=log)
    async with running(link.run()):
        await (await link.channel()).basic_ack(4711)
        await reborn(link, log)
    assert "unknown delivery tag 4711" in log.of("broker.lost")[0]["reason"]


async def test_an_absent_broker_is_waited_for(vhost: str) -> None:
    """A worker may start before its broker: it says so, and goes on when the broker is there."""
    log = RecordingLog()
    async with Proxy(RawConversation, vhost) as proxy:
        await proxy.refuse()
        link = link_to(proxy.url, log=log)
        async with running(link.run()):
            await until(lambda: len(log.of("broker.unreachable")) > 2)
            assert not link.is_up
            await proxy.listen()
            await link.channel()
    tried = log.of("broker.unreachable")
    assert tried[0]["attempt"] == 1
    assert f"127.0.0.1:{proxy.port}" in tried[0]["error"]


async def test_pauses_double_and_start_anew_after_a_life(broker: Node, vhost: str) -> None:
    """The pause before each try is jittered and doubles up to 30 s; a link that was up starts over."""
    log, pauses = RecordingLog(), list[tuple[float, float]]()

    def jitter(low: float, high: float) -> float:
        pauses.append((low, high))
        return high

    async def prepare(_channel: AbstractChannel, _generation: int) -> None:
        if len(pauses) < 8:
            raise BrokerAway("not yet")

    link = link_to(vhost, log=log, prepare=prepare, clock=Clock(sleep=soon, jitter=jitter))
    async with running(link.run()):
        await link.channel()
        await close_connections(broker, vhost)
        await until(lambda: len(pauses) > 8)
    assert [high for _, high in pauses[:8]] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert all(low == high / 2 for low, high in pauses)
    assert pauses[8][1] == 0.5


async def test_a_closed_port_is_tried_again_soon_and_told_ever_less_often(vhost: str) -> None:
    """Where nobody listens pauses stay short, as long as that lasts, and the log is not flooded."""
    log, pauses = RecordingLog(), list[float]()

    def jitter(_low: float, high: float) -> float:
        pauses.append(high)
        return high

    async with Proxy(RawConversation, vhost) as proxy:
        await proxy.refuse()
        link = link_to(proxy.url, log=log, clock=Clock(sleep=soon, jitter=jitter))
        async with running(link.run()):
            await until(lambda: len(pauses) >= 70)
            await proxy.listen()
            await link.channel()
    assert set(pauses) == {0.5}
    told = [fields["attempt"] for fields in log.of("broker.unreachable")]
    assert told[:8] == [1, 2, 4, 8, 16, 32, 64, 96][: len(told)]
    assert 64 in told


async def test_other_troubles_than_a_closed_port_are_told_each_time(vhost: str) -> None:
    """A line stands for each try that costs the broker something, however many closed ports came before."""
    log = RecordingLog()
    refused = vhost.replace("guest:guest", "guest:hunter2")
    async with Proxy(RawConversation, refused) as proxy:
        await proxy.refuse()
        async with running(link_to(proxy.url, log=log).run()):
            await until(lambda: len(log.of("broker.unreachable")) > 2)
            await proxy.listen()
            await until(lambda: len([error for error in errors(log) if "password refused" in error]) > 4)
    attempts = [
        fields["attempt"] for fields in log.of("broker.unreachable") if "password refused" in fields["error"]
    ]
    assert attempts == list(range(attempts[0], attempts[0] + len(attempts)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("guest:guest", "guest:hunter2"), "user name or password refused; see broker.url"),
        (("/test-", "/nobodys-"), "nobodys-"),
    ],
    ids=["password", "vhost"],
)
async def test_a_wrong_url_is_said_without_the_password(
    vhost: str, change: tuple[str, str], said: str
) -> None:
    """A refused password or an unknown vhost is told with the remedy, never with the password, and tried again."""
    log = RecordingLog()
    async with running(link_to(vhost.replace(*change), log=log).run()):
        await until(lambda: len(log.of("broker.unreachable")) > 1)
    error = log.of("broker.unreachable")[0]["error"]
    assert said in error
    assert "broker.url" in error
    assert "hunter2" not in str(log.lines)


async def test_a_wrong_topology_ends_the_first_life_alone(broker: Node, vhost: str) -> None:
    """At the start a topology that is not as asked is an error for the user; later it is an outage like others."""
    log, wrong = RecordingLog(), [True]

    async def prepare(_channel: AbstractChannel, _generation: int) -> None:
        if wrong:
            raise TopologyError("queue 'x' stands there otherwise")

    with pytest.raises(TopologyError, match="queue 'x'"):
        await link_to(vhost, log=log, prepare=prepare).run()
    wrong.clear()
    link = link_to(vhost, log=log, prepare=prepare)
    async with running(link.run()):
        await link.channel()
        wrong.append(True)
        await close_connections(broker, vhost)
        await until(lambda: log.of("broker.unreachable"))
        wrong.clear()
        await reborn(link, log)


def test_who_accepts_and_hangs_up_is_no_broker() -> None:
    """A load balancer without a live node accepts and closes at once: whatever the library makes of it, an outage.

    On the loop that the worker runs on, where that end often comes as StopAsyncIteration.
    """
    log = RecordingLog()
    listening = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        with suppress(OSError):
            while True:
                listening.accept()[0].close()

    async def main() -> None:
        url = f"amqp://guest:guest@127.0.0.1:{listening.getsockname()[1]}/"
        async with running(link_to(url, log=log).run()) as run:
            await until(lambda: run.done() or len(log.of("broker.unreachable")) > 20)

    balancer = threading.Thread(target=hang_up)
    balancer.start()
    try:
        uvloop.run(main())
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        balancer.join()


@pytest.mark.parametrize("ended_by", ["cancellation", "end of file"])
async def test_what_the_library_throws_while_preparing_is_an_outage(vhost: str, ended_by: str) -> None:
    """Pitfall: aiormq ends what waits on a dead connection with whatever ended its reader, be it CancelledError."""
    log, troubles = RecordingLog(), [ended_by]

    async def prepare(channel: AbstractChannel, _generation: int) -> None:
        if troubles:
            ended = asyncio.CancelledError() if troubles.pop() == "cancellation" else None
            await asyncio.gather(confirmation_of(channel), channel.connection.close(ended))

    link = link_to(vhost, log=log, prepare=prepare)
    async with running(link.run()) as run:
        await until(lambda: run.done() or link.is_up)
        assert link.is_up
    assert len(log.of("broker.unreachable")) == 1


async def confirmation_of(channel: AbstractChannel) -> None:
    """Wait on the channel as whoever publishes does."""
    await channel.create_future()


async def test_a_link_can_be_dropped_before_it_is_up(vhost: str) -> None:
    """What was prepared can be lost again before anybody looks, as when a queue goes right after it was consumed."""
    log = RecordingLog()

    async def prepare(_channel: AbstractChannel, generation: int) -> None:
        if generation == 1:
            link.drop("the broker cancelled the consumer", generation)

    link = link_to(vhost, log=log, prepare=prepare)
    async with running(link.run()):
        await reborn(link, log)
    assert log.of("broker.lost")[0]["reason"] == "the broker cancelled the consumer"


async def test_a_later_life_is_not_dropped_for_an_earlier_one(broker: Node, vhost: str) -> None:
    """Doubts about a connection that is gone already leave its successor alone."""
    log = RecordingLog()
    link = link_to(vhost, log=log)
    async with running(link.run()):
        await link.channel()
        before = link.generation
        await close_connections(broker, vhost)
        await reborn(link, log)
        link.drop("no confirm in the first life", before)
        link.drop("no confirm in the second", link.generation)
        await reborn(link, log, times=3)
    assert [fields["reason"] for fields in log.of("broker.lost")][1:] == ["no confirm in the second"]


async def test_a_real_cancellation_ends_the_link(vhost: str) -> None:
    """Whoever cancels `run` ends it at any moment: connecting, preparing, or up; the connection is closed."""
    log, reached = RecordingLog(), asyncio.Event()

    async def prepare(_channel: AbstractChannel, _generation: int) -> None:
        reached.set()
        await asyncio.get_running_loop().create_future()

    for options, condition in (
        ({"prepare": prepare}, reached.is_set),
        ({}, lambda: log.of("broker.connected")),
    ):
        task = asyncio.get_running_loop().create_task(link_to(vhost, log=log, **options).run())
        await until(condition)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_frozen_peer_does_not_keep_a_link_from_ending(vhost: str) -> None:
    """Pitfall: closing waits for the peer. With a peer that reads nothing, `run` ends, and so does the socket."""
    log = RecordingLog()
    async with Proxy(RawConversation, vhost) as proxy:
        link = link_to(proxy.url, log=log)
        async with asyncio.timeout(30):
            async with running(link.run()):
                channel = await link.channel()
                proxy.freeze()
                filling = asyncio.get_running_loop().create_task(fill(channel))
                await asyncio.wait({filling}, timeout=1)
                link.drop("in doubt", link.generation)
                await until(lambda: not link.is_up)
            proxy.thaw()
            await until(lambda: not proxy.connections)
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)


async def fill(channel: AbstractChannel) -> None:
    """Send more than the system's buffers hold."""
    with suppress(Exception):
        await asyncio.gather(*(channel.basic_publish(bytes(2_000_000), routing_key="x") for _ in range(20)))


@pytest.mark.parametrize("tls", [False, True])
async def test_an_address_that_swallows_packets_hides_no_other(
    vhost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """Pitfall `a name with two addresses, the first swallowing`: the link comes up by the other, with TLS too."""
    authority = Authority(tmp_path, names=("DNS:broker.test",))
    resolve(monkeypatch, "broker.test", "127.0.0.2", "127.0.0.1")
    async with TlsFront(authority.server_context(), vhost) as front:
        url = URL(front.url if tls else vhost)
        assert url.port is not None
        with swallowing("127.0.0.2", url.port):
            settings = broker_settings(str(url.with_host("broker.test")), ca_file=authority.file)
            log = RecordingLog()
            link = Link("test", settings, nothing, log, worker="w-1", confirms=True)
            async with running(link.run()):
                await until(lambda: link.is_up)
            assert log.events == ["broker.connected"]
