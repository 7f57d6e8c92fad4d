"""How the simulated LCM answers one request: by the good reply, or by each of its faults."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed

from worker.simulator import documents

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

    from worker.simulator.behaviour import Behaviour

# SO_LINGER on, with no time: closing the socket then sends a TCP reset.
_RESET = struct.pack("ii", 1, 0)


class _Deaf(asyncio.Protocol):
    """Replaces a websocket's protocol at the transport: ignores all data, pings included."""

    def __init__(self, websocket: ServerConnection) -> None:
        self._websocket = websocket

    def connection_lost(self, exc: Exception | None) -> None:
        self._websocket.connection_lost(exc)


@dataclass(slots=True, eq=False)
class Session:
    """One connection, seen from LCM's side."""

    websocket: ServerConnection
    number: int
    name: str | None
    in_flight: int = 0
    logged_in: bool = False
    frozen: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def say(self, text: bytes) -> None:
        """Send one text message."""
        await self.websocket.send(text, text=True)

    async def reset(self) -> None:
        """Drop the connection by a TCP reset, without a closing handshake."""
        transport = self.websocket.transport
        if not transport.is_closing():
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
        await self.websocket.wait_closed()

    async def close(self, code: int) -> None:
        """Close cleanly; a frozen connection, which can't, is reset."""
        if self.frozen:
            await self.reset()
        else:
            await self.websocket.close(code)

    def freeze(self) -> None:
        """Neither read nor send from now on; the connection stays open until the peer drops it."""
        self.frozen = True
        self.websocket.transport.set_protocol(_Deaf(self.websocket))
        for task in self.tasks - {asyncio.current_task()}:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something for as long as the connection lasts."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def beat(self, interval: float) -> None:
        """Send a heartbeat every `interval` seconds."""
        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(interval)
                await self.say(documents.heartbeat(self.name or ""))

    async def cancel_tasks(self) -> None:
        """End what still runs for this connection."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@dataclass(slots=True)
class Turn:
    """One request about to be answered; `answered` is called as soon as a whole reply of any kind is out."""

    session: Session
    behaviour: Behaviour
    account: str
    variants: documents.Variants
    answered: Callable[[], None]

    def good(self) -> bytes:
        """Send the good reply."""
        return documents.good(self.account, self.variants)

    async def answer(self, reply: bytes) -> None:
        """Send a reply."""
        await self.session.say(reply)
        self.answered()

    async def play(self, fault: str | None) -> None:
        """Answer with this fault; None is the good reply."""
        if fault is None:
            await self.answer(self.good())
        elif fault in documents.BAD:
            await self.answer(documents.BAD[fault](self.account, self.variants))
        else:
            await MANNERS[fault](self)


async def _silence(_turn: Turn) -> None:
    pass


async def _slow(turn: Turn) -> None:
    await asyncio.sleep(turn.behaviour.slow_by)
    await turn.answer(turn.good())


async def _late(turn: Turn) -> None:
    await asyncio.sleep(turn.behaviour.late_by)
    await turn.answer(turn.good())


async def _twice(turn: Turn) -> None:
    await turn.answer(turn.good())
    await turn.session.say(turn.good())


async def _unprompted(turn: Turn) -> None:
    await turn.answer(turn.good())
    await asyncio.sleep(turn.behaviour.unprompted_after)
    await turn.session.say(turn.good())


async def _huge(turn: Turn) -> None:
    await turn.answer(documents.huge(turn.account, turn.variants, turn.behaviour.huge_size))


async def _sliced(turn: Turn) -> None:
    reply = turn.good()
    slices = (reply[at : at + 1] for at in range(len(reply)))
    await turn.session.websocket.send(slices, text=True)
    turn.answered()


async def _binary(turn: Turn) -> None:
    await turn.session.websocket.send(turn.good())
    turn.answered()


async def _wrong_subtopic(turn: Turn) -> None:
    await turn.session.say(documents.wrong_subtopic(turn.account, turn.variants))


async def _flood(turn: Turn) -> None:
    for number in itertools.count():
        await turn.session.say(documents.of_another_channel(number))


async def _close(turn: Turn) -> None:
    await turn.session.close(turn.behaviour.close_code)


async def _reset(turn: Turn) -> None:
    await turn.session.reset()


async def _freeze(turn: Turn) -> None:
    turn.session.freeze()


# The faults that are more, or less, than one message in place of the good reply.
MANNERS: Mapping[str, Callable[[Turn], Awaitable[None]]] = {
    "silence": _silence,
    "slow": _slow,
    "late": _late,
    "twice": _twice,
    "unprompted": _unprompted,
    "huge": _huge,
    "sliced": _sliced,
    "binary": _binary,
    "wrong-subtopic": _wrong_subtopic,
    "flood": _flood,
    "close": _close,
    "reset": _reset,
    "freeze": _freeze,
}
