"""A websocket server that is scripted frame by frame: it answers nothing of its own accord, not even a ping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol


def text(message: bytes, *, fin: bool = True) -> Frame:
    """Return a text frame, without `fin` the first one of a message in fragments."""
    return Frame(Opcode.TEXT, message, fin)


def more(message: bytes, *, fin: bool = True) -> Frame:
    """Return a further fragment."""
    return Frame(Opcode.CONT, message, fin)


def pong(ping: Frame) -> Frame:
    """Return the answer to a ping."""
    return Frame(Opcode.PONG, ping.data)


class RawPeer:
    """One connection with a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = ServerProtocol()
        self._frames: list[Frame] = []

    async def accept(self, *frames: Frame, extensions: str = "") -> None:
        """Answer the handshake, as if these extensions had been agreed on, and say this in the same write."""
        while not (events := await self._events()):
            pass
        [request] = events
        assert isinstance(request, Request)
        response = self._protocol.accept(request)
        if extensions:
            response.headers["Sec-WebSocket-Extensions"] = extensions
        self._protocol.send_response(response)
        self._writer.write(b"".join([*self._protocol.data_to_send(), *map(_raw, frames)]))

    def say(self, *frames: Frame) -> None:
        """Say this in one write."""
        self._writer.write(b"".join(map(_raw, frames)))

    def say_bytes(self, raw: bytes) -> None:
        """Say this, whether it is frames or not."""
        self._writer.write(raw)

    async def hear(self) -> Frame:
        """Return the next frame of the client's; EOFError where it is gone."""
        while not self._frames:
            self._frames += [event for event in await self._events() if isinstance(event, Frame)]
        return self._frames.pop(0)

    async def hear_request(self) -> list[Frame]:
        """Return the frames up to the next text, which is the last of them."""
        frames = [await self.hear()]
        while frames[-1].opcode is not Opcode.TEXT:
            frames.append(await self.hear())
        return frames

    async def _events(self) -> list[object]:
        data = await self._reader.read(1 << 16)
        if not data:
            raise EOFError
        self._protocol.receive_data(data)
        self._protocol.data_to_send()
        return list(self._protocol.events_received())


@asynccontextmanager
async def raw_peer(converse: Callable[[RawPeer], Awaitable[None]]) -> AsyncIterator[str]:
    """Give the URL of a server that talks so with its one client; what it asserts in vain fails the test."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    came = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came = True
        try:
            with suppress(EOFError, ConnectionError):
                await converse(RawPeer(reader, writer))
            over.set_result(None)
        except Exception as error:  # noqa: BLE001 - for the test
            over.set_exception(error)
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        if came:
            await over


def _raw(frame: Frame) -> bytes:
    return frame.serialize(mask=False)
