"""What several test files need: a log to read, a condition to wait for, a cuttable connection, a broker to look at."""

from __future__ import annotations

import asyncio
import inspect
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage

from tests.patience import PATIENCE
from worker.sandbox.rabbitmq import Node
from worker.settings import BrokerSettings

_POLL = 0.02
_DEADLINE = 30.0 * PATIENCE


async def until(condition: Callable[[], object], *, deadline: float = 30.0) -> None:
    """Wait until a condition, which may be awaitable, holds; TimeoutError where it never does."""
    async with asyncio.timeout(PATIENCE * deadline):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(_POLL)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, object]) -> AsyncIterator[asyncio.Task[object]]:
    """Run something beside the test and end it with the test; whatever it failed with is raised."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


class RecordingLog:
    """A log that keeps its lines, each as level, event and fields."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: Any) -> None:
        self.lines.append(("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))

    def exception(self, event: str, **fields: Any) -> None:
        self.lines.append(("exception", event, fields))

    @property
    def events(self) -> list[str]:
        """The names of the lines, in their order."""
        return [event for _, event, _ in self.lines]

    def of(self, event: str) -> list[dict[str, Any]]:
        """The fields of each line of this name."""
        return [fields for _, name, fields in self.lines if name == event]


class Proxy:
    """A TCP proxy in front of a local port, whose connections can be held up and cut."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.accepted = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._upstreams: set[asyncio.StreamWriter] = set()
        self._kept: dict[asyncio.StreamWriter, bytearray] = {}
        self._ended: set[asyncio.StreamWriter] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        self.reset()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def url(self, url: str) -> str:
        """Return a URL with this proxy in place of its host and port."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    async def listen(self) -> None:
        """Accept connections, on the port of the last time."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Accept no more connections."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def hold_replies(self) -> None:
        """Keep back what the target sends to those who are connected now."""
        self._kept = {client: bytearray() for client in self._clients}

    def freeze(self) -> None:
        """Read no more from either side, as a peer that has stopped running."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Let everything pass again, what was kept back first."""
        for client, kept in self._kept.items():
            client.write(kept)
        self._kept.clear()
        self._thawed.set()

    def hang_up(self) -> None:
        """Hand over what was kept back, with the end of the connection right behind it."""
        for client in self._clients:
            client.write(self._kept.pop(client, b""))
            client.write_eof()
        self._ended |= self._clients

    def reset(self) -> None:
        """Cut every connection by a TCP reset."""
        self._kept.clear()
        for writer in self._clients | self._upstreams:
            _reset(writer)
        self._thawed.set()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            from_target, upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            client.transport.abort()
            return
        self._clients.add(client)
        self._upstreams.add(upstream)
        loop = asyncio.get_running_loop()
        pumps = (
            loop.create_task(self._pump(reader, upstream)),
            loop.create_task(self._pump(from_target, client)),
        )
        self._pumps.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for writer in (client, upstream):
            writer.close()
        self._clients.discard(client)
        self._upstreams.discard(upstream)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._pumps.difference_update(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while True:
                await self._thawed.wait()
                data = await reader.read(65536)
                await self._thawed.wait()
                if not data:
                    return
                if writer in self._kept:
                    self._kept[writer] += data
                elif writer not in self._ended:
                    writer.write(data)
                    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def broker_settings(*urls: str, **settings: Any) -> BrokerSettings:
    """Return the broker section with these URLs."""
    return BrokerSettings.model_validate({"url": ",".join(urls)} | settings)


@asynccontextmanager
async def open_channel(url: str) -> AsyncIterator[AbstractChannel]:
    """Give a channel of the test's own, with confirms."""
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def depth(channel: AbstractChannel, queue: str) -> int:
    """Return how many messages of a queue are ready, as the broker says at this moment."""
    declared = await channel.queue_declare(queue, passive=True)
    return declared.message_count or 0


async def take(channel: AbstractChannel, queue: str) -> DeliveredMessage:
    """Wait for a message in a queue and take it off."""
    async with asyncio.timeout(_DEADLINE):
        while True:
            message = await channel.basic_get(queue, no_ack=True)
            if isinstance(message.delivery, aiormq.spec.Basic.GetOk):
                return message
            await asyncio.sleep(_POLL)


async def take_all(channel: AbstractChannel, queue: str) -> list[DeliveredMessage]:
    """Take off whatever a queue holds right now."""
    taken: list[DeliveredMessage] = []
    while True:
        message = await channel.basic_get(queue, no_ack=True)
        if not isinstance(message.delivery, aiormq.spec.Basic.GetOk):
            return taken
        taken.append(message)


async def close_connections(node: Node, url: str, reason: str = "closed by a test") -> None:
    """Have the broker close every connection to the vhost of this URL."""
    vhost = urlsplit(url).path.removeprefix("/")
    await node.eval(
        f'[rabbit_networking:close_connection(Pid, "{reason}") || Pid <- rabbit_networking:connections(), '
        f'(catch rabbit_networking:connection_info(Pid, [vhost])) =:= [{{vhost, <<"{vhost}">>}}]]'
    )


def awaiting(value: object = None) -> Callable[..., Awaitable[object]]:
    """Return a coroutine function that takes anything and gives this value at once, such as for a sleep."""

    async def give(*_: object, **__: object) -> object:
        return value

    return give
