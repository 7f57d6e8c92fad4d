"""The private RabbitMQ node keeps what it is given, does as it is told, and leaves nothing behind."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import aio_pika
import pytest

from worker.sandbox.node import Node, NodeFailed, answers


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that another process brings about; the test's own timeout is the limit."""
    while not await condition():  # noqa: ASYNC110 - no event crosses from the other process
        await asyncio.sleep(0.05)


def family_of(pid: int) -> set[int]:
    """The process and all that descend from it, zombies left out, as /proc has them."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    family = {pid} & parents.keys()
    while new := {child for child, parent in parents.items() if parent in family} - family:
        family |= new
    return family


def is_alive(pid: int) -> bool:
    return bool(family_of(pid))


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.transport.abort()
    return True


async def test_a_vhost_is_ready_for_use(vhost: str) -> None:
    """A fresh vhost holds no queue, and a message can be sent through one that is declared there."""
    async with await aio_pika.connect(vhost) as connection:
        channel = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue("jobs", passive=True)
        channel = await connection.channel()
        queue = await channel.declare_queue("jobs", durable=True, arguments={"x-queue-type": "quorum"})
        await channel.default_exchange.publish(aio_pika.Message(b"1"), "jobs")
        assert (await queue.get(no_ack=True, timeout=10)).body == b"1"


async def test_a_vhost_that_is_removed_is_gone(broker: Node) -> None:
    """Removing a vhost takes its queues along, closes its connections, and lets nobody in any more."""
    url = await broker.add_vhost("here today")
    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    await channel.declare_queue("jobs", durable=True, arguments={"x-queue-type": "quorum"})
    await broker.remove_vhost("here today")
    with pytest.raises(aio_pika.exceptions.AMQPError):
        await aio_pika.connect(url)
    assert "here today" not in await broker.eval(
        "[binary_to_atom(Name, utf8) || Name <- rabbit_vhost:list_names()]"
    )
    await connection.close()


async def test_queues_are_counted(broker: Node, vhost: str) -> None:
    """`queues` tells waiting messages from those that a consumer holds."""
    async with await aio_pika.connect(vhost) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("jobs", durable=True, arguments={"x-queue-type": "quorum"})
        for body in (b"1", b"2", b"3"):
            await channel.default_exchange.publish(aio_pika.Message(body), "jobs")
        held = await queue.get(timeout=10)

        async def counted() -> bool:
            return await broker.queues(vhost.rpartition("/")[2]) == {
                "jobs": {"messages": 3, "ready": 2, "unacked": 1}
            }

        await until(counted)
        await held.ack()


async def test_a_refused_command_says_why(broker: Node) -> None:
    """The error of a command holds what rabbitmqctl or Erlang said."""
    with pytest.raises(NodeFailed, match=r"(?s)ended with status 64.*no_such_command"):
        await broker.ctl("no_such_command")
    with pytest.raises(NodeFailed, match="badmatch"):
        await broker.eval("1 = 2")


async def test_expressions_are_evaluated_at_the_same_time(broker: Node) -> None:
    """Each call has a name of its own in Erlang's distribution, so none displaces another."""
    numbers = [str(number) for number in range(16)]
    assert await asyncio.gather(*map(broker.eval, numbers)) == numbers


async def test_nobody_answers_where_no_broker_is() -> None:
    """A closed port is no broker, and neither is one that says something else or hangs up."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ready\r\n")
        writer.close()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    for behaviour in (greet, hang_up):
        server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
        url = f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert not await answers(url)
        server.close()
        assert not await answers(url)


async def test_a_node_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    """A node that ends while it starts is an error with its last words, and nothing of it stays."""
    node = Node(base=tmp_path, config={"listeners": "this is no Erlang"})
    with pytest.raises(NodeFailed, match=r"(?s)ended with status 1 .*failed_to_read_advanced_conf"):
        async with node:
            pytest.fail("it started")
    assert not node.folder.exists()
    assert not await listens(node.epmd_port)


@pytest.mark.timeout_s(180)
async def test_a_node_has_a_life_of_its_own(broker: Node, tmp_path: Path) -> None:
    """A second node is paused, alarmed, killed and started again without losing a message, and without a trace.

    All in one test, since each start takes ten seconds; meanwhile the first node must not notice anything.
    """
    async with Node(base=tmp_path, config={"channel_tick_interval": 1000}) as node:
        assert await answers(node.url)
        assert await answers(broker.url)
        assert node.port != broker.port
        assert "1000" in await node.eval("application:get_env(rabbit, channel_tick_interval)")
        await an_alarm_is_raised_and_cleared(node)
        await a_message_survives_a_kill(node)
        await a_paused_node_keeps_still(node)
        family = family_of(node.pid)
        assert len(family) > 1

    assert not await answers(node.url)
    assert not await listens(node.epmd_port)
    assert not node.folder.exists()

    async def gone() -> bool:
        return not any(map(is_alive, family))

    await until(gone)
    assert await answers(broker.url)
    assert await broker.eval("rabbit_alarm:get_alarms()") == "[]"


async def an_alarm_is_raised_and_cleared(node: Node) -> None:
    async def alarmed() -> bool:
        return "memory" in await node.eval("rabbit_alarm:get_alarms()")

    async def clear() -> bool:
        return await node.eval("rabbit_alarm:get_alarms()") == "[]"

    await node.alarm(True)
    await until(alarmed)
    await node.alarm(False)
    await until(clear)


async def a_message_survives_a_kill(node: Node) -> None:
    async with await aio_pika.connect(node.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(b"still here", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "kept")
        await node.flush()
        port, pid = node.port, node.pid
        await node.kill()
    assert not is_alive(pid)
    with pytest.raises(NodeFailed, match="start it first"):
        await node.eval("1")
    await node.restart()
    assert node.port == port
    async with await aio_pika.connect(node.url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("kept")
        assert (await queue.get(no_ack=True, timeout=30)).body == b"still here"


async def a_paused_node_keeps_still(node: Node) -> None:
    await node.pause()
    assert not await answers(node.url)
    await node.resume()
    assert await answers(node.url)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.timeout_s(120)
async def test_a_node_dies_with_its_owner(tmp_path: Path) -> None:
    """When the process that started a node is killed, the node and its epmd end too."""
    script = """
import asyncio, sys
from worker.sandbox.node import Node

async def main():
    node = Node(base=sys.argv[1])
    starting = asyncio.create_task(node.start())
    while not (node.folder / "pid").exists():
        await asyncio.sleep(0.05)
    print(node.pid, node.epmd_port, flush=True)
    await starting

asyncio.run(main())
"""
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE, env=os.environ
    )
    assert owner.stdout
    pid, epmd_port = map(int, (await owner.stdout.readline()).split())
    family = family_of(pid)
    assert family
    assert await listens(epmd_port)
    owner.kill()
    await owner.communicate()

    async def gone() -> bool:
        return not any(map(is_alive, family)) and not await listens(epmd_port)

    await until(gone)
