"""A simulated LCM that answers as fast as it can: a program of its own, so that it is never the bottleneck.

The project's simulator knows every fault and stands on a whole websocket library; this one knows one request, and
sends replies that were encoded beforehand. It answers pings at once and in order, and each request at once or after
a delay, drawn evenly from 20 % less to 20 % more.

    python -m tests.benchmarks.lcm.peer [--port N] [--delay SECONDS] [--shared] [--record]

Its first line tells its port. To each line of its standard input, `counts` or `record`, it answers by one line of
JSON; it ends with that input.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from typing import cast

import msgspec
import uvloop
from websockets.utils import accept_key

from tests.benchmarks.jobs import reply_parts, shared_reply

SPREAD = 0.2
_TEXT, _CLOSE, _PING = 0x1, 0x8, 0x9
_FINAL, _MASKED = 0x80, 0x80
_ACCOUNT = b'"AccountNumber":"'


class Counts(msgspec.Struct):
    """What it has done until `at`, a time of the system's monotonic clock.

    `working` is the integral over time of how many requests it is at, in seconds: divided by sessions and time it is
    the share of the time in which they were kept busy. `cpu` are the seconds that this process has used.
    """

    at: float
    cpu: float
    sessions: int
    replies: int
    working: float


class Lcm:
    """What all connections share: the replies, the delays, and the counts."""

    def __init__(self, delay: float, *, shared: bool, record: bool) -> None:
        self.sessions = 0
        self.replies = 0
        self.record: dict[str, float] | None = {} if record else None
        self._delay = delay
        self._parts = reply_parts()
        self._shared = frame(_TEXT, shared_reply()) if shared else None
        self._draw = random.Random(7).uniform  # noqa: S311 - no secret
        self._at_work = 0
        self._working = 0.0
        self._changed = time.monotonic()

    def delay(self) -> float:
        return self._delay * self._draw(1 - SPREAD, 1 + SPREAD)

    @property
    def instant(self) -> bool:
        return not self._delay

    def reply(self, account: bytes) -> bytes:
        """Return the frame that answers a request for an account."""
        self.replies += 1
        before, after = self._parts
        return self._shared or frame(_TEXT, before + account + after)

    def work(self, more: int) -> float:
        """Begin a request, or end one (-1); return the time."""
        now = time.monotonic()
        self._working += self._at_work * (now - self._changed)
        self._at_work += more
        self._changed = now
        return now

    def counts(self) -> Counts:
        now = self.work(0)
        return Counts(now, time.process_time(), self.sessions, self.replies, self._working)


class Connection(asyncio.Protocol):
    """One session."""

    def __init__(self, lcm: Lcm) -> None:
        self._lcm = lcm
        self._unread = b""
        self._open = False
        self._timers: set[asyncio.TimerHandle] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._lcm.sessions -= self._open
        for timer in self._timers:
            timer.cancel()
            self._lcm.work(-1)

    def data_received(self, data: bytes) -> None:
        """Answer whatever has come as a whole; the answers that need no delay go out together."""
        data = self._unread + data if self._unread else data
        if not self._open:
            data = self._shake_hands(data)
        at, answers = 0, []
        while (found := read_frame(data, at)) is not None:
            opcode, payload, at = found
            if opcode == _TEXT:
                account = account_in(payload)
                if self._lcm.instant:
                    answers.append(self._lcm.reply(account))
                else:
                    self._answer_later(account)
            elif opcode == _PING:
                answers.append(frame(0xA, payload))
            elif opcode == _CLOSE:
                answers.append(frame(_CLOSE, payload))
        self._unread = data[at:]
        if answers:
            self._transport.write(b"".join(answers))

    def _shake_hands(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        lines = (line.partition(b":") for line in head.split(b"\r\n"))
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        accept = accept_key(headers[b"sec-websocket-key"].decode())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
        )
        self._open = True
        self._lcm.sessions += 1
        return rest

    def _answer_later(self, account: bytes) -> None:
        began = self._lcm.work(1)

        def answer() -> None:
            self._timers.discard(timer)
            self._transport.write(self._lcm.reply(account))
            seconds = self._lcm.work(-1) - began
            if self._lcm.record is not None:
                self._lcm.record[account.decode()] = seconds

        timer = asyncio.get_running_loop().call_later(self._lcm.delay(), answer)
        self._timers.add(timer)


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a server's frame."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([_FINAL | opcode]) + length + payload


def read_frame(data: bytes, at: int) -> tuple[int, bytes, int] | None:
    """Read a client's frame: its opcode, its payload and where the next one begins; None where it isn't whole."""
    if len(data) < at + 6:
        return None
    opcode, size, start = data[at] & 0xF, data[at + 1] & ~_MASKED, at + 2
    if size == 126:
        size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
    end = start + 4 + size
    if len(data) < end:
        return None
    return opcode, unmasked(data[start : start + 4], data[start + 4 : end]), end


def unmasked(mask: bytes, payload: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def account_in(request: bytes) -> bytes:
    """Return the account of a request, which has no escapes; blanks may stand behind the colon."""
    return request.replace(b'": "', b'":"').partition(_ACCOUNT)[2].partition(b'"')[0]


async def serve(lcm: Lcm, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(lcm), "127.0.0.1", port, backlog=1024)
    _say({"port": server.sockets[0].getsockname()[1]})
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while asked := await reader.readline():
        _say(lcm.record if asked == b"record\n" else lcm.counts())


def _say(answer: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    uvloop.run(serve(Lcm(given.delay, shared=given.shared, record=given.record), given.port))


if __name__ == "__main__":
    main()
