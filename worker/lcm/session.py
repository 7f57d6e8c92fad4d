"""One websocket to LCM, on which one exchange at a time takes place.

LCM's reply names neither the account nor the request. So whoever gave up on a reply can never use that
websocket again: the reply may still come, and would be taken for the next one's. Whatever leaves a session in
doubt, be it a timeout, a cancellation or a message out of turn, ends it here, at once, by aborting the
transport; a closing handshake would wait for the very peer that is in doubt.

A reply that came twice may still be unread in the socket when the next request goes out. So every request but a
session's first goes out behind a ping, the fence: a peer answers a ping when it reads it, so what comes before the
pong was sent before the request was read, and is no answer to it. That costs no round trip.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidStatus,
    PayloadTooBig,
    TooManyFragments,
    WebSocketException,
)
from websockets.typing import Data

from worker.errors import (
    ConnectionLost,
    JobError,
    LcmError,
    LcmRejected,
    MalformedReply,
    ReplyTimeout,
    ReplyTooLarge,
    SessionNotOpened,
)
from worker.lcm import protocol
from worker.lcm.connector import connect_headers, connect_url, session_name
from worker.settings import LcmSettings
from worker.tls import client_context

_CLOSE_TIMEOUT = 2.0
_CANCELLED = "cancelled in mid-exchange"
_CLOSED_BY_US = "closed by us"
_NO_REPLY = "no reply in time"
_BY_US = frozenset({_CANCELLED, _CLOSED_BY_US, _NO_REPLY})
_REFUSED = frozenset({401, 403})

Ended = Callable[["Session", str], None]
"""Called once when a session has ended, with the reason."""


class Session:
    """An open session. Made by `SessionOpener`.

    The caller's duties: `exchange` is awaited by one task at a time, and a session that is not `alive` is
    dropped.

    Attributes:
        slot: the number of this session's place among those of its worker, from 1.
        exchanges: how many exchanges were begun.
        answered: how many of them LCM answered properly.
        unasked: how many messages came unasked, by what they were.
    """

    def __init__(
        self,
        socket: ClientConnection,
        slot: int,
        session_errors: frozenset[str],
        on_ended: Ended,
        *,
        fenced: bool = True,
    ) -> None:
        self.slot = slot
        self.exchanges = 0
        self.answered = 0
        self.unasked: Counter[str] = Counter()
        self._socket = socket
        self._session_errors = session_errors
        self._on_ended = on_ended
        self._fenced = fenced
        self._behind_fence = False
        self._ended: str | None = None
        self._pending: asyncio.Future[list[protocol.Item]] | None = None
        self._reader = asyncio.get_running_loop().create_task(self._read(), name=f"lcm-session-{slot}")

    @property
    def alive(self) -> bool:
        return self._ended is None

    @property
    def ended_by_us(self) -> bool:
        """Whether LCM had kept it open until we ended it, so that another can be opened without a pause.

        Silence for one account says nothing about the next one, and what silence for many says is the breaker's.
        """
        return self._ended in _BY_US

    def __repr__(self) -> str:
        state = self._ended or ("busy" if self._pending else "idle")
        return f"<Session {self.slot} {state}, {self.exchanges} exchanges>"

    async def exchange(self, account: str, timeout: float) -> list[protocol.Item]:  # noqa: ASYNC109 - ends the session too
        """Ask for one account's outcomes and return them as LCM said them.

        Raises:
            LcmRejected: LCM answered with an error about this account. The session stays good.
            LcmError, ReplyTimeout, ConnectionLost, MalformedReply, ReplyTooLarge: the session has ended.
            asyncio.CancelledError: the caller was cancelled; the session has ended.
        """
        if self._pending is not None:
            raise RuntimeError(f"{self!r} was asked for a second exchange at the same time")
        if self._ended is not None:
            raise ConnectionLost(f"the session had closed: {self._ended}")
        loop = asyncio.get_running_loop()
        pending = self._pending = loop.create_future()
        timer = loop.call_later(timeout, self._expire, timeout)
        self.exchanges += 1
        try:
            await self._send(protocol.encode_request(account), pending)
            items: list[protocol.Item] = await pending
        except asyncio.CancelledError:
            self._end(_CANCELLED)
            raise
        finally:
            timer.cancel()
            self._pending = None
            _forget(pending)
        return items

    async def close(self) -> None:
        """Say goodbye and close, for as long as that takes a willing peer; a session in mid-exchange is aborted."""
        if self._pending is not None:
            self._end("closed in mid-exchange")
        elif self._ended is None:
            self._ended = _CLOSED_BY_US
            await self._socket.close()
            self._on_ended(self, self._ended)
        await asyncio.gather(self._reader, return_exceptions=True)

    def abort(self, reason: str) -> None:
        """End the session at once, without a word to the peer."""
        self._end(reason)

    async def _send(self, request: bytes, pending: asyncio.Future[list[protocol.Item]]) -> None:
        try:
            self._behind_fence = self._fenced and self.exchanges > 1
            if self._behind_fence:
                pong = await self._socket.ping()
                # Called in the order in which frames came in, unlike a look at the future would be.
                asyncio.ensure_future(pong).add_done_callback(self._pass_fence)
            await self._socket.send(request, text=True)
        except ConnectionClosed as gone:
            self._end(_how_it_closed(gone), ConnectionLost("the session closed while the request was sent"))
            pending.result()

    def _pass_fence(self, pong: asyncio.Future[float]) -> None:
        if not pong.cancelled() and pong.exception() is None:
            self._behind_fence = False

    def _expire(self, timeout: float) -> None:
        self._end(_NO_REPLY, ReplyTimeout(f"LCM did not reply in {timeout:g} s"))

    async def _read(self) -> None:
        try:
            while self._ended is None:
                self._take(await self._socket.recv(decode=False))
        except ConnectionClosed as gone:
            self._end(_how_it_closed(gone), _loss(gone))

    def _take(self, raw: Data) -> None:
        assert isinstance(raw, bytes)  # noqa: S101 - recv(decode=False) gives bytes
        frame = protocol.classify(raw, self._session_errors)
        asked = self._pending is not None and not self._pending.done()
        match frame:
            case protocol.Unasked(what):
                self.unasked[what] += 1
            case _ if asked and self._behind_fence:
                early = "said something before it had read the request"
                self._end(early, ConnectionLost(f"the session was closed, since LCM {early}"))
            case protocol.Reply(items) if asked:
                self._answer(items)
            case protocol.Refusal(said, about_lcm=False) if asked:
                self._answer(LcmRejected("LCM rejected the account", said=said))
            case protocol.Refusal(said):
                self._end("LCM reported an error", LcmError("LCM reported an error about itself", said=said))
            case protocol.Malformed(why) | protocol.Garbage(why) if asked:
                self._end("malformed reply", MalformedReply(f"LCM's reply can't be read: {why}"))
            case protocol.Garbage(why):
                self._end(f"said something that is no message: {why}")
            case protocol.Reply() | protocol.Malformed():
                self._end("replied with no request in flight")

    def _answer(self, answer: list[protocol.Item] | LcmRejected) -> None:
        assert self._pending is not None  # noqa: S101 - the caller has just looked
        self.answered += 1
        if isinstance(answer, LcmRejected):
            self._pending.set_exception(answer)
        else:
            self._pending.set_result(answer)

    def _end(self, reason: str, error: JobError | None = None) -> None:
        if self._ended is not None:
            return
        self._ended = reason
        self._socket.transport.abort()
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(error or ConnectionLost(f"the session ended: {reason}"))
        self._on_ended(self, reason)


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow no redirect: credentials and account numbers are for the LCM of the settings alone."""
        return exc


class SessionOpener:
    """Opens sessions as the settings say. Raises SettingsError where the TLS files can't be used."""

    def __init__(self, settings: LcmSettings, worker: str) -> None:
        self._settings = settings
        self._worker = worker
        self._session_errors = frozenset(settings.session_errors)
        self._tls = client_context(settings) if settings.url.startswith("wss:") else None

    async def __call__(self, slot: int, on_ended: Ended) -> Session:
        """Open one session and go through the greeting, all within `connect_timeout`.

        Raises:
            SessionNotOpened: for whatever reason; its text says which.
        """
        socket: ClientConnection | None = None
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                socket = await self._connect(slot)
                await self._greet(socket)
        except BaseException as error:
            if socket is not None:
                socket.transport.abort()
            if isinstance(error, OSError | WebSocketException | ValueError | EOFError):
                raise self._not_opened(error) from error
            raise
        fenced = bool(self._settings.ping_interval)
        return Session(socket, slot, self._session_errors, on_ended, fenced=fenced)

    async def _connect(self, slot: int) -> ClientConnection:
        settings = self._settings
        name = session_name(settings.session_name, worker=self._worker, slot=slot, unixtime=int(time.time()))
        return await _Connect(
            connect_url(settings.url, name),
            additional_headers=connect_headers(settings, name),
            ssl=self._tls,
            # A proxy from the environment would see every account number.
            proxy=settings.proxy or None,
            # A small compressed frame can inflate a thousandfold.
            compression=None,
            max_size=settings.max_reply,
            open_timeout=None,
            ping_interval=settings.ping_interval or None,
            ping_timeout=settings.ping_timeout or None,
            close_timeout=_CLOSE_TIMEOUT,
        )

    async def _greet(self, socket: ClientConnection) -> None:
        for greeting in self._settings.greeting:
            await socket.send(greeting.send.get_secret_value())
            if greeting.await_subtopic:
                await self._await_reply(socket, greeting.await_subtopic.casefold())

    async def _await_reply(self, socket: ClientConnection, subtopic: str) -> None:
        answered = False
        while not answered:
            raw = bytes(await socket.recv(decode=False))
            answered = (protocol.subtopic_of(raw) or "").casefold() == subtopic
            frame: protocol.Frame | None = protocol.classify(raw, self._session_errors)
            if answered and not isinstance(frame, protocol.Refusal):
                frame = protocol.refusal_in(raw, self._session_errors)
            if isinstance(frame, protocol.Refusal):
                # An agent who is turned down may get locked out by trying again, like one with a wrong password.
                refused = answered and not frame.about_lcm
                raise SessionNotOpened(
                    f"LCM answered the greeting with an error: {frame.said}", refused=refused
                )

    def _not_opened(self, error: Exception) -> SessionNotOpened:
        where = urlsplit(self._settings.url)
        reason, refused = _why_not(error, self._settings.connect_timeout)
        port = where.port or (443 if where.scheme == "wss" else 80)
        return SessionNotOpened(f"no session with LCM at {where.hostname}:{port}: {reason}", refused=refused)


def _forget(pending: asyncio.Future[list[protocol.Item]]) -> None:
    """Let go of an answer that nobody may ask for any more, without asyncio's complaint about it."""
    if not pending.done():
        pending.cancel()
    elif not pending.cancelled():
        pending.exception()


def _why_not(error: Exception, connect_timeout: float) -> tuple[str, bool]:
    """Return why a session could not be opened, and whether the peer refused us as who we are."""
    match error:
        case TimeoutError():
            return f"not open within {connect_timeout:g} s (lcm.connect_timeout)", False
        case InvalidStatus():
            status = error.response.status_code
            return f"it answered HTTP {status}", status in _REFUSED
        case ssl.SSLCertVerificationError():
            return f"its certificate does not verify: {error.verify_message}", True
        case ConnectionClosed():
            return f"it closed during the greeting ({_how_it_closed(error)})", False
        case OSError():
            return error.strerror or str(error) or type(error).__name__, False
    return f"{type(error).__name__}: {error}", False


def _how_it_closed(gone: ConnectionClosed) -> str:
    if gone.rcvd is not None:
        return f"closed by LCM with code {gone.rcvd.code}"
    if gone.sent is not None:
        return f"closed by us with code {gone.sent.code}"
    return "connection lost"


def _loss(gone: ConnectionClosed) -> JobError:
    match gone.__cause__:
        case PayloadTooBig():
            return ReplyTooLarge("LCM's reply is larger than lcm.max_reply")
        case TooManyFragments():
            return MalformedReply("LCM's reply comes in too many fragments")
    return ConnectionLost(f"the session closed in mid-exchange: {_how_it_closed(gone)}")
