"""What the tests of LCM need: sessions and pools with short waits, a scripted peer, and a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.support.log import RecordingLog
from tests.support.settings import lcm_settings
from worker.common.clock import Clock
from worker.contract.lookup import Lookup
from worker.contract.outcomes import OutcomeList
from worker.lcm.handshake import SessionOpener
from worker.lcm.lookup import build_lookup
from worker.lcm.pool import Pool
from worker.lcm.session import Session
from worker.settings import OutageSettings, RetrySettings
from worker.simulator import documents

ACCOUNT = "18|1|2|0|0|44|274"
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
# Soon, for waits that a test wants to see the end of.
SOON = {"probe_delay": 0.01, "probe_max_delay": 0.02}

SAMPLE = documents.reply(
    {"response": [{"OutComeID": id_, "Description": text} for id_, text in documents.OUTCOMES]}
)

Converse = Callable[[ServerConnection], Awaitable[None]]


def reply(response: object, **envelope: Any) -> bytes:
    """Return the documented reply with this response, and whatever of it shall be different."""
    document = {
        "channel": "LCM",
        "topic": "WebService",
        "subtopic": "SetCallOutComeOfflineResponse",
        "message": {"response": response},
    }
    return msgspec.json.encode(
        {key: value for key, value in (document | envelope).items() if value is not ...}
    )


def raw_reply(response: str) -> bytes:
    """Return the documented reply with this text in the response's place."""
    return reply("?").replace(b'"?"', response.encode())


def good(account: str) -> bytes:
    """Return a reply that names the account for which it is sent."""
    return reply([{"OutComeID": documents.ACCOUNT_ID, "Description": f"Account {account}"}])


def names(items: OutcomeList, account: str) -> bool:
    """Tell whether an outcome list is the one that was sent for this account."""
    return items[-1] == (documents.ACCOUNT_ID, f"Account {account}")


class Ends:
    """Takes the place of the pool as the one who is told that a session has ended."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __call__(self, _session: Session, reason: str) -> None:
        self.reasons.append(reason)


@asynccontextmanager
async def opened(
    url: str, ends: Callable[[Session, str], None] | None = None, /, **settings: Any
) -> AsyncIterator[Session]:
    """Give one session with the server at this URL."""
    session = await SessionOpener(lcm_settings(url, **settings), "worker-1")(1, ends or Ends())
    try:
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def pooled(
    url: str, *, log: RecordingLog | None = None, outage: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Pool]:
    """Give a pool of sessions with the server at this URL, which is soon tried again."""
    lcm = lcm_settings(url, **settings)
    section = OutageSettings.model_validate(outage or SOON)
    pool = Pool(SessionOpener(lcm, "worker-1"), lcm, section, log or RecordingLog())
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def looking_up(
    url: str,
    *,
    log: RecordingLog | None = None,
    outage: dict[str, Any] | None = None,
    retry: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Pool, Lookup]]:
    """Give a pool as `pooled` does, and the whole lookup above it, which tries again at once."""
    section = RetrySettings.model_validate({"first_delay": 0, "max_delay": 0} | (retry or {}))
    async with pooled(url, log=log, outage=outage, **settings) as pool:
        yield pool, build_lookup(pool, lcm_settings(url, **settings), section)


@asynccontextmanager
async def peer(converse: Converse) -> AsyncIterator[str]:
    """Give the URL of a websocket server that talks as `converse` says, then closes the connection."""

    async def serve_one(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await converse(connection)

    async with serve(serve_one, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[str]:
    """Give the address, `HOST:PORT`, of a server that answers each request of a connection so, and closes nothing."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(each)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


class SetClock:
    """A clock that only sleeping moves on, at once and without any waiting."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sleeps: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        end = self.seconds + seconds
        await asyncio.sleep(0)
        self.seconds = max(self.seconds, end)

    @property
    def clock(self) -> Clock:
        """This clock as the lookup takes it."""
        return Clock(
            now=lambda: START + timedelta(seconds=self.seconds),
            monotonic=lambda: self.seconds,
            sleep=self.sleep,
        )
