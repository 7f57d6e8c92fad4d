"""A peer that talks without end, or does not read, loses its session; memory stays flat and the pace cautious."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from websockets.asyncio.server import ServerConnection

from tests.support.lcm import ACCOUNT, Ends, opened, peer, pooled
from tests.support.log import RecordingLog
from tests.support.raw_peer import RawPeer, raw_peer
from tests.support.waiting import until
from worker.contract.errors import JobError, SessionNotOpened
from worker.lcm.flood import MOST_FRAGMENTS, MOST_UNSENT, MOST_UNSOLICITED
from worker.lcm.session import Session
from worker.lcm.socket import Socket

LONG = 60.0
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PING = b"\x89\x7d" + b"p" * 125


async def talk(connection: ServerConnection) -> None:
    """Send distinct messages of other channels for as long as the connection lasts."""
    for number in range(10**9):
        await connection.send(f'{{"channel":"Other {number}","topic":"T","subtopic":"{"s" * 500}"}}')


async def test_distinct_unsolicited_messages_end_the_session() -> None:
    """What it keeps of them is their number, and at the limit the session ends and says why."""
    ends = Ends()
    async with peer(talk) as url, opened(url, ends) as session:
        await until(lambda: not session.alive)
        assert session.unsolicited == MOST_UNSOLICITED + 1
        assert ends.reasons == ["sent more than 1000 messages of its own accord in 10 s"]


async def test_a_peer_that_floods_is_not_called_upon_at_once() -> None:
    """After a flooded session the next one is opened only after a pause, although it had opened well."""
    log = RecordingLog()
    async with peer(talk) as url, pooled(url, log=log, sessions=1) as pool:
        await pool.ensure_session()
        await until(lambda: log.of("lcm.session_closed"))
        assert pool.backing_off


@asynccontextmanager
async def pinging(*, reads: bool) -> AsyncIterator[str]:
    """Give the URL of a websocket server that sends pings without end, and reads the pongs or not."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b":", 1)[1].strip()
            for line in request.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())  # noqa: S324 - RFC 6455 asks for it
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        writer.write(head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(PING * 100)
                await writer.drain()
                if reads:
                    await reader.read(1 << 16)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"ws://{host}:{port}/"


async def most_unsent(session: Session) -> int:
    """Return the most bytes that were seen to wait for the peer, until the session ends."""
    most = 0
    while session.alive:
        most = max(most, session._socket.transport.get_write_buffer_size())
        await asyncio.sleep(0)
    return most


async def test_pings_without_end_end_the_session() -> None:
    """Answered or not, pings come at the peer's expense: at the limit the session ends and says why."""
    for reads in (True, False):
        ends = Ends()
        async with pinging(reads=reads) as url, opened(url, ends) as session:
            assert await most_unsent(session) <= 2 * MOST_UNSENT
            assert ends.reasons == ["sent more than 1000 pings in 10 s"]


TINY = 300_000
HANDLED = MOST_FRAGMENTS + MOST_UNSOLICITED
# A frame has two bytes at least.
TINY_FRAMES = {
    "pings": (b"\x89\x00" * TINY, "sent more than 1000 pings in 10 s"),
    "pongs": (b"\x8a\x00" * TINY, "sent more than 1000 pongs in 10 s"),
    "fragments": (b"\x01\x00" + b"\x00\x00" * TINY, "closed by us with code 1009"),
    "empty messages": (b"\x81\x00" * TINY, "malformed reply"),
    "a reserved bit, then pongs": (b"\xf1\x00" + b"\x8a\x00" * TINY, "closed by us with code 1002"),
    "goodbye, then pongs": (b"\x88\x02\x03\xe8" + b"\x8a\x00" * TINY, "closed by LCM with code 1000"),
}


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of all that was handled frame by frame."""
    sizes: list[int] = []
    take, pass_on = Socket._take_plain, Socket._pass_on

    def taken(self: Socket, first: int, payload: bytes) -> bool:
        sizes.append(len(payload))
        return take(self, first, payload)

    def passed(self: Socket, data: bytes) -> None:
        sizes.append(len(data))
        pass_on(self, data)

    monkeypatch.setattr(Socket, "_take_plain", taken)
    monkeypatch.setattr(Socket, "_pass_on", passed)
    return sizes


@pytest.mark.parametrize("kind", TINY_FRAMES)
async def test_tiny_frames_cost_little(kind: str, handled: list[int]) -> None:
    """However many come in place of a reply, few are looked at: the loop gets no turn before all in a piece are."""
    frames, reason = TINY_FRAMES[kind]

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await lcm.hear_request()
        lcm.say_bytes(frames)
        while True:
            await lcm.hear()

    ends = Ends()
    async with raw_peer(talk) as url, opened(url, ends, ping_interval=0) as session:
        with pytest.raises(JobError):
            await session.exchange(ACCOUNT, LONG)
        await until(lambda: ends.reasons)
    assert ends.reasons[0].startswith(reason)
    assert len(handled) <= 2 * HANDLED


@pytest.mark.parametrize("kind", TINY_FRAMES)
async def test_tiny_frames_while_it_is_opened_cost_little(kind: str, handled: list[int]) -> None:
    """Nor where a greeting is to be answered, before there is a session."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await lcm.hear_request()
        lcm.say_bytes(TINY_FRAMES[kind][0])
        while True:
            await lcm.hear()

    greeting = [{"send": "hello", "await": "Welcome"}]
    async with raw_peer(talk) as url:
        with pytest.raises(SessionNotOpened):
            async with opened(url, greeting=greeting, ping_interval=0):
                raise AssertionError("it was opened")
    assert len(handled) <= 2 * HANDLED


async def test_tiny_frames_of_a_peer_that_was_left_cost_nothing(handled: list[int]) -> None:
    """Once a session is given up, nothing that came for it is handled."""

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        await lcm.hear_request()
        lcm.say_bytes(b"\x81\x00" * TINY)
        while True:
            await lcm.hear()

    async with raw_peer(talk) as url, opened(url, ping_interval=0) as session:
        with pytest.raises(JobError):
            await session.exchange(ACCOUNT, LONG)
    assert len(handled) == 1


async def test_a_peer_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few pings would be too many: pongs that nobody reads do not pile up beyond a bound."""
    monkeypatch.setattr("worker.lcm.socket.FloodCounter.exceeded", lambda _self, _now: False)
    ends = Ends()
    async with pinging(reads=False) as url, opened(url, ends) as session:
        assert await most_unsent(session) <= 2 * MOST_UNSENT
        assert ends.reasons == [f"does not read: over {MOST_UNSENT} bytes wait for it"]
