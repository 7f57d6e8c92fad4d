"""The socket beneath a connection: ended at once, read later, and what the peer said first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from aiormq.connection import TransportFactory
from yarl import URL

from worker.common.dial import dial

_KEPT = 16 * 1024
"""How much is kept of what the peer says; until a connection is tuned, no frame has more than 4 KiB."""
_METHOD_FRAME = b"\x01"
_ENOUGH = 7
"""How many bytes tell who it is that does not speak AMQP 0-9-1; the library would wait for the end of a frame."""


class _Protocol(asyncio.StreamReaderProtocol):
    """Calls `on_lost` when the connection is lost: nobody may be reading."""

    def __init__(self, reader: asyncio.StreamReader, on_lost: Callable[[], object]) -> None:
        super().__init__(reader)
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()


class Socket(TransportFactory):
    """Opens a socket in the library's place, by all addresses of a name, and keeps a reference to it.

    `heard` is what the peer has said since; no more of it is kept once `stop_listening` was called.
    """

    def __init__(self) -> None:
        self.heard = b""
        self.is_open = False
        self._reader = asyncio.StreamReader()
        self._transport: asyncio.Transport | None = None
        self._reading = asyncio.Event()
        self._reading.set()

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        reader = self._reader
        # The method is replaced for that time only, so that listening costs nothing later.
        reader.feed_data = self._listen  # type: ignore[method-assign, assignment]
        protocol = _Protocol(reader, partial(self.read, on=True))
        loop = asyncio.get_running_loop()
        sock = await dial(url.host or "", url.port or 0)
        self._transport, _ = await loop.create_connection(
            lambda: protocol, sock=sock, ssl=context, server_hostname=url.host if context else None, **kwargs
        )
        self.is_open = True
        return reader, asyncio.StreamWriter(self._transport, protocol, reader, loop)

    def stop_listening(self) -> None:
        self.heard = b""
        del self._reader.feed_data

    def abort(self) -> None:
        self.read(on=True)
        if self._transport is not None:
            self._transport.abort()

    def read(self, *, on: bool) -> None:
        if self._transport is None or on == self._reading.is_set():
            return
        # Not at the socket, which the stream reader resumes by itself: it stops when nobody reads from the stream. The
        # method is replaced for that time only, so that reading costs nothing otherwise.
        if on:
            self._reading.set()
            del self._reader.readexactly
        else:
            self._reading.clear()
            self._reader.readexactly = self._read_later  # type: ignore[method-assign]

    async def _read_later(self, n: int) -> bytes:
        await self._reading.wait()
        return await self._reader.readexactly(n)

    def _listen(self, data: bytes) -> None:
        self.heard = (self.heard + data)[:_KEPT]
        if self.heard.startswith(_METHOD_FRAME):
            asyncio.StreamReader.feed_data(self._reader, data)
        elif len(self.heard) >= _ENOUGH:
            self._reader.feed_eof()
