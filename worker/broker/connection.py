"""One connection to the broker: how it is opened, how it is closed for good, and what errors mean that it is lost."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

import aio_pika
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
from worker.errors import BrokerAway
from worker.settings import BrokerSettings
from worker.tls import client_context

_CONNECT_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 3.0
_HEARTBEAT = 15

# What aiormq raises when a connection or channel is gone; see also `means_loss`.
LOST = (AMQPError, ChannelInvalidStateError, OSError, EOFError, StopAsyncIteration)


def means_loss(error: BaseException) -> bool:
    """Whether the library says by this error that the connection or channel is gone.

    It ends whatever waits on a dead connection with what ended its reader. That can be a CancelledError, which
    nobody meant for the task that gets it, or a bare Exception where the peer closed between two frames.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, LOST) or type(error) is Exception


class _Transport(TransportFactory):
    """Opens the socket as the library would by itself, and keeps hold of it."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self._writer = await factory.create(url, **kwargs)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()

    def read(self, *, on: bool) -> None:
        if self._writer is None or self._writer.is_closing():
            return
        transport = cast("asyncio.Transport", self._writer.transport)
        if on:
            transport.resume_reading()
        else:
            transport.pause_reading()


class Connection(aio_pika.Connection):
    """A connection that can be ended without the peer's help: see `close`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._socket = self.kwargs["transport_factory"] = _Transport()

    def __del__(self) -> None:
        """Do nothing: whoever opened it closes it. The library starts a task here, even on a loop that has ended."""

    def abort(self) -> None:
        """Drop the socket with whatever was not sent yet."""
        self._socket.abort()

    def read(self, *, on: bool) -> None:
        """Stop reading from the socket, or go on: a brake on what the broker pushes, which the library lacks."""
        self._socket.read(on=on)


async def connect(url: str, settings: BrokerSettings, *, name: str) -> Connection:
    """Open one connection under our own deadline, since the library's are ignored now and then.

    Raises:
        BrokerAway: for whatever reason; the text says which, without the password.
    """
    read_leniently()
    context: ssl.SSLContext | None = client_context(settings) if url.startswith("amqps:") else None
    target = URL(url)
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
        # The library keeps to itself what the broker said.
        raise BrokerAway(
            f"{where}: refused; see whether broker.url names a virtual host that exists, and that its user may enter"
        ) from error
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
    """Say goodbye and close; hang up on a peer that does not answer. Raises nothing but by cancellation."""
    # Not under a timeout: cancelled, the library waits on for the peer.
    closing = asyncio.ensure_future(connection.close())
    try:
        await asyncio.wait({closing}, timeout=_CLOSE_TIMEOUT)
    finally:
        if not closing.done():
            connection.abort()
        await asyncio.gather(closing, return_exceptions=True)


def is_blocked(connection: Connection) -> bool:
    """Whether the broker has said connection.blocked: then `ready` has something to wait for."""
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
    """Return what a loss looks like to a reader of the log."""
    if error is None or isinstance(error, StopAsyncIteration):
        return "closed"
    if isinstance(error, ChannelInvalidStateError):
        return "the channel is closed"  # the library's own text names an address in memory
    if isinstance(error, asyncio.CancelledError) and not str(error):
        return "given up by the library, as it does when no heartbeat comes"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
