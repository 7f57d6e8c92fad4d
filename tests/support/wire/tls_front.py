"""TLS in front of a server that has none, such as the tests' broker.

asyncio's own drops the connection where a handshake fails, and with it the alert that would tell the client why.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

_MOST = 2**16
_Step = TypeVar("_Step")


class TlsFront:
    """Takes TLS connections at 127.0.0.1 and passes on what they carry; an asynchronous context manager.

    `context` may be replaced, for the connections to come. `clients` are the names in the certificates that were shown.
    """

    def __init__(self, context: ssl.SSLContext, target: str) -> None:
        self.context = context
        self.clients: list[str] = []
        self._target = urlsplit(target)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The target's URL, by way of here and with TLS."""
        user, at, _ = self._target.netloc.rpartition("@")
        parts = self._target._replace(
            scheme=f"{self._target.scheme}s", netloc=f"{user}{at}127.0.0.1:{self.port}"
        )
        return urlunsplit(parts)

    def cut(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        tls = _Tls(self.context, reader, writer)
        with suppress(OSError):
            try:
                await tls.shake_hands()
            except ssl.SSLError:
                await _hang_up(reader, writer)
            else:
                self.clients.append(tls.client)
                await self._carry(tls, writer)
        writer.transport.abort()
        self._writers.discard(writer)

    async def _carry(self, tls: _Tls, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers.add(out)
        await asyncio.gather(
            _pass_on(tls.read, out.write, out), _pass_on(partial(there.read, _MOST), tls.write, writer)
        )
        self._writers.discard(out)


class _Tls:
    """The server's end of TLS on a connection."""

    def __init__(
        self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader, self._writer = reader, writer
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)

    @property
    def client(self) -> str:
        """The common name in the client's certificate, "" where it has shown none."""
        shown: Any = self._tls.getpeercert() or {}
        return str(dict(chain.from_iterable(shown.get("subject", ()))).get("commonName", ""))

    async def shake_hands(self) -> None:
        await self._with_more(self._tls.do_handshake)

    async def read(self) -> bytes:
        return await self._with_more(partial(self._tls.read, _MOST))

    def write(self, data: bytes) -> None:
        self._tls.write(data)
        self._writer.write(self._to_send.read())

    async def _with_more(self, step: Callable[[], _Step]) -> _Step:
        """Take a step, and first as much from the client as it needs; what TLS has to say goes out, an alert too."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._writer.write(self._to_send.read())
                if data := await self._reader.read(_MOST):
                    self._received.write(data)
                else:
                    raise ConnectionResetError from None
            finally:
                self._writer.write(self._to_send.read())


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End a connection so that the last words arrive: what is not read would have it reset."""
    writer.write_eof()
    while await reader.read(_MOST):
        pass


async def _pass_on(
    read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], object], writer: asyncio.StreamWriter
) -> None:
    with suppress(OSError):
        while data := await read():
            write(data)
            await writer.drain()
    writer.transport.abort()
