"""The ledger's own connections to the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import AMQPError, ChannelInvalidStateError

LOST = (AMQPError, ChannelInvalidStateError, OSError, EOFError)
"""What is raised when a connection or channel is gone; a TimeoutError is an OSError."""

_DEADLINE = 10.0


async def connect(url: str) -> AbstractConnection:
    """Connect, or raise one of LOST."""
    async with asyncio.timeout(_DEADLINE):
        return await aiormq.connect(url)


async def close(connection: AbstractConnection) -> None:
    """Close a connection, whatever became of it."""
    with suppress(RuntimeError, *LOST):
        async with asyncio.timeout(_DEADLINE):
            await connection.close()


@asynccontextmanager
async def open_channel(url: str) -> AsyncIterator[AbstractChannel]:
    """Give a channel without confirms, on a connection of its own; raises one of LOST."""
    connection = await connect(url)
    try:
        async with asyncio.timeout(_DEADLINE):
            channel = await connection.channel(publisher_confirms=False)
        yield channel
    finally:
        await close(connection)
