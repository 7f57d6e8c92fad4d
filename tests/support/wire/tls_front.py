"""TLS in front of a server that has none, such as the tests' broker."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class TlsFront:
    """Takes TLS connections at 127.0.0.1 and passes on what they carry; an asynchronous context manager."""

    def __init__(self, context: ssl.SSLContext, target: str) -> None:
        self._context = context
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
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", ssl=self._context)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection(self._target.hostname, self._target.port)
        ends = {writer, out}
        self._writers |= ends
        await asyncio.gather(_pass_on(reader, out), _pass_on(there, writer))
        self._writers -= ends


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
