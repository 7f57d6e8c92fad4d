"""One connection to the broker: opening it, closing it, and telling which errors mean that it is lost."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel as AbstractPikaChannel
from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPChannelError,
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ConnectionClosed,
)
from yarl import URL

from worker.broker.fields import read_leniently
from worker.broker.remedies import AUTHENTICATION, NO_CONFIRMS, SILENCE, remedy_for
from worker.broker.socket import Socket
from worker.broker.words import Refusal, refusal_in, words_of
from worker.common.tasks import cancel, start
from worker.common.text import shortened, well_formed
from worker.contract.errors import BrokerAway, SettingsError
from worker.settings import BrokerSettings
from worker.settings.masking import mask_urls
from worker.settings.rereading import Rereader
from worker.settings.tls_faults import TlsFaults

_CONNECT_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 3.0
_OBJECT = re.compile(r"<[A-Za-z_][^<>]*>")  # how the library names its own objects, of use to nobody
_LONGEST_REASON = 500  # characters
_HEARTBEAT = 15

# What aiormq raises when a connection or channel is gone; see also `means_loss`.
LOST = (AMQPError, ChannelInvalidStateError, OSError, EOFError, StopAsyncIteration)


def means_loss(error: BaseException) -> bool:
    """Whether this error of the library means that the connection or channel is gone.

    The library fails all callers on a dead connection with the error that ended its reader. That can be a
    CancelledError although nobody cancelled the calling task, or a bare Exception where the peer closed between two
    frames.

    Raises:
        CancelledError: the calling task is cancelled, and the library made another error of that, as it does where
            the connection is lost meanwhile.
    """
    task = asyncio.current_task()
    is_cancelled = task is not None and task.cancelling() > 0
    if isinstance(error, asyncio.CancelledError):
        return task is not None and not is_cancelled
    lost = isinstance(error, LOST) or type(error) is Exception
    if lost and is_cancelled:
        raise asyncio.CancelledError from error
    return lost


_library_lock = Channel.lock.fget  # type: ignore[attr-defined]


@asynccontextmanager
async def _lock_unless_closing(channel: Channel) -> AsyncIterator[None]:
    """Let no frame go out on a channel that the broker is closing.

    The library's own lock lets it go between the broker's Channel.Close and the end of its own closing; the broker
    answers such a frame by closing the whole connection (504).
    """
    async with _library_lock(channel):
        if is_closing(channel):
            raise ChannelInvalidStateError("the broker closes the channel")
        yield


Channel.lock = property(_lock_unless_closing)  # type: ignore[method-assign, assignment]


class Connection(aio_pika.Connection):
    """A connection that can be ended without the peer's help: see `close`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._socket = self.kwargs["transport_factory"] = Socket()

    def __str__(self) -> str:
        """Where it leads, with the user, but without password and query, which may hold a token."""
        return str(self.url.with_password(None).with_query(None))

    def __del__(self) -> None:
        """Do nothing: whoever opened it closes it. The library starts a task here, even on a loop that has ended."""

    @property
    def socket(self) -> Socket:
        """The socket beneath it."""
        return self._socket

    async def open_channel(self, *, confirms: bool) -> AbstractPikaChannel:
        """Open a channel; with `confirms`, publishing on it waits for one, and raises for what no queue takes.

        Raises what the library raises where the connection is lost meanwhile; see `means_loss`.
        """
        try:
            return await self.channel(publisher_confirms=confirms, on_return_raises=confirms)
        except RuntimeError as error:  # what the library raises on a connection that it has closed
            raise ConnectionResetError("the connection is closed") from error

    async def connect(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as the library has it
        """Open the connection; what the peer says later is not kept."""
        await super().connect(timeout)
        assert self.transport is not None  # noqa: S101 - it was opened a moment ago
        self._socket.frames.tune(self.transport.connection.connection_tune.frame_max or 0)
        self._socket.stop_listening()

    def abort(self) -> None:
        """Close the socket at once; data not sent yet is lost."""
        self._socket.abort()

    def read(self, *, on: bool) -> None:
        """Pause or resume reading from the socket: back pressure on deliveries, which the library does not offer."""
        self._socket.read(on=on)


async def connect(
    url: str, tls: ssl.SSLContext | None, *, name: str, faults: TlsFaults | None = None
) -> Connection:
    """Open one connection under our own timeout, since the library ignores its own now and then.

    `faults` explains what is wrong with TLS.

    Raises:
        BrokerAway: for whatever reason; the text says which, without the password.
    """
    read_leniently()
    try:
        target = URL(url)
        port = target.explicit_port or (5671 if target.scheme == "amqps" else 5672)
        where = f"{target.host}:{port}{target.path.rstrip('/')}"
    except ValueError as error:
        raise BrokerAway(f"{mask_urls(url)}: this is no address ({error})", "see broker.url") from error
    if "heartbeat" not in target.query:
        target = target.update_query(heartbeat=_HEARTBEAT)
    context = tls if target.scheme == "amqps" else None
    connection = Connection(target, ssl_context=context, client_properties={"connection_name": name})
    try:
        await _open(connection)
    except Exception as error:  # whatever the bytes of a peer that is no broker make the library raise
        explained = _tls_fault(error, connection.socket, faults) if context and faults else None
        why, remedy = explained or _why_not_opened(error, connection.socket)
        nobody_listens = isinstance(error.__cause__ or error, ConnectionRefusedError)
        raise BrokerAway(f"{where}: {why}", remedy, nobody_listens=nobody_listens) from error
    if not _confirms(connection):
        await close(connection)
        raise BrokerAway(f"{where}: it does not offer to confirm messages (publisher_confirms)", NO_CONFIRMS)
    return connection


def _confirms(connection: Connection) -> bool:
    """Whether the broker offers to confirm messages: nothing may be published to one that does not."""
    assert connection.transport is not None  # noqa: S101 - it was opened a moment ago
    offered = connection.transport.connection.server_properties.get("capabilities")
    return isinstance(offered, dict) and offered.get("publisher_confirms") is True


async def _open(connection: Connection) -> None:
    """Open a connection in time. Late or cancelled, the socket is closed at once: the library would wait for TLS."""
    opening = start(connection.connect())
    try:
        await asyncio.wait({opening}, timeout=_CONNECT_TIMEOUT)
        if not opening.done():
            raise TimeoutError
        if opening.cancelled():  # by the library itself
            raise ConnectionAbortedError("given up by the library")
        opening.result()
    finally:
        if not opening.done():
            connection.abort()
            await cancel(opening)


def _tls_fault(error: Exception, socket: Socket, faults: TlsFaults) -> Refusal | None:
    """Return what is wrong with TLS, and the remedy, where that is what kept a connection from being opened."""
    if socket.heard or not socket.is_dialled:
        return None
    cause = error.__cause__ or error
    for each in (cause, socket.lost):
        if isinstance(each, ssl.SSLError):
            fault = faults.of(each)
            return fault.why, fault.remedy
    if isinstance(cause, TimeoutError | ConnectionAbortedError):
        fault = faults.late()
        return (
            None
            if socket.is_open
            else (f"no answer within {_CONNECT_TIMEOUT:g} s: {fault.why}", fault.remedy)
        )
    fault = faults.closed(is_open=socket.is_open)
    return fault.why, fault.remedy


def _why_not_opened(error: Exception, socket: Socket) -> tuple[str, str]:
    """Return why, in the peer's own words where it has said any, and the remedy, "" where it is the usual one."""
    if refusal := refusal_in(socket.heard):
        return refusal
    why, remedy = text_of(error), ""
    match error:
        case TimeoutError():
            why = f"no answer within {_CONNECT_TIMEOUT:g} s"
        case AuthenticationError():
            why, remedy = f"it offers these ways to log in alone: {error.args[0]}", AUTHENTICATION
        case UnicodeError():
            why, remedy = f"this is no host name ({error})", "see broker.url"
        case _ if socket.is_open:
            why, remedy = "the connection was closed without a word", SILENCE
    return why, remedy


def files_of(settings: BrokerSettings) -> Rereader:
    """Return what reads the files of the broker's section. Raises SettingsError where certificates can't be used."""
    return Rereader("broker", settings, tls=any(url.startswith("amqps:") for url in settings.urls))


async def connect_any(settings: BrokerSettings, files: Rereader, *, name: str, begin: int = 0) -> Connection:
    """Connect to the first URL that answers, beginning with the one at place `begin` of as many as there are.

    Raises:
        BrokerAway: none does; the text says why for each, and the remedy. Or a file can't be read.
    """
    try:
        tls = await files()
    except SettingsError as error:
        raise BrokerAway(str(error)) from error
    faults = TlsFaults("broker", settings)
    failed: list[BrokerAway] = []
    turn = begin % len(settings.urls)
    for url in (*settings.urls[turn:], *settings.urls[:turn]):
        try:
            return await connect(url, tls, name=name, faults=faults)
        except BrokerAway as error:
            failed.append(error)
    usual = "" if all(error.remedy for error in failed) else "see broker.url, and whether RabbitMQ runs"
    nobody_listens = all(error.nobody_listens for error in failed)
    raise BrokerAway("; ".join(map(str, failed)), usual, nobody_listens=nobody_listens)


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


def socket_of(channel: AbstractChannel) -> Socket:
    """Return the socket beneath a channel of a `Connection`."""
    socket = channel.connection._transport_factory  # type: ignore[attr-defined] # noqa: SLF001 - it was given ours
    assert isinstance(socket, Socket)  # noqa: S101 - by `Connection`
    return socket


def is_closing(channel: AbstractChannel) -> bool:
    """Tell whether no frame may go out on a channel any more: the broker would close the whole connection (504)."""
    return channel.is_closed or channel._close_exception is not None  # type: ignore[attr-defined] # noqa: SLF001


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
    """Return the text of a loss for the log, with the remedy where the broker's words have one."""
    if error is None or isinstance(error, StopAsyncIteration):
        return "closed"
    if isinstance(error, ChannelInvalidStateError):
        return "the channel is closed"  # the library's own text holds a memory address
    if isinstance(error, asyncio.CancelledError) and not str(error):
        return "given up by the library, as it does when no heartbeat comes"
    if isinstance(error, ConnectionClosed | AMQPChannelError):
        said, remedy = words_of(error), remedy_for(words_of(error))
        return f"{said}; {remedy}" if remedy else said
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _OBJECT.sub("(…)", shortened(well_formed(str(error)), _LONGEST_REASON)) or type(error).__name__
