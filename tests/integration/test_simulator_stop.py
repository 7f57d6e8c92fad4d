"""Stopping the simulator leaves nothing behind, whatever moment that is."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress
from typing import Any

import pytest

from worker.sandbox.lcm import Simulator

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
