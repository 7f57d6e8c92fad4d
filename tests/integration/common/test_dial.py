"""Connecting to a name by all of its addresses, on the event loop of the standard library and on uvloop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support.wire.swallowing import resolve, swallowing
from worker.common.dial import dial

Run = Callable[[Coroutine[Any, Any, None]], None]
NAME = "two-addresses.test"


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on one of the loops."""
    runner: Run = request.param
    return runner


async def listening(host: str, then: Callable[[int], Awaitable[None]]) -> None:
    """Call something with the port of a server."""
    async with await asyncio.start_server(lambda _, writer: writer.close(), host) as server:
        await then(server.sockets[0].getsockname()[1])


def files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_an_address_that_swallows_packets_hides_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall `a name with two addresses, the first swallowing`: the other one is connected to."""

    async def to_the_second(port: int) -> None:
        resolve(monkeypatch, NAME, "127.0.0.2", "127.0.0.1")
        with swallowing("127.0.0.2", port):
            before = files()
            with await dial(NAME, port) as sock:
                assert sock.getpeername() == ("127.0.0.1", port)
            assert files() == before

    run(listening("127.0.0.1", to_the_second))


def test_an_address_that_refuses_hides_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is tried at once; as for the last one, whatever the others did."""

    async def to_the_last(port: int) -> None:
        resolve(monkeypatch, NAME, "127.0.0.2", "127.0.0.3", "127.0.0.1")
        with await dial(NAME, port) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(listening("127.0.0.1", to_the_last))


def test_all_that_fail_are_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no address takes a connection the error says why, once where all have the same reason."""

    async def fail(port: int) -> None:
        resolve(monkeypatch, NAME, "127.0.0.2", "127.0.0.3")
        with pytest.raises(ConnectionRefusedError, match="Connection refused"):
            await dial(NAME, port)
        resolve(monkeypatch, NAME, "127.0.0.2", "255.255.255.255")
        with pytest.raises(
            OSError, match=r"127\.0\.0\.2: Connection refused; 255\.255\.255\.255: "
        ) as raised:
            await dial(NAME, port)
        assert raised.value.errno != errno.ECONNREFUSED
        resolve(monkeypatch, NAME)
        with pytest.raises(OSError, match="no address"):
            await dial(NAME, port)
        with pytest.raises(socket.gaierror):
            await dial("nowhere.invalid", port)

    run(listening("127.0.0.1", fail))


def test_giving_up_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled in the middle, no socket and no task is left."""

    async def give_up(port: int) -> None:
        resolve(monkeypatch, NAME, "127.0.0.2", "127.0.0.2")
        with swallowing("127.0.0.2", port):
            before = files()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4):
                    await dial(NAME, port)
            assert files() == before
            assert len(asyncio.all_tasks()) == 1

    run(listening("127.0.0.1", give_up))
