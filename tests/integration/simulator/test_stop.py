"""Stopping the simulator leaves nothing behind, whatever moment that is."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from worker.simulator.server import Simulator

CLIENTS = 20


@pytest.mark.parametrize("steps", range(1, 6))
async def test_a_stop_while_connections_are_accepted(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far the accepting of a connection has got when the simulator stops, its socket is closed."""
    left: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)
    for _ in range(5):
        simulator = Simulator()
        await simulator.start()
        clients = [asyncio.ensure_future(come_and_go(simulator.port)) for _ in range(CLIENTS)]
        for _ in range(steps):
            await asyncio.sleep(0)
        await simulator.stop()
        await asyncio.gather(*clients)
    gc.collect()
    assert left == []


async def come_and_go(port: int) -> None:
    """Connect and hang up."""
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.abort()


@pytest.mark.parametrize("steps", range(1, 16))
async def test_a_stop_while_a_handshake_ends(steps: int) -> None:
    """A client that is just being let in, and would stay, is dropped as the others are: a stop always ends."""
    simulator = Simulator()
    await simulator.start()
    clients = [asyncio.ensure_future(come_and_stay(simulator.url)) for _ in range(4)]
    for _ in range(steps):
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await simulator.stop()
        await asyncio.gather(*clients)


async def come_and_stay(url: str) -> None:
    """Connect, and wait until the other side ends it."""
    with suppress(OSError, WebSocketException, EOFError):
        async with connect(url, proxy=None, compression=None) as websocket:
            await websocket.wait_closed()
