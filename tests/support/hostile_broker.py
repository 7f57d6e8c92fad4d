"""A broker that opens a connection as it is scripted, and ends it in its own words at the first channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from pamqp import commands
from pamqp.frame import marshal, unmarshal
from pamqp.header import ProtocolHeader

_HEADER = len(ProtocolHeader().marshal())
CONFIRMING = {"capabilities": {"publisher_confirms": True}}


@asynccontextmanager
async def hostile_broker(
    words: str | bytes = "closed", properties: Any = CONFIRMING, *, frame_max: int = 131072
) -> AsyncIterator[str]:
    """Give `HOST:PORT` of a broker with these server properties, which answers each Channel.Open with 541 and words.

    Words that are bytes are its whole answer.
    """

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(_HEADER)
            writer.write(
                marshal(commands.Connection.Start(server_properties=properties, mechanisms="PLAIN"), 0)
            )
            while True:
                head = await reader.readexactly(7)
                frame = head + await reader.readexactly(int.from_bytes(head[3:], "big") + 1)
                for answer in _answers(unmarshal(frame)[2], words, frame_max):
                    writer.write(answer if isinstance(answer, bytes) else marshal(answer, 0))
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1") as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _answers(said: object, words: str | bytes, frame_max: int) -> list[Any]:
    match said:
        case commands.Connection.StartOk():
            return [commands.Connection.Tune(channel_max=100, frame_max=frame_max, heartbeat=15)]
        case commands.Connection.Open():
            return [commands.Connection.OpenOk()]
        case commands.Channel.Open():
            if isinstance(words, bytes):
                return [words]
            return [commands.Connection.Close(reply_code=541, reply_text=words, class_id=0, method_id=0)]
        case commands.Connection.Close():
            return [commands.Connection.CloseOk()]
    return []
