"""A websocket connection that hands on messages where they arrive, and ends itself where its peer is up to no good.

The library's own `recv` costs a queue, a future and a task's turn for each message. It serves while a connection is
opened, for the greeting; then a session adopts the socket, and each message is a call, made in the order in which
frames came: pongs, messages and the end.

The library answers each ping at once, and buffers the pongs for a peer that does not read them without limit. It waits
for the whole body of an HTTP answer before it tells the status, and a body may never end. A frame has two bytes at
least, so that 100,000 can come in one piece, and the loop gets no turn before all are handled: whatever a peer sends
unasked is counted frame by frame, and once a connection is given up nothing more of it is looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, TooManyFragments
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.protocol import Event, State

from worker.common.callbacks import ignore
from worker.lcm.flood import FLOOD_SECONDS, MOST_FRAGMENTS, MOST_UNSENT, MOST_UNSOLICITED, FloodCounter
from worker.lcm.frames import PING, PONG, TEXT, Frames, masked
from worker.lcm.http_answer import LONGEST_HEAD, Answer, read_answer

_PING_SIZE = 8  # bytes; four are the library's own pings
_KEY = 4
_HEAD_ENDS = b"\r\n\r\n"
_UNASKED = ("pings", "pongs", "messages")


class Socket(ClientConnection):
    """A client's connection.

    `fault` tells why it ended itself over what its peer sent, "" where it did not; `lost` what of the network ended
    it, such as the alert by which a server refuses a client's certificate once TLS 1.3 is open.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fault = ""
        self.lost: Exception | None = None
        self.is_open = False
        self._unasked = {what: FloodCounter() for what in _UNASKED}
        self._fragmented = FloodCounter(MOST_FRAGMENTS)
        self._head = b""
        self._frames = Frames(self._take_plain, self._pass_on, self.protocol.max_message_size)
        self._adopted = False
        self._on_message: Callable[[bytes], object] = ignore
        self._on_closed: Callable[[ConnectionClosed], object] = ignore
        self._fragments: list[bytes] = []
        self._fence = b""
        self._begun_early = False
        self._unsent = False
        self._cut: asyncio.TimerHandle | None = None

    @property
    def answer(self) -> Answer | None:
        """The HTTP answer by which the peer refused a websocket, as far as it has come."""
        return read_answer(self._head)

    def adopt(
        self, on_message: Callable[[bytes], object], on_closed: Callable[[ConnectionClosed], object]
    ) -> None:
        """Hand on each whole message, and in the end, once, how the connection closed; `recv` is of no use then.

        What came before, and was not received, is handed on before this returns.
        """
        self._on_message, self._on_closed = on_message, on_closed
        self._adopted = True
        unread = self.recv_messages.frames.queue
        while unread:
            self._take(unread.popleft())
        if self.connection_lost_waiter.done():
            on_closed(self.close_exc)
        else:
            self.recv_messages.maybe_resume()
            self._hang_up_if_over()

    def ask(self, request: bytes, *, fenced: bool) -> None:
        """Send a request, and in the same write, with `fenced`, a ping ahead of it.

        Nothing is sent on a connection that is closing: its end is told as ever, and nothing before it is an answer.
        """
        if self.protocol.state is not State.OPEN:
            self._unsent = True
            return
        self._fragmented.restart()
        self._begun_early = bool(self._fragments)
        drawn = os.urandom(2 * _KEY + _PING_SIZE)
        frames = masked(TEXT, request, drawn[:_KEY])
        if fenced:
            self._fence = drawn[2 * _KEY :]
            self.pending_pings[self._fence] = (self.loop.create_future(), self.loop.time())
            frames = masked(PING, self._fence, drawn[_KEY : 2 * _KEY]) + frames
        try:
            self.transport.write(frames)
        except (OSError, RuntimeError) as error:
            self.set_connection_exc(error)
            self.transport.abort()

    def abort(self) -> None:
        """End the connection at once, without a word to the peer, and hear nothing more of it."""
        self._frames.drop()
        self.transport.abort()

    @property
    def is_closing(self) -> bool:
        """Whether one side has begun to close it."""
        return self.protocol.state is not State.OPEN

    @property
    def behind_fence(self) -> bool:
        """Whether the peer may not have read the last request yet, by the ping ahead of it.

        Nor had it as it began a message in fragments that came ahead of the request or of the pong.

        A peer may leave out a pong where it answers a later ping, such as a keepalive's: the library takes a pong to
        acknowledge all pings before its own.
        """
        return self._unsent or self._begun_early or self._fence in self.pending_pings

    def data_received(self, data: bytes) -> None:
        """Handle incoming data, unless the answers to it pile up."""
        if self._adopted or self.protocol.state is not State.CONNECTING:
            self._frames.feed(data)
        else:
            self._open(data)
        if self.transport.get_write_buffer_size() > MOST_UNSENT:
            self._end(f"does not read: over {MOST_UNSENT} bytes wait for it")
        if self.close_deadline is not None:
            self._limit_closing()

    def eof_received(self) -> None:
        """Handle the end of what is received."""
        self._frames.end()
        super().eof_received()

    def process_event(self, event: Event) -> None:
        """Handle one frame, unless there are too many like it."""
        if isinstance(event, Frame) and self._is_one_too_many(event):
            return
        if self._adopted and isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self._take(event)
        else:
            super().process_event(event)

    def _is_one_too_many(self, frame: Frame) -> bool:
        if frame.opcode in DATA_OPCODES and not frame.fin:
            if self._fragmented.exceeded(self.loop.time()):
                self._fail(CloseCode.MESSAGE_TOO_BIG, TooManyFragments(MOST_FRAGMENTS))
                return True
            return False
        unasked = self._what_nobody_asked_for(frame)
        if unasked and self._unasked[unasked].exceeded(self.loop.time()):
            self._end(f"sent more than {MOST_UNSOLICITED} {unasked} in {FLOOD_SECONDS:g} s")
            return True
        return False

    def _what_nobody_asked_for(self, frame: Frame) -> str:
        match frame.opcode:
            case Opcode.PING:
                return "pings"
            case Opcode.PONG if bytes(frame.data) not in self.pending_pings:
                return "pongs"
            case Opcode.TEXT | Opcode.BINARY | Opcode.CONT if not self._adopted or self.is_closing:
                return "messages"  # those of a session it counts itself, since it knows what it asked for
        return ""

    @property
    def heard(self) -> bytes:
        """What the peer has said before a websocket was open."""
        return self._head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the network's connection is open, with its TLS."""
        self.is_open = True
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the end, after all that came before."""
        self.lost = exc
        super().connection_lost(exc)
        if self._cut is not None:
            self._cut.cancel()
        if self._adopted:
            self._on_closed(self.close_exc)
            self._on_message = self._on_closed = ignore
        self._frames.drop()

    def _open(self, data: bytes) -> None:
        """Handle the answer to the handshake, behind which frames may come at once."""
        before = len(self._head)
        self._head = (self._head + data)[:LONGEST_HEAD]
        end = self._head.find(_HEAD_ENDS) + len(_HEAD_ENDS)
        is_whole = end >= len(_HEAD_ENDS)
        behind = end - before if is_whole and end > before else len(data)
        super().data_received(data[:behind])
        if is_whole and self.answer is not None:
            self.transport.abort()
        self._frames.feed(data[behind:])

    def _pass_on(self, data: bytes) -> None:
        super().data_received(data)
        # From here on the library throws away what comes.
        if self.protocol.parser_exc is not None or self.protocol.close_rcvd is not None:
            self._frames.drop()
            self._hang_up_if_over()

    def _hang_up_if_over(self) -> None:
        """End at once where the peer has said goodbye, or what can't be read: it may be long before it hangs up.

        Our answer is sent by now. Where we have said goodbye first, hanging up is the peer's, which counts us until it
        has.
        """
        over = self.protocol.parser_exc is not None or self.protocol.close_rcvd_then_sent
        if self._adopted and over:
            self.transport.abort()

    def _take_plain(self, first: int, payload: bytes) -> bool:
        if not self._adopted or self._fragments or self.protocol.state is not State.OPEN:
            return False
        if first != PONG:
            self._on_message(payload)
            return True
        # Where it answers other pings, too, or none, the library knows.
        if payload != self._fence or self.pending_pings.keys() != {payload}:
            return False
        self.pending_pings.clear()
        return True

    def _take(self, frame: Frame) -> None:
        if frame.fin and not self._fragments:
            self._on_message(bytes(frame.data))
        elif len(self._fragments) >= MOST_FRAGMENTS:
            self._fail(CloseCode.MESSAGE_TOO_BIG, TooManyFragments(MOST_FRAGMENTS))
        else:
            if not self._fragments:
                self._begun_early = self.behind_fence
            # The library has counted their bytes.
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                message = b"".join(self._fragments)
                self._fragments.clear()
                self._on_message(message)
                self._begun_early = False

    def _fail(self, code: CloseCode, error: TooManyFragments) -> None:
        self._frames.drop()
        self._fragments.clear()
        self._on_message = ignore
        self.set_connection_exc(error)
        self.protocol.fail(code, "too many fragments")
        self.send_data()
        self.transport.abort()

    def _limit_closing(self) -> None:
        """Wait no longer than `close_timeout` for the peer to end a connection that is closing."""
        if self._cut is None:
            self._cut = self.loop.call_later(self.close_timeout or 0.0, self.transport.abort)

    def _end(self, fault: str) -> None:
        self.fault = self.fault or fault
        self.abort()
