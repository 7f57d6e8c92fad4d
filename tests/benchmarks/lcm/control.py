"""Starts the simulated LCM of `peer.py`, and asks it for its counts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import PIPE

import msgspec

from tests.benchmarks.lcm.peer import Counts
from tests.benchmarks.processes import CHECKOUT, environment

_LONG_LINE = 1 << 26


class Peer:
    """A running LCM; made by `lcm`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def started(self) -> None:
        self.port = msgspec.json.decode(await self._line())["port"]

    async def counts(self) -> Counts:
        """Return what it has done until now."""
        return msgspec.json.decode(await self._ask(b"counts\n"), type=Counts)

    async def record(self) -> dict[str, float]:
        """Return the seconds that each account's request took LCM, where `lcm` was told to record them."""
        return msgspec.json.decode(await self._ask(b"record\n"), type=dict[str, float])

    async def stop(self) -> None:
        """End it; its connections are reset."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()  # which closes its pipes too, before the event loop goes

    async def _ask(self, what: bytes) -> bytes:
        assert self._process.stdin is not None
        self._process.stdin.write(what)
        return await self._line()

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.readline()


async def start_lcm(*, delay: float = 0.0, shared: bool = False, record: bool = False, port: int = 0) -> Peer:
    """Start an LCM that answers after about `delay` seconds, each account with its own list or all with one."""
    flags = [*(["--shared"] if shared else []), *(["--record"] if record else [])]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.benchmarks.lcm.peer",
        f"--delay={delay}",
        f"--port={port}",
        *flags,
        cwd=CHECKOUT,
        env=environment({}),
        stdin=PIPE,
        stdout=PIPE,
        limit=_LONG_LINE,
    )
    peer = Peer(process)
    try:
        await peer.started()
    except BaseException:
        await peer.stop()
        raise
    return peer


@asynccontextmanager
async def lcm(*, delay: float = 0.0, shared: bool = False, record: bool = False) -> AsyncIterator[Peer]:
    """Give an LCM as `start_lcm` starts it, and end it."""
    peer = await start_lcm(delay=delay, shared=shared, record=record)
    try:
        yield peer
    finally:
        await peer.stop()
