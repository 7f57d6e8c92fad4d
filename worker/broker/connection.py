"""One connection to the broker: opening it, closing it, and telling which errors mean that it is lost."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aiormq.channel import Channel
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import (
    AMQPError,
    ChannelInvalidStateError,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from yarl import URL

from worker.broker.fields import read_leniently
from worker.contract.errors import BrokerAway
from worker.settings import BrokerSettings
from worker.settings.masking import mask_urls
from worker.settings.tls import client_context

_CONNECT_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 3.0
_HEARTBEAT = 15

# What aiormq raises when a connection or channel is gone; see also `means_loss`.
LOST = (AMQPError, ChannelInvalidStateError, OSError, EOFError, StopAsyncIteration)


def means_loss(error: BaseException) -> bool:
    """Whether this error of the library means that the connection or channel is gone.

    The library fails all callers on a dead connection with the error that ended its reader. That can be a
    CancelledError although nobody cancelled the calling task, or a bare Exception where the peer closed between two
    frames.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, LOST) or type(error) is Exception


_library_lock = Channel.lock.fget  # type: ignore[attr-defined]


@asynccontextmanager
async def _lock_unless_closing(channel: Channel) -> AsyncIterator[None]:
    """Let no frame go out on a channel that the broker is closing.

    The library's own lock lets it go between the broker's Channel.Close and the end of its own closing; the broker
    answers such a frame by closing the whole connection (504).
    """
    async with _library_lock(channel):
        if channel._close_exception is not None:  # noqa: SLF001 - nothing public tells
            raise ChannelInvalidStateError("the broker closes the channel")
        yield


Channel.lock = property(_lock_unless_closing)  # type: ignore[method-assign, assignment]


class _Transport(TransportFactory):
    """Opens the socket as the library does, and keeps a reference to it."""

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading = asyncio.Event()
        self._reading.set()

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        self._reader, self._writer = await factory.create(url, **kwargs)
        return self._reader, self._writer

    def abort(self) -> None:
        self.read(on=True)
        if self._writer is not None:
            self._writer.transport.abort()

    def read(self, *, on: bool) -> None:
        if self._reader is None or on == self._reading.is_set():
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
        assert self._reader is not None  # noqa: S101 - its method was replaced
        return await self._reader.readexactly(n)


class Connection(aio_pika.Connection):
    """A connection that can be ended without the peer's help: see `close`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._socket = self.kwargs["transport_factory"] = _Transport()

    def __del__(self) -> None:
        """Do nothing: whoever opened it closes it. The library starts a task here, even on a loop that has ended."""

    def abort(self) -> None:
        """Close the socket at once; data not sent yet is lost."""
        self._socket.abort()

    def read(self, *, on: bool) -> None:
        """Pause or resume reading from the socket: back pressure on deliveries, which the library does not offer."""
        self._socket.read(on=on)


async def connect(url: str, settings: BrokerSettings, *, name: str) -> Connection:
    """Open one connection under our own timeout, since the library ignores its own now and then.

    Raises:
        BrokerAway: for whatever reason; the text says which, without the password.
    """
    read_leniently()
    context: ssl.SSLContext | None = client_context(settings) if url.startswith("amqps:") else None
    try:
        target = URL(url)
    except ValueError as error:
        raise BrokerAway(f"{mask_urls(url)}: this is no address ({error}); see broker.url") from error
    if "heartbeat" not in target.query:
        target = target.update_query(heartbeat=_HEARTBEAT)
    port = target.explicit_port or (5671 if target.scheme == "amqps" else 5672)
    where = f"{target.host}:{port}{target.path.rstrip('/')}"
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            return await aio_pika.connect(
                target,
                ssl_context=context,
                client_properties={"connection_name": name},
                connection_class=Connection,
            )
    except TimeoutError as error:
        raise BrokerAway(f"{where}: no answer within {_CONNECT_TIMEOUT:g} s") from error
    except ProbableAuthenticationError as error:
        raise BrokerAway(f"{where}: user name or password refused; see broker.url") from error
    except (ConnectionNotAllowed, InvalidFrameError) as error:
        # The library does not pass on the broker's reason.
        raise BrokerAway(
            f"{where}: refused; see whether broker.url names a virtual host that exists, and that its user may enter"
        ) from error
    except UnicodeError as error:
        raise BrokerAway(f"{where}: this is no host name ({error}); see broker.url") from error
    except LOST as error:
        raise BrokerAway(f"{where}: {text_of(error)}") from error


async def connect_any(settings: BrokerSettings, *, name: str) -> Connection:
    """Connect to the first URL that answers.

    Raises:
        BrokerAway: none does; the text says why for each, and the remedy.
    """
    failed = []
    for url in settings.urls:
        try:
            return await connect(url, settings, name=name)
        except BrokerAway as error:
            failed.append(str(error))
    why = "; ".join(failed)
    raise BrokerAway(why if "broker.url" in why else f"{why}; see broker.url, and whether RabbitMQ runs")


async def close(connection: Connection) -> None:
    """Close with the AMQP handshake; abort where the peer does not answer. Raises nothing but CancelledError."""
    connection.read(on=True)
    # Not under asyncio.timeout: the library goes on waiting for the peer when it is cancelled.
    closing = asyncio.ensure_future(connection.close())
    try:
        await asyncio.wait({closing}, timeout=_CLOSE_TIMEOUT)
    finally:
        if not closing.done():
            connection.abort()
        await asyncio.gather(closing, return_exceptions=True)


@asynccontextmanager
async def broker_call(timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109 - it becomes an error of our own
    """Limit a call to the broker to `timeout` seconds; the library ignores its own timeouts now and then.

    Raises:
        BrokerAway: it did not answer in time, or the connection or channel is gone.
    """
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise BrokerAway(f"the broker did not answer within {timeout:g} s") from error
    except BaseException as error:
        if means_loss(error):
            raise BrokerAway(f"the broker left: {text_of(error)}") from error
        raise


def is_blocked(connection: Connection) -> bool:
    """Whether the broker has sent connection.blocked: then the library's `ready` waits."""
    transport = connection.transport
    if transport is None:
        return False
    waiting = transport.connection.ready().__await__()
    try:
        next(waiting)
    except StopIteration:
        return False
    waiting.close()
    return True


def text_of(error: BaseException | None) -> str:
    """Return the text of a loss for the log."""
    if error is None or isinstance(error, StopAsyncIteration):
        return "closed"
    if isinstance(error, ChannelInvalidStateError):
        return "the channel is closed"  # the library's own text holds a memory address
    if isinstance(error, asyncio.CancelledError) and not str(error):
        return "given up by the library, as it does when no heartbeat comes"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
