"""One direction of one proxied connection: reads, understands, and passes on as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from tests.support.wire.record import FROM_WORKER, Direction, Match, Recorder

_CHUNK = 65536


class Conversation(Protocol):
    """Makes frames of the bytes of one connection."""

    def feed(self, direction: Direction, data: bytes, /) -> list[tuple[Any, bytes]]: ...
    def rest(self, direction: Direction, /) -> bytes: ...


class Ends(Protocol):
    """A connection as a hold sees it."""

    number: int

    def cut(self) -> None: ...
    def hang_up(self) -> None: ...
    def reset(self) -> None: ...
    def count(self, fault: str, /) -> None: ...


class Hold:
    """A frame to wait for, which then stays where it is, with all behind it on its lane, until `release`.

    Await it to wait until the frame has been reached; all before it has been passed on by then.
    """

    def __init__(self, match: Match, *, nth: int, disarm: Callable[[Hold], None]) -> None:
        self.frame: Any = None
        self._match = match
        self._left = nth
        self._disarm = disarm
        self._connection: Ends | None = None
        self._reached = asyncio.Event()
        self._released = asyncio.Event()

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self._reached.wait().__await__()
        return self

    @property
    def reached(self) -> bool:
        return self._reached.is_set()

    @property
    def connection(self) -> int:
        """The number of the connection that is held."""
        return self._held.number

    def release(self) -> None:
        """Let everything go on; where the frame was not reached yet, don't wait for it any more."""
        self._disarm(self)
        self._released.set()

    def cut(self) -> None:
        """Close the connection in good order on both sides; what is held never arrives."""
        self._held.cut()

    def hang_up(self) -> None:
        """Let what is held go on, with the end of the connection right behind it."""
        self.release()
        self._held.hang_up()

    def reset(self) -> None:
        """Reset the connection on both sides; what is held never arrives."""
        self._held.reset()

    def catches(self, frame: Any) -> bool:
        """Tell whether this is the frame that is waited for, and count it."""
        if not self._match(frame):
            return False
        self._left -= 1
        return self._left == 0

    async def keep(self, frame: Any, connection: Ends) -> None:
        """Called by the lane that has the frame."""
        self.frame, self._connection = frame, connection
        self._disarm(self)
        connection.count("hold")
        self._reached.set()
        await self._released.wait()

    @property
    def _held(self) -> Ends:
        if self._connection is None:
            raise RuntimeError("the frame has not been reached: await the hold first")
        return self._connection


@dataclass(slots=True)
class Manner:
    """How frames of one direction are passed on, over all connections."""

    delay: float = 0.0
    sliced: bool = False
    holds: list[Hold] = field(default_factory=list)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def catch(self, frame: Any) -> list[Hold]:
        return [hold for hold in self.holds if hold.catches(frame)]


class Lane:
    """Passes frames from a reader to a writer until the reader's end."""

    def __init__(
        self,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        conversation: Conversation,
        manner: Manner,
        recorder: Recorder,
        connection: Ends,
    ) -> None:
        self._direction = direction
        self._reader = reader
        self._writer = writer
        self._conversation = conversation
        self._manner = manner
        self._recorder = recorder
        self._connection = connection
        self._discarding = False
        self._queue: asyncio.Queue[tuple[float, Any, bytes] | None] = asyncio.Queue()
        self._passing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self._passing = asyncio.get_running_loop().create_task(self._pass_on())
        try:
            await self._read()
            await asyncio.gather(self._passing, return_exceptions=True)
        finally:
            self._passing.cancel()

    def discard(self) -> None:
        """Send the end of the connection now, and let nothing pass any more."""
        self._discarding = True
        if self._passing is not None:
            self._passing.cancel()
        self._send_end()

    def finish(self) -> None:
        """Pass on what has come so far, then the end of the connection."""
        self._discarding = True
        self._queue.put_nowait(None)

    async def _read(self) -> None:
        with suppress(OSError):  # a reset ends a lane as an end does
            while True:
                await self._manner.flowing.wait()
                data = await self._reader.read(_CHUNK)
                await self._manner.flowing.wait()
                if not data:
                    break
                if not self._discarding:
                    self._take(data)
        self._queue.put_nowait((0.0, None, self._conversation.rest(self._direction)))
        self._queue.put_nowait(None)

    def _take(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        for frame, raw in self._conversation.feed(self._direction, data):
            if self._direction is FROM_WORKER:
                self._note(frame)
            self._queue.put_nowait((now, frame, raw))

    async def _pass_on(self) -> None:
        with suppress(OSError):
            while (item := await self._queue.get()) is not None:
                arrived, frame, raw = item
                if frame is not None:
                    await self._consider(frame)
                if self._manner.delay and frame is not None:
                    await asyncio.sleep(arrived + self._manner.delay - asyncio.get_running_loop().time())
                await self._send(raw)
        self._send_end()

    async def _consider(self, frame: Any) -> None:
        if caught := self._manner.catch(frame):
            await asyncio.gather(*(hold.keep(frame, self._connection) for hold in caught))
        if self._direction is not FROM_WORKER:
            self._note(frame)

    def _note(self, frame: Any) -> None:
        slim = frame._replace(payload=b"") if hasattr(frame, "payload") else frame
        self._recorder.note(self._connection.number, self._direction, slim)

    async def _send(self, raw: bytes) -> None:
        pieces = (raw[at : at + 1] for at in range(len(raw))) if self._manner.sliced else (raw,)
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            if self._manner.sliced:
                await asyncio.sleep(0)

    def _send_end(self) -> None:
        with suppress(OSError, RuntimeError):  # the transport is gone already
            self._writer.write_eof()
