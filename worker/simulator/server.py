"""The simulated LCM: a websocket server with a scripted behaviour and a record of handshakes and exchanges."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from weakref import WeakKeyDictionary, WeakSet

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as listen
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from worker.simulator import documents
from worker.simulator.behaviour import Behaviour, Chooser
from worker.simulator.faults import Session, Turn
from worker.simulator.listening import accept_no_more
from worker.simulator.record import Attempt, Exchange, json_lines, note
from worker.simulator.requests import account_of, is_authorized, is_login, name_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from ssl import SSLContext

    from websockets.http11 import Request, Response

__all__ = ["Attempt", "Behaviour", "Exchange", "Simulator", "serve"]

# Seconds. A peer that does not take part in a handshake is dropped then.
_CLOSE_TIMEOUT = 1.0
_OPEN_TIMEOUT = 5.0

_HOLDS_A_PLACE = frozenset({State.CONNECTING, State.OPEN})
_NO_ROOM = 4429

# What a simulator that runs for days remembers.
_KEEP_WHILE_SERVING = 1000


class Simulator:
    """A scriptable LCM on a real socket; an asynchronous context manager.

    `port` 0 takes a free one and keeps it: started again, the simulator listens where it did before.
    `behaviour` may be replaced at any time: what is drawn, and the tallies of rules, start anew.

    What it saw, for tests to count by: `record` and `connections` (at least the newest `keep` of each; all
    where `keep` is None), `violations` (messages that are not the documented request; `last_violation` says
    what was wrong), `max_in_flight` (the most requests that were ever unanswered on one connection at one
    time: a client that keeps to one stays at 1), `sessions` (those of now, without the ones for which there is no
    room) and `peak_sessions` (the most that there ever were at one time). `on_exchange` is called once for every
    exchange, as soon as nothing more will come of it. With `ping_interval` a session ends whose client does not answer
    a ping for as long.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl_context: SSLContext | None = None,
        on_exchange: Callable[[Exchange], None] | None = None,
        keep: int | None = None,
        ping_interval: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.host = host
        self.port = port
        self.behaviour = behaviour or Behaviour()
        self.on_exchange = on_exchange
        self.record: list[Exchange] = []
        self.connections: list[Attempt] = []
        self.violations = 0
        self.last_violation = ""
        self.max_in_flight = 0
        self.peak_sessions = 0
        self._ssl_context = ssl_context
        self._keep = keep
        self._ping_interval = ping_interval
        self._clock = clock
        self._attempts = 0
        # From the handshake to the handler, which a connection that was refused or lost never reaches.
        self._admitted: WeakKeyDictionary[ServerConnection, tuple[Attempt, str | None]] = WeakKeyDictionary()
        # From the handshake to the first word of a goodbye.
        self._places: WeakSet[ServerConnection] = WeakSet()
        self._live: set[Session] = set()
        self._server: Server | None = None

    def __repr__(self) -> str:
        return f"<Simulator {self.live} live, {len(self.record)} exchanges, {self.violations} violations>"

    @property
    def behaviour(self) -> Behaviour:
        """The switches in force."""
        return self._chooser.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._chooser = Chooser(behaviour)

    @property
    def live(self) -> int:
        """The number of connections that are open."""
        return len(self._live)

    @property
    def sessions(self) -> int:
        """The number of sessions that hold one of `max_sessions` places."""
        return sum(websocket.state in _HOLDS_A_PLACE for websocket in self._places)

    @property
    def url(self) -> str:
        """Where to connect to, once started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self._ssl_context else 'ws'}://{host}:{self.port}/"

    async def start(self) -> None:
        """Listen. Raises OSError where the address can't be had."""
        self._server = await listen(
            self._attend,
            self.host,
            self.port,
            process_response=self._admit,
            compression=None,
            open_timeout=_OPEN_TIMEOUT,
            close_timeout=_CLOSE_TIMEOUT,
            ping_interval=self._ping_interval,
            ping_timeout=self._ping_interval,
            ssl=self._ssl_context,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection without a closing handshake; idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        await accept_no_more(server.sockets)
        server.close(close_connections=False)
        for session in self._live:
            session.websocket.transport.abort()
        await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def close_sessions(self, *, reset: bool = False, idle_only: bool = False) -> None:
        """Cut all live connections, or those without a request in flight: cleanly, or by a TCP reset."""
        doomed = {session for session in self._live if not (idle_only and session.in_flight)}
        self._live -= doomed
        code = self.behaviour.close_code
        await asyncio.gather(*(session.reset() if reset else session.close(code) for session in doomed))

    def _admit(self, websocket: ServerConnection, request: Request, response: Response) -> Response | None:
        """Record a handshake, and refuse it where the behaviour says so."""
        name, fault = name_in(request.path), self._chooser.fault_of_connection()
        status, refusal = HTTPStatus(response.status_code), None
        if status is HTTPStatus.SWITCHING_PROTOCOLS:
            status = self._verdict(fault, name, request.headers.get("Authorization", ""))
            if status is not HTTPStatus.SWITCHING_PROTOCOLS:
                refusal = websocket.respond(status, f"{status.phrase}\n")
        if status is HTTPStatus.SWITCHING_PROTOCOLS and not self._is_full:
            self._places.add(websocket)
            self.peak_sessions = max(self.peak_sessions, self.sessions)
        if refusal and status is HTTPStatus.UNAUTHORIZED:
            refusal.headers["WWW-Authenticate"] = 'Basic realm="LCM", charset="UTF-8"'
        attempt = Attempt(self._attempts, self._clock(), name, status.value)
        self._attempts += 1
        self._admitted[websocket] = attempt, fault
        note(self.connections, attempt, self._keep)
        return refusal

    def _verdict(self, fault: str | None, name: str | None, authorization: str) -> HTTPStatus:
        if fault == "unavailable":
            return HTTPStatus.SERVICE_UNAVAILABLE
        if fault == "unauthorized" or not is_authorized(self.behaviour.credentials, authorization):
            return HTTPStatus.UNAUTHORIZED
        taken = name is not None and any(session.name == name for session in self._live)
        if self.behaviour.unique_names and taken:
            return HTTPStatus.CONFLICT
        if self._is_full and self.behaviour.when_full == "http":
            return HTTPStatus.SERVICE_UNAVAILABLE
        return HTTPStatus.SWITCHING_PROTOCOLS

    @property
    def _is_full(self) -> bool:
        return 0 < self.behaviour.max_sessions <= self.sessions

    async def _attend(self, websocket: ServerConnection) -> None:
        """Serve one connection until it ends."""
        attempt, fault = self._admitted.pop(websocket)
        if self._server is None:
            # Stopped since the handshake, before this connection was among the live ones, which were dropped.
            websocket.transport.abort()
            return
        session = Session(websocket, attempt.number, attempt.name)
        self._live.add(session)
        try:
            await self._converse(session, fault)
        except ConnectionClosed:
            pass
        finally:
            self._live.discard(session)
            await session.cancel_tasks()

    async def _converse(self, session: Session, fault: str | None) -> None:
        if fault == "accept-and-close":
            await session.close(self.behaviour.close_code)
        has_place = session.websocket in self._places
        if not has_place and self.behaviour.when_full == "close":
            await session.close(_NO_ROOM)
        if self.behaviour.open_id:
            await session.say(documents.open_id(session.name or ""))
        if self.behaviour.heartbeat:
            session.spawn(session.beat(self.behaviour.heartbeat))
        # Each request is a task of its own, and so starts only once everything that has arrived is counted.
        async for message in session.websocket:
            session.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, session.in_flight)
            session.spawn(self._respond(session, message) if has_place else self._turn_away(session))

    async def _turn_away(self, session: Session) -> None:
        with suppress(ConnectionClosed):
            await session.say(documents.full())
            session.in_flight -= 1

    async def _respond(self, session: Session, message: str | bytes) -> None:
        with suppress(ConnectionClosed):
            try:
                account = account_of(message)
            except ValueError as exc:
                await session.say(self._other_than_request(session, message, str(exc)))
                session.in_flight -= 1
            else:
                await self._exchange(session, account)

    def _other_than_request(self, session: Session, message: str | bytes, reason: str) -> bytes:
        login = self.behaviour.login
        if is_login(message, login):
            session.logged_in = True
            return documents.greeted(login, self._chooser.variants())
        self.violations += 1
        self.last_violation = reason
        return documents.error("INVALID_REQUEST", reason)

    async def _exchange(self, session: Session, account: str) -> None:
        chooser = self._chooser
        logged_in = session.logged_in or not chooser.behaviour.login
        fault = chooser.fault_of_exchange(account) if logged_in else "not-logged-in"
        exchange = Exchange(session.number, account, fault, self._clock())
        note(self.record, exchange, self._keep)

        def answered() -> None:
            exchange.replied = self._clock()
            session.in_flight -= 1

        try:
            for kind in chooser.unasked:
                await session.say(documents.UNASKED[kind])
            if delay := chooser.delay():
                await asyncio.sleep(delay)
            await Turn(session, chooser.behaviour, account, chooser.variants(), answered).play(fault)
        finally:
            if self.on_exchange:
                self.on_exchange(exchange)


async def serve(
    behaviour: Behaviour,
    host: str,
    port: int,
    record: Path | None,
    ready: Callable[[str], None],
    *,
    ssl_context: SSLContext | None = None,
    opener: Callable[[str, int], int] | None = None,
) -> None:
    """Run a simulator until cancelled, then drop everything at once.

    `ready` is called with its URL when it listens. Each exchange is appended to `record` as a JSON line: the
    fields of `Exchange`; `opener` opens it, as for `open`. Raises OSError where the address or the file can't be
    had, or the file takes no more.
    """
    full = asyncio.get_running_loop().create_future()

    def on_exchange(exchange: Exchange) -> None:
        try:
            write(exchange)
        except OSError as error:
            if not full.done():
                full.set_exception(OSError(error.errno, error.strerror, str(record)))

    with json_lines(record, opener) as write:
        simulator = Simulator(
            behaviour,
            host,
            port,
            ssl_context=ssl_context,
            on_exchange=on_exchange,
            keep=_KEEP_WHILE_SERVING,
        )
        async with simulator:
            ready(simulator.url)
            await full
