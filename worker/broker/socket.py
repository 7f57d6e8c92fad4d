"""The socket beneath a connection: ended at once, read later, and what the peer said first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiormq.connection import TransportFactory
from yarl import URL

from worker.broker.bundle import Bundle
from worker.broker.frames import Frames
from worker.common.dial import dial

_KEPT = 16 * 1024
"""How much is kept of what the peer says; until a connection is tuned, no frame has more than 4 KiB."""
_METHOD_FRAME = b"\x01"
_ENOUGH = 7
"""How many bytes tell who it is that does not speak AMQP 0-9-1; the library would wait for the end of a frame."""


class _Protocol(asyncio.StreamReaderProtocol):
    """Hands all that is received to `receive`, and tells `end` when no more can come."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        receive: Callable[[bytes], object],
        end: Callable[[Exception | None], object],
    ) -> None:
        super().__init__(reader)
        self._receive = receive
        self._end = end

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def eof_received(self) -> bool | None:
        self._end(None)
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        super().connection_lost(exc)


class _Writer(asyncio.StreamWriter):
    """What the library writes to: its frames stay behind those that were written before."""

    def __init__(self, *args: Any, flush: Callable[[], object]) -> None:
        super().__init__(*args)
        self._flush = flush

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._flush()
        super().write(data)

    def close(self) -> None:
        self._flush()
        super().close()


class Socket(TransportFactory):
    """Opens a socket in the library's place, by all addresses of a name, and keeps a reference to it.

    `heard` is what the peer has said since; no more of it is kept once `stop_listening` was called. `frames` takes what
    is claimed of that before the library reads it. `is_dialled` once the network's connection is made, `is_open` once
    TLS is, too; `lost` is what of the network ended it.
    """

    def __init__(self) -> None:
        self.heard = b""
        self.is_dialled = False
        self.is_open = False
        self.lost: Exception | None = None
        self._is_listening = True
        self._reader = asyncio.StreamReader()
        self.frames = Frames(self._reader.feed_data)
        self._transport: asyncio.Transport | None = None
        self._bundle = Bundle(self._send)

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        reader = self._reader
        protocol = _Protocol(reader, self._receive, self._end)
        loop = asyncio.get_running_loop()
        sock = await dial(url.host or "", url.port or 0)
        self.is_dialled = True
        self._transport, _ = await loop.create_connection(
            lambda: protocol, sock=sock, ssl=context, server_hostname=url.host if context else None, **kwargs
        )
        self.is_open = True
        if context is not None:
            # An alert that has come by now is read: to write first, on what the broker has reset since, would lose it.
            await asyncio.sleep(0)
        return reader, _Writer(self._transport, protocol, reader, loop, flush=self._bundle.flush)

    def _end(self, lost: Exception | None) -> None:
        self.lost = self.lost or lost
        self.frames.end()

    def stop_listening(self) -> None:
        self.heard = b""
        self._is_listening = False

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def write(self, frames: bytes) -> bool:
        """Write whole frames, with what else is written in the same moment; false where the connection is gone."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._bundle.add(frames)
        return True

    def _send(self, frames: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames)

    def read(self, *, on: bool) -> None:
        """Stop reading, or go on with what was received meanwhile."""
        if self._transport is None or on != self.frames.held:
            return
        self.frames.held = not on
        if on:
            self._feed(b"")
        if self._transport.is_closing():
            return
        if self.frames.held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _receive(self, data: bytes) -> None:
        if self._is_listening:
            self.heard = (self.heard + data)[:_KEPT]
            if not self.heard.startswith(_METHOD_FRAME):
                if len(self.heard) >= _ENOUGH:
                    self._reader.feed_eof()
                return
        self._feed(data)
        if self.frames.held and self._transport is not None:
            # Again, since the reader resumes the socket by itself.
            self._transport.pause_reading()

    def _feed(self, data: bytes) -> None:
        """Handle what was received; where that fails, the connection is lost, as to an error of the network.

        The library would hand any other error to all who wait for the broker, and nobody expects those.
        """
        try:
            self.frames.feed(data)
        except Exception as error:  # noqa: BLE001 - whatever the bytes of a peer make it raise
            self.frames.end()
            lost = ConnectionAbortedError(f"what was received can't be read: {error!r}")
            lost.__cause__ = error
            self._reader.set_exception(lost)
            self.abort()
