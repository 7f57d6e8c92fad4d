"""A proxy on loopback between a worker and RabbitMQ or LCM that can spoil what passes.

How much of it the proxy understands is the conversation's part: AMQP, websockets, or nothing but bytes.

async with Proxy(AmqpConversation, broker_url) as proxy:
    hold = proxy.hold_at(is_confirm(exchange_suffix=".results"), TO_WORKER)
    ...                                         # a worker on proxy.url publishes a result
    await hold                                  # the broker has confirmed it, the worker doesn't know yet
    hold.reset()
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from tests.support.wire.lane import Conversation, Hold, Lane, Manner
from tests.support.wire.record import FROM_WORKER, TO_WORKER, Direction, Match, Recorder, Seen
from worker.simulator.listening import accept_no_more

_RESET = struct.pack("ii", 1, 0)
_BOTH = (FROM_WORKER, TO_WORKER)


class Proxy:
    """Passes connections on to the host and port of `target`, an URL, which may be replaced at any time.

    `recorder` holds every frame, in order; give the same one to several proxies to have one order over all.
    `injected` counts the faults by kind: each hold that was reached, each connection cut, hung up or reset, and
    each call of `freeze`, `delay`, `slice` and `refuse`. `accepted` counts connections, `accepted_at` holds the time of
    each, as `time.monotonic` counts. A `direction` of None means both.
    """

    def __init__(
        self, conversation: Callable[[], Conversation], target: str, *, recorder: Recorder | None = None
    ) -> None:
        self.target = target
        self.recorder = recorder or Recorder()
        self.injected: Counter[str] = Counter()
        self.accepted = 0
        self.accepted_at: list[float] = []
        self.port = 0
        self._conversation = conversation
        self._server: asyncio.Server | None = None
        self._manners = {direction: Manner() for direction in Direction}
        self._open: dict[int, _Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.thaw()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop_listening()
        for connection in list(self._open.values()):
            connection.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """The target's URL, with this proxy in place of its host and port."""
        parts = urlsplit(self.target)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    @property
    def record(self) -> list[Seen]:
        return self.recorder.entries

    @property
    def connections(self) -> list[int]:
        """The numbers of the open connections, the oldest first."""
        return list(self._open)

    async def passed(self, match: Match, *, since: int = 0) -> Seen:
        """Wait until a frame that matches is in the record, from entry number `since` on."""
        return await self.recorder.first(match, since=since)

    async def listen(self) -> None:
        """Accept connections, on the port of the last time."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Accept no connections until the next `listen`; those that are open stay."""
        self._count("refuse")
        await self._stop_listening()

    def hold_at(self, match: Match, direction: Direction, *, nth: int = 1) -> Hold:
        """Hold the lane on which the n-th frame from now on that matches comes, from that frame on.

        Armed at once; await what is returned to wait for the frame. One hold catches one frame.
        """
        holds = self._manners[direction].holds

        def disarm(hold: Hold) -> None:
            if hold in holds:
                holds.remove(hold)

        hold = Hold(match, nth=nth, disarm=disarm)
        holds.append(hold)
        return hold

    def delay(self, seconds: float, direction: Direction | None = None) -> None:
        """Pass each frame on so much after its arrival; 0 ends that."""
        if seconds:
            self._count("delay")
        for manner in self._chosen(direction):
            manner.delay = seconds

    def slice(self, direction: Direction | None = None, *, on: bool = True) -> None:
        """Send every byte by itself."""
        if on:
            self._count("slice")
        for manner in self._chosen(direction):
            manner.sliced = on

    def freeze(self, direction: Direction | None = None) -> None:
        """Read no more, on present and new connections, as if what is there had stopped running."""
        self._count("freeze")
        for manner in self._chosen(direction):
            manner.flowing.clear()

    def thaw(self, direction: Direction | None = None) -> None:
        """Read again."""
        for manner in self._chosen(direction):
            manner.flowing.set()

    def cut(self, connection: int | None = None) -> None:
        """Close one connection, or all, in good order on both sides; what was held is dropped."""
        for one in self._those(connection):
            one.cut()

    def reset(self, connection: int | None = None) -> None:
        """Reset one connection, or all, on both sides; what was held is dropped."""
        for one in self._those(connection):
            one.reset()

    def _count(self, kind: str) -> None:
        self.injected[kind] += 1

    def _chosen(self, direction: Direction | None) -> list[Manner]:
        return [self._manners[one] for one in (_BOTH if direction is None else (direction,))]

    def _those(self, connection: int | None) -> list[_Connection]:
        if connection is None:
            return list(self._open.values())
        return [self._open[connection]] if connection in self._open else []

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await accept_no_more(server.sockets)
            server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.accepted_at.append(time.monotonic())
        target = urlsplit(self.target)
        try:
            from_target, upstream = await asyncio.open_connection(target.hostname, target.port)
        except OSError:
            _reset(client)
            return
        connection = _Connection(self.recorder.new_connection(), client, upstream, self._count)
        ways = {FROM_WORKER: (reader, upstream), TO_WORKER: (from_target, client)}
        conversation = self._conversation()
        connection.lanes = [
            Lane(
                direction,
                *ends,
                conversation=conversation,
                manner=self._manners[direction],
                recorder=self.recorder,
                connection=connection,
            )
            for direction, ends in ways.items()
        ]
        self._open[connection.number] = connection
        try:
            await connection.run()
        finally:
            del self._open[connection.number]
            for writer in (client, upstream):
                writer.close()


class _Connection:
    """A pair of sockets and the two lanes between them."""

    def __init__(
        self,
        number: int,
        client: asyncio.StreamWriter,
        upstream: asyncio.StreamWriter,
        count: Callable[[str], None],
    ) -> None:
        self.number = number
        self.lanes: list[Lane] = []
        self._writers = (client, upstream)
        self.count = count
        self._running: asyncio.Future[list[None]] | None = None

    async def run(self) -> None:
        running = self._running = asyncio.gather(*(lane.run() for lane in self.lanes))
        with suppress(asyncio.CancelledError):  # by `reset`
            await running

    def cut(self) -> None:
        self.count("cut")
        for lane in self.lanes:
            lane.discard()

    def hang_up(self) -> None:
        self.count("hang_up")
        for lane in self.lanes:
            lane.finish()

    def reset(self) -> None:
        self.count("reset")
        for writer in self._writers:
            _reset(writer)
        if self._running is not None:
            self._running.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
