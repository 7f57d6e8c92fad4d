"""One websocket to LCM, on which one exchange at a time takes place.

LCM's reply names neither the account nor the request. So after a reply was given up the websocket can never be used
again: the reply may still come, and would be taken for that of the next request. Whatever leaves a session in doubt
(a timeout, a cancellation, a message out of turn) ends it at once by aborting the transport; a closing handshake
would wait for the very peer that is in doubt.

A reply that came twice may still be unread in the socket when the next request goes out, and a peer that knows
sessions by name may send on a new one what it owed the one before. So every request goes out behind a ping, the fence:
a peer answers a ping when it reads it, so what comes before the pong was sent before the request was read, and is no
answer to it. That costs no round trip, and no write of its own.

LCM may accept a websocket and say only then, by closing it, that it does not want us. So opening a session has
succeeded once the session has lasted a moment, or LCM has answered on it. It can be used before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.exceptions import ConnectionClosed

from worker.contract.errors import (
    ConnectionLost,
    JobError,
    LcmError,
    LcmRejected,
    MalformedReply,
    ReplyTimeout,
    SessionNotOpened,
)
from worker.contract.outcomes import OutcomeList
from worker.lcm import envelope, outcome_list
from worker.lcm.closing import how_it_closed, is_full, is_refusal, loss_of, said_of
from worker.lcm.deadline import Deadline
from worker.lcm.envelope import ErrorReply, Malformed, Unparseable, Unsolicited
from worker.lcm.flood import FLOOD_SECONDS, MOST_UNSOLICITED, FloodCounter
from worker.lcm.outcome_list import Frame, Reply, ReplyMemory
from worker.lcm.socket import Socket
from worker.lcm.told import NO_SECRETS, Secrets, told

_CANCELLED = "cancelled in mid-exchange"
_CLOSED_BY_US = "closed by us"
_LATE_PONGS = (
    " (by its pong; where it always answers pings late, set lcm.max_exchanges = 1 with lcm.ping_interval = 0)"
)
_NO_REPLY = "no reply in time"
_MALFORMED = "malformed reply"
LAPSED = "the share of the fleet's sessions lapsed"
_BY_US = frozenset({_CANCELLED, _CLOSED_BY_US, _NO_REPLY, _MALFORMED, LAPSED})

_LASTS_AFTER = 1.0

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
        unsolicited: how many messages LCM sent of its own accord.
        flooded: whether the session ended because LCM sent too many of them.
        said: the reason that LCM gave for closing it, "" where it gave none.
        not_opened: why opening it has not succeeded after all: LCM ended it at once, or over the first request, or
            answered that with one of `full_errors`.
    """

    def __init__(
        self,
        socket: Socket,
        slot: int,
        session_errors: frozenset[str],
        on_ended: Ended,
        *,
        full_errors: frozenset[str] = frozenset(),
        fenced: bool = True,
        memory: ReplyMemory | None = None,
        secrets: Secrets = NO_SECRETS,
    ) -> None:
        self.slot = slot
        self.exchanges = 0
        self.answered = 0
        self.unsolicited = 0
        self.flooded = False
        self.said = ""
        self.not_opened: SessionNotOpened | None = None
        self._flood = FloodCounter()
        self._socket = socket
        self._session_errors = session_errors
        self._full_errors = full_errors
        self._memory = memory
        self._secrets = secrets
        self._on_ended = on_ended
        self._fenced = fenced
        self._ended: str | None = None
        self._pending: asyncio.Future[OutcomeList] | None = None
        self._account = ""
        self._timeout = 0.0
        self._deadline = Deadline()
        self._loop = asyncio.get_running_loop()
        self._lasted: asyncio.Future[bool] = self._loop.create_future()
        self._trial = self._loop.call_later(_LASTS_AFTER, self._settle, True)
        # Last: what came with the opening may end the session at once.
        socket.adopt(self._take, self._closed)

    @property
    def alive(self) -> bool:
        return self._ended is None

    @property
    def ended(self) -> str:
        """Why it has ended, "" while it has not."""
        return self._ended or ""

    @property
    def ended_by_us(self) -> bool:
        """Whether LCM had kept it open until we ended it, so that another can be opened without a pause.

        Silence, or a reply that can't be read, for one account says nothing about the next one, and what they say for
        many is the breaker's.
        """
        return self._ended in _BY_US

    @property
    def lapsed(self) -> bool:
        """Whether it was given up because other workers may open one in its place: nothing was wrong with it."""
        return self._ended == LAPSED

    def __repr__(self) -> str:
        state = self._ended or ("busy" if self._pending else "idle")
        return f"<Session {self.slot} {state}, {self.exchanges} exchanges>"

    async def lasts(self) -> bool:
        """Wait until it has lasted a moment or was used well; return False where LCM ended it before that."""
        return await asyncio.shield(self._lasted)

    async def exchange(self, account: str, timeout: float) -> OutcomeList:  # noqa: ASYNC109 - ends the session too
        """Ask for one account's outcomes and return them as LCM sent them.

        Raises:
            LcmRejected: LCM answered with an error about this account. The session stays good.
            LcmError, ReplyTimeout, ConnectionLost, MalformedReply, ReplyTooLarge: the session has ended.
            asyncio.CancelledError: the caller was cancelled; the session has ended.
        """
        if self._pending is not None:
            raise RuntimeError(f"{self!r} was asked for a second exchange at the same time")
        if self._ended is not None:
            raise ConnectionLost(f"the session had closed: {self._ended}")
        request = outcome_list.encode(account)
        self._account = account
        pending = self._pending = self._loop.create_future()
        self.exchanges += 1
        self._timeout = timeout
        self._deadline.set(timeout, self._expire)
        try:
            self._socket.ask(request, fenced=self._fenced)
            items: OutcomeList = await pending
        except asyncio.CancelledError:
            self._end(_CANCELLED)
            _forget(pending)
            raise
        finally:
            self._deadline.lift()
            self._pending = None
        return items

    async def close(self) -> None:
        """Say goodbye and close, for as long as that takes a willing peer; a session in mid-exchange is aborted."""
        if self._pending is not None:
            self._end("closed in mid-exchange")
        elif self._ended is None:
            self._ended = _CLOSED_BY_US
            self._deadline.stop()
            self._settle(lasted=True)
            await self._socket.close()
            self._on_ended(self, self._ended)
        await self._socket.wait_closed()

    def abort(self, reason: str) -> None:
        """End the session at once, without a word to the peer."""
        self._end(reason)

    def _expire(self) -> None:
        self._end(_NO_REPLY, ReplyTimeout(f"LCM did not reply in {self._timeout:g} s"))

    def _closed(self, gone: ConnectionClosed) -> None:
        if self._ended is None:
            self.flooded = bool(self._socket.fault)
            reason = self._socket.fault or how_it_closed(gone)
            said = told(said_of(gone), self._secrets)
            loss = loss_of(gone, said)
            self._end_by_peer(reason, said, loss, refused=is_refusal(gone), full=is_full(gone))

    def _take(self, raw: bytes) -> None:
        if self._ended is not None:
            return
        frame = outcome_list.classify(raw, self._session_errors, self._memory, self._secrets)
        if not self.answered and isinstance(frame, ErrorReply) and self._says_full(frame):
            self._turn_away(frame.remote_message)
        elif self._is_exchanging and self._names_another(frame, raw):
            self._hear(Malformed("it names another account"))  # which is none of this job's business
        else:
            self._hear(frame)

    def _names_another(self, frame: Frame, raw: bytes) -> bool:
        answers = isinstance(frame, Reply) or (isinstance(frame, ErrorReply) and not frame.about_lcm)
        return answers and envelope.names_another(raw, self._account)

    def _says_full(self, error: ErrorReply) -> bool:
        return envelope.says(error.remote_message, self._full_errors)

    def _hear(self, frame: Frame) -> None:
        exchanging = self._is_exchanging
        match frame:
            case Unsolicited():
                self._count_unsolicited()
            case _ if exchanging and self._socket.behind_fence:
                early = "said something before it had read the request"
                self._end(early, ConnectionLost(f"the session was closed, since LCM {early}{_LATE_PONGS}"))
            case Reply(items) if exchanging:
                self._answer(items)
            case ErrorReply(text, about_lcm=False) if exchanging:
                self._answer(LcmRejected("LCM rejected the account", remote_message=text))
            case ErrorReply(text) if exchanging:
                error = LcmError("LCM reported an error about itself", remote_message=text)
                self._end("LCM reported an error", error)
            case ErrorReply(text):
                self._end_by_peer("LCM reported an error", text)
            case Malformed() | Unparseable() if exchanging:
                self._end(_MALFORMED, _malformed(frame))
            case Unparseable(why):
                self._end_by_peer(f"said something that is no message: {why}")
            case Reply() | Malformed():
                self._end_by_peer("replied with no request in flight")

    @property
    def _is_exchanging(self) -> bool:
        return self._pending is not None and not self._pending.done()

    def _count_unsolicited(self) -> None:
        self.unsolicited += 1
        if self._flood.exceeded(self._loop.time()):
            self.flooded = True
            self._end(f"sent more than {MOST_UNSOLICITED} messages of its own accord in {FLOOD_SECONDS:g} s")

    def _answer(self, answer: OutcomeList | LcmRejected) -> None:
        assert self._pending is not None  # noqa: S101 - the caller has just looked
        self.answered += 1
        self._settle(lasted=True)
        if isinstance(answer, LcmRejected):
            self._pending.set_exception(answer)
        else:
            self._pending.set_result(answer)

    def _turn_away(self, said: str) -> None:
        # It may have lasted, since nothing was said on it.
        reason = "LCM reported that it is full"
        self.not_opened = SessionNotOpened(reason, said=said, full=True)
        self._end(reason, LcmError(reason, remote_message=said), said=said)

    def _end_by_peer(
        self,
        reason: str,
        said: str = "",
        error: JobError | None = None,
        *,
        refused: bool = False,
        full: bool = False,
    ) -> None:
        if not (self._lasted.done() or self.flooded):
            why = f"LCM ended the session as soon as it was open: {reason}"
            self.not_opened = SessionNotOpened(why, said=said, refused=refused, full=full)
        self._end(reason, error, said=said)

    def _end(self, reason: str, error: JobError | None = None, *, said: str = "") -> None:
        if self._ended is not None:
            return
        self._ended, self.said = reason, said
        self._deadline.stop()
        self._settle(lasted=self.ended_by_us)
        self._socket.abort()
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(error or ConnectionLost(f"the session ended: {reason}"))
        self._on_ended(self, reason)

    def _settle(self, lasted: bool) -> None:
        if not self._lasted.done():
            self._trial.cancel()
            self._lasted.set_result(lasted)


def _malformed(frame: Malformed | Unparseable) -> MalformedReply:
    said = frame.said if isinstance(frame, Malformed) else ""
    return MalformedReply(f"LCM's reply can't be read: {frame.why}", remote_message=said)


def _forget(pending: asyncio.Future[OutcomeList]) -> None:
    """Drop a reply that nobody awaits, so that asyncio does not warn that it was never retrieved."""
    if not pending.cancelled():
        pending.exception()
