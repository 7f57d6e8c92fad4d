"""The scripted LCM behind the connections: it behaves as the plan's ills ask, and sees what is done to it.

One thing it never does: reply on a connection before it has read the first request there. A client can't tell
such a reply from an answer, since the protocol has nothing to tell them apart by.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from tests.simulation.connection import Connection, Sign
from tests.simulation.loop import VirtualLoop
from tests.simulation.plan import STEP, Plan, draw_moment
from tests.simulation.words import AHEAD, BAD, IN_PLACE, UNASKED, bad_reply, good_reply
from tests.support.lcm import reply

_LATER = (0.0, 0.0, STEP, 4 * STEP)
# What is said of its own accord after a reply; None is the reply once more.
_OWING: dict[str | None, Sign | None] = {
    "twice": None,
    "closed while idle": Sign.CLOSE,
    "cut while idle": Sign.RESET,
}
# What follows where it has accepted a connection.
_ENDS: dict[str | None, Sign] = {
    "accepts and closes": Sign.CLOSE,
    "accepts and resets": Sign.RESET,
    "accepts, being full": Sign.FULL,
}


@dataclass(slots=True)
class _Line:
    """What LCM knows of one connection: requests so far, the one that is open, and what it still means to say."""

    requests: int = 0
    account: str = ""
    ill: str | None = None
    fenced: bool = False
    owed: dict[int, tuple[asyncio.TimerHandle, bytes | Sign]] = field(default_factory=dict)


class Lcm:
    """Counts what is open, hears what is asked, and says what the ills ask.

    `on_connect` is called as a connection is asked for. `on_request` is told, in the task that asks, how many
    requests the connection has had, and for which account. `violated` is told in words what must never happen.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        plan: Plan,
        draw: random.Random,
        *,
        note: Callable[..., None],
        violated: Callable[[str], None],
        on_connect: Callable[[], None],
    ) -> None:
        self.open = 0
        self.well = False
        self.on_request: Callable[[int, str], None]
        self._loop = loop
        self._plan = plan
        self._draw = draw
        self._note = note
        self._violated = violated
        self._on_connect = on_connect
        self._lines: dict[Connection, _Line] = {}
        self._numbers = 0

    async def connect(self, slot: int) -> Connection:
        """Do what `SessionOpener._connect` does, as far as anybody can see."""
        self._numbers += 1
        number = self._numbers
        self._count_one()
        self._on_connect()
        ill = self._ill(self._plan.connect_ills)
        self._note("connection", number, "for session", slot, ill or "")
        try:
            if takes := draw_moment(self._draw):
                await asyncio.sleep(takes)
            await self._refuse(ill)
        except BaseException:
            self.open -= 1
            raise
        return self._accept(number, ill)

    async def _refuse(self, ill: str | None) -> None:
        match ill:
            case "refused":
                raise ConnectionRefusedError(111, "Connection refused")
            case "401" | "503":
                raise InvalidStatus(Response(int(ill), "", Headers()))
            case "too slow":
                await asyncio.sleep(self._plan.lcm.connect_timeout + STEP * self._draw.randrange(-1, 2))

    def _accept(self, number: int, ill: str | None) -> Connection:
        connection = Connection(self._loop, number, self._read, self._asked, self._ended)
        connection.latency = draw_moment(self._draw)
        connection.goodbye_takes = self._draw.choice((0.0, 0.0, STEP, 100.0))
        connection.drain_takes = draw_moment(self._draw) if self._draw.random() < 0.1 else 0.0
        self._lines[connection] = _Line()
        if ill in _ENDS:
            connection.say(_ENDS[ill], draw_moment(self._draw))
        return connection

    def _count_one(self) -> None:
        self.open += 1
        if self.open > self._plan.lcm.sessions:
            self._violated(f"{self.open} connections are open, of {self._plan.lcm.sessions} allowed")

    def _ended(self, connection: Connection) -> None:
        line = self._lines.pop(connection, None)
        if line is None:
            return
        self.open -= 1
        self._note("connection", connection.number, "is gone")
        for timer, _ in line.owed.values():
            timer.cancel()

    def _asked(self, connection: Connection, raw: bytes) -> None:
        """Look at a request as it leaves the client, in the task that asks."""
        if raw == b"Login":
            return
        account: str = msgspec.json.decode(raw)["data"]["AccountNumber"]
        line = self._lines[connection]
        line.requests += 1
        self._note("connection", connection.number, "request", line.requests, "for", account)
        if connection.unanswered:
            self._violated(
                f"a second request on connection {connection.number}, while the first has no answer"
            )
        if line.requests > (self._plan.lcm.max_exchanges or line.requests):
            self._violated(
                f"request {line.requests} on connection {connection.number}, past lcm.max_exchanges"
            )
        connection.unanswered = True
        self.on_request(line.requests, account)

    def _read(self, connection: Connection, raw: bytes | None) -> None:
        line = self._lines.get(connection)
        if line is None:
            return
        if raw == b"Login":
            self._greet(connection)
            return
        self._settle_owed(connection, line)
        if raw is None:
            line.fenced, line.ill = True, self._ill(self._plan.reply_ills)
            if line.ill == "message before the pong":
                connection.say(UNASKED)
            if line.ill not in {"pong last", "no pong"}:
                connection.say(Sign.PONG, 4 * STEP if line.ill == "slow pong" else 0.0)
            return
        if not line.fenced:
            line.ill = self._ill(self._plan.reply_ills)
        line.fenced = False
        line.account = msgspec.json.decode(raw)["data"]["AccountNumber"]
        self._note("connection", connection.number, "reads it", line.ill or "")
        self._answer(connection, line)

    def _greet(self, connection: Connection) -> None:
        ill = self._ill(("refuses", "is silent", "closes")) if self._draw.random() < 0.3 else None
        self._note("connection", connection.number, "greeting", ill or "")
        if ill == "refuses":
            connection.say(reply({}, subtopic="LoginResponse", message={"success": False, "msg": "no"}))
        elif ill == "closes":
            connection.say(Sign.CLOSE)
        elif ill is None:
            connection.say(
                reply({}, subtopic="LoginResponse", message={"success": True}), draw_moment(self._draw)
            )

    def _answer(self, connection: Connection, line: _Line) -> None:
        said = self._words(connection, line)
        answers = {good_reply(line.account), bad_reply("rejection", line.account)}
        if line.ill in _OWING:
            self._owe(connection, line, _OWING[line.ill] or good_reply(line.account))
        if line.ill == "another's reply later":
            self._owe(connection, line, good_reply("of nobody"))
        for what, after in said:
            connection.say(what, after, answers=what in answers)

    def _words(self, connection: Connection, line: _Line) -> list[tuple[bytes | Sign, float]]:
        """Return what is said in answer to a request, each with the time it takes."""
        ill = line.ill
        words: list[tuple[bytes | Sign, float]] = [
            (said, draw_moment(self._draw)) for said in AHEAD.get(ill, ())
        ]
        if ill in IN_PLACE:
            words += [(said, draw_moment(self._draw)) for said in IN_PLACE[ill]]
        elif ill in BAD:
            words.append((bad_reply(ill, line.account), draw_moment(self._draw)))
        else:
            words.append((good_reply(line.account), self._takes(connection, ill)))
        if ill == "pong last":
            words.append((Sign.PONG, draw_moment(self._draw)))
        return words

    def _takes(self, connection: Connection, ill: str | None) -> float:
        timeout, draw = self._plan.lcm.reply_timeout, self._draw
        if ill == "at the timeout":
            # Together with the ways of the request and of the reply.
            return max(0.0, timeout - connection.latency + STEP * draw.randrange(-1, 2))
        return timeout + STEP * draw.randrange(1, 12) if ill == "late" else draw_moment(self._draw)

    def _owe(self, connection: Connection, line: _Line, what: bytes | Sign) -> None:
        """Say something more after the reply, but before the next request is read."""
        key = len(line.owed)

        def say() -> None:
            line.owed.pop(key)
            connection.say(what)

        timer = self._loop.call_later(draw_moment(self._draw) + self._draw.choice(_LATER), say)
        line.owed[key] = (timer, what)

    def _settle_owed(self, connection: Connection, line: _Line) -> None:
        """The next request is being read: what was owed comes right before it, or never."""
        for timer, what in line.owed.values():
            timer.cancel()
            if self._draw.random() < 0.7:
                connection.say(what)
        line.owed.clear()

    def _ill(self, ills: Sequence[str]) -> str | None:
        draw = self._draw
        if self.well or not ills or draw.random() >= self._plan.severity:
            return None
        return draw.choice(ills)
