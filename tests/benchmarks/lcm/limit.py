"""How fast the simulated LCM is by itself: requests that were encoded beforehand, sent as soon as the reply is here."""

from __future__ import annotations

import asyncio
from typing import cast

from tests.benchmarks.jobs import account, reply_parts, shared_reply
from tests.benchmarks.lcm.control import Peer
from tests.benchmarks.lcm.peer import frame
from worker.lcm.outcome_list import encode

_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_UNMASKED = b"\x00" * 4  # a mask that changes nothing
_PING = b"\x89\x80" + _UNMASKED


class _Client(asyncio.Protocol):
    def __init__(self, shared: bool) -> None:
        asked = account(1_000_000)
        request = encode(asked)
        before, after = reply_parts()
        reply = shared_reply() if shared else before + asked.encode() + after
        self._request = _PING + b"\x81\xfe" + len(request).to_bytes(2, "big") + _UNMASKED + request
        self._expected = len(frame(0xA, b"")) + len(frame(0x1, reply))
        self._open = False
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        if self._open:
            self._received += len(data)
        if not self._open or self._received == self._expected:
            self._open, self._received = True, 0
            self._transport.write(self._request)

    def close(self) -> None:
        self._transport.abort()


async def limit_of(
    peer: Peer, *, shared: bool, sessions: int = 32, seconds: float = 1.0
) -> tuple[float, float]:
    """Return how many exchanges a second an LCM takes that answers at once, and the CPU seconds of each."""
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Client(shared), "127.0.0.1", peer.port))[1]
        for _ in range(sessions)
    ]
    await asyncio.sleep(seconds / 4)
    before = await peer.counts()
    await asyncio.sleep(seconds)
    after = await peer.counts()
    for client in clients:
        client.close()
    replies = after.replies - before.replies
    return replies / (after.at - before.at), (after.cpu - before.cpu) / replies
