"""A socket hands on what it receives; whatever that is, its end is a loss like any other."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pamqp.frame
import pytest
import uvloop
from aiormq import spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from yarl import URL

from worker.broker.frames import OnContent
from worker.broker.socket import Socket

CHANNEL = 1
DELIVER = pamqp.frame.marshal(spec.Basic.Deliver("c", 1, False, "x", "k"), CHANNEL)
CONTENT = pamqp.frame.marshal(ContentHeader(body_size=1), CHANNEL) + pamqp.frame.marshal(
    ContentBody(b"a"), CHANNEL
)
NO_HEADER = struct.pack(">BHI", 2, CHANNEL, 2) + b"\x00\x3c\xce"


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Socket, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Give a socket, the reader of what nobody claims, and what writes to it as the broker would."""
    accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

    def accept(_: asyncio.StreamReader, peer: asyncio.StreamWriter) -> None:
        accepted.set_result(peer)

    async with await asyncio.start_server(accept, "127.0.0.1") as server:
        url = URL(f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        socket = Socket()
        reader, writer = await socket.create(url, ssl_context_provider=None)
        socket.stop_listening()
        peer = await accepted
        try:
            yield socket, reader, peer
        finally:
            peer.transport.abort()
            writer.transport.abort()


async def handle_no_more_than_one_and_end() -> None:
    came = asyncio.Event()
    count = 0
    async with connected() as (socket, reader, peer):

        def take(_header: ContentHeader, _body: bytes) -> None:
            nonlocal count
            count += 1
            if count == 1:
                socket.read(on=False)
            came.set()

        def offered(payload: bytes) -> OnContent | bool:
            return take if payload == DELIVER[7:-1] else False

        socket.frames.claim(CHANNEL, offered)
        peer.write((DELIVER + CONTENT) * 2 + pamqp.frame.marshal(spec.Basic.QosOk(), CHANNEL))
        await came.wait()
        socket.abort()
        await reader.read()  # to the end
        socket.read(on=True)
        assert count == 1


async def receive_what_cannot_be_read() -> None:
    async with connected() as (socket, reader, peer):
        socket.frames.claim(CHANNEL, lambda _payload: lambda _header, _body: None)
        peer.write(DELIVER + NO_HEADER)
        with pytest.raises(ConnectionAbortedError, match="can't be read"):
            await reader.readexactly(1)
        assert not socket.write(b"")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_that_ends_while_nothing_is_read(run: object) -> None:
    """Whoever goes on reading it then is told nothing: it may be a job that has just made room."""
    assert callable(run)
    run(handle_no_more_than_one_and_end())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_content_that_cannot_be_read_loses_the_connection(run: object) -> None:
    """Not the error of the decoder is raised in all who wait for the broker, which would end the worker."""
    assert callable(run)
    run(receive_what_cannot_be_read())
