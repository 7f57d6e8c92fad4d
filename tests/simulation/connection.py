"""What stands where a session's Socket does: the same promises, no bytes, and virtual time.

Both directions keep their order. What is due in the other direction at the same moment comes as one segment, as
when a kernel hands over several frames at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum

from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, PayloadTooBig
from websockets.frames import Close

from tests.simulation.loop import VirtualLoop
from worker.common.callbacks import ignore

_CLOSE_TIMEOUT = 2.0
_GOING_AWAY, _TRY_AGAIN_LATER = 1001, 1013


class Sign(Enum):
    """What a peer may send that is no message."""

    PONG = "pong"
    CLOSE = "close"
    FULL = "close for want of room"
    RESET = "reset"
    TOO_LARGE = "a message larger than allowed"


class Connection:
    """One connection, the client's side of it.

    `reads` is called with what comes in at the peer, of which None is a ping. `on_end` is called once, when the
    client's socket is gone. `unanswered` while a request has had no answer, as far as the client can know;
    `spoke_early` where anything came before the pong of a ping that went out ahead of a request. (Messages that
    come unasked excuse the client as well.)
    """

    def __init__(
        self,
        loop: VirtualLoop,
        number: int,
        reads: Callable[[Connection, bytes | None], None],
        asks: Callable[[Connection, bytes], None],
        on_end: Callable[[Connection], None],
    ) -> None:
        self.fault = ""
        self.number = number
        self.transport = self
        self.open = True
        self.unanswered = False
        self.spoke_early = False
        self._loop = loop
        self._reads = reads
        self._asks = asks
        self._on_end = on_end
        self._inbox: deque[bytes] = deque()
        self._getter: asyncio.Future[None] | None = None
        self._adopted = False
        self._on_message: Callable[[bytes], object] = ignore
        self._on_closed: Callable[[ConnectionClosed], object] = ignore
        self._pings = 0
        self._unsent = False
        self._lost: asyncio.Future[None] = loop.create_future()
        self._gone: ConnectionClosed | None = None
        self._goodbye: int | None = None
        self._to_client: deque[tuple[float, bytes | Sign, bool]] = deque()
        self._to_peer: deque[tuple[float, bytes | None]] = deque()
        self._last_to_client = self._last_to_peer = 0.0
        self.latency = 0.0
        self.goodbye_takes = 0.0
        self.drain_takes = 0.0

    # What the opener and the session call.

    async def recv(self, decode: bool | None = None) -> bytes:
        assert decode is False
        if not self._inbox:
            if not self._lost.done():
                self._getter = self._loop.create_future()
                try:
                    await self._getter
                finally:
                    self._getter = None
            if not self._inbox:
                raise self._closed()
        return self._inbox.popleft()

    async def send(self, message: bytes | str, *, text: bool | None = None) -> None:
        raw = message.encode() if isinstance(message, str) else message
        assert text or isinstance(message, str)
        if not self.open:
            await self.wait_closed()
            raise self._closed()
        self._asks(self, raw)
        self._write(raw)
        if self.drain_takes:
            await asyncio.sleep(self.drain_takes)

    def adopt(
        self, on_message: Callable[[bytes], object], on_closed: Callable[[ConnectionClosed], object]
    ) -> None:
        self._on_message, self._on_closed = on_message, on_closed
        self._adopted = True
        while self._inbox:
            on_message(self._inbox.popleft())
        if self._lost.done():
            on_closed(self._closed())
        elif self._goodbye is not None:
            self._loop.call_soon(self._lose, self._goodbye)

    def ask(self, request: bytes, *, fenced: bool) -> None:
        if not self.open:
            self._unsent = True
            return
        self._asks(self, request)
        if fenced:
            self._pings += 1
            self._write(None)
        self._write(request)

    @property
    def behind_fence(self) -> bool:
        return self._unsent or self._pings > 0

    async def close(self) -> None:
        if self.open:
            self.open = False
            self._loop.call_later(min(self.goodbye_takes, _CLOSE_TIMEOUT), self._lose, _GOING_AWAY)
        await self.wait_closed()

    async def wait_closed(self) -> None:
        await asyncio.shield(self._lost)

    def abort(self) -> None:
        self.open = False
        self._to_client.clear()
        self._to_peer.clear()
        self._loop.call_soon(self._lose)
        self._end()

    # What the peer calls.

    def say(self, what: bytes | Sign, after: float = 0.0, *, answers: bool = False) -> None:
        """Send something that arrives after so many seconds, and not before what was sent earlier.

        `answers`: it is what the open request waits for.
        """
        if self._lost.done():
            return
        due = self._last_to_client = max(self._loop.time() + after, self._last_to_client)
        self._to_client.append((due, what, answers))
        self._loop.call_at(due, self._arrive)

    def _arrive(self) -> None:
        now, frames = self._loop.time(), self._to_client
        while frames and frames[0][0] <= now and not self._lost.done():
            self._take(*frames.popleft()[1:])

    def _take(self, what: bytes | Sign, answers: bool) -> None:
        match what:
            case bytes():
                self.unanswered = self.unanswered and not answers
                self.spoke_early = self.spoke_early or self.behind_fence
                if self._adopted:
                    self._on_message(what)
                else:
                    self._inbox.append(what)
                    self._wake()
            case Sign.PONG:
                self._pings = max(0, self._pings - 1)
            case Sign.CLOSE:
                self._hear_goodbye(_GOING_AWAY)
            case Sign.FULL:
                self._hear_goodbye(_TRY_AGAIN_LATER)
            case Sign.RESET:
                self._lose()
            case Sign.TOO_LARGE:
                self._lose(cause=PayloadTooBig(2**20 + 1, 2**20))

    def _hear_goodbye(self, code: int) -> None:
        if self._adopted and self.open:
            self._loop.call_soon(self._lose, code)
        else:
            # The peer closes the socket once it has our answer.
            self._goodbye = code if self.open else None
            self._loop.call_later(self.latency, self._lose, code)
        self.open = False

    def _write(self, what: bytes | None) -> None:
        due = self._last_to_peer = max(self._loop.time() + self.latency, self._last_to_peer)
        self._to_peer.append((due, what))
        self._loop.call_at(due, self._be_read)

    def _be_read(self) -> None:
        now, frames = self._loop.time(), self._to_peer
        while frames and frames[0][0] <= now and not self._lost.done():
            self._reads(self, frames.popleft()[1])

    def _lose(self, code: int | None = None, cause: Exception | None = None) -> None:
        if self._lost.done():
            return
        self.open = False
        kind = ConnectionClosedOK if code == _GOING_AWAY else ConnectionClosedError
        close = None if code is None else Close(code, "")
        self._gone = kind(close, close, None if close is None else True)
        self._gone.__cause__ = cause
        self._lost.set_result(None)
        self._wake()
        self._pings = 0
        self._end()
        if self._adopted:
            self._on_closed(self._closed())

    def _closed(self) -> ConnectionClosed:
        assert self._gone is not None
        return self._gone.with_traceback(None)

    def _wake(self) -> None:
        if self._getter is not None and not self._getter.done():
            self._getter.set_result(None)

    def _end(self) -> None:
        self._on_end(self)
