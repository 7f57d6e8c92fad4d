"""Names with several addresses, of which the first swallows packets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

_TRIES = 8


@contextmanager
def swallowing(host: str, port: int) -> Iterator[None]:
    """Have an address swallow whatever comes: it listens, and the queue of those to be let in is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(0)
        for _ in range(_TRIES):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect((host, port))
            except TimeoutError:
                break
        else:
            pytest.fail(f"{host}:{port} let {_TRIES} connections in")
        yield


def resolve(monkeypatch: pytest.MonkeyPatch, name: str, *hosts: str) -> None:
    """Let a name have these IPv4 addresses, in this order, on the running loop."""
    loop = asyncio.get_running_loop()
    ask = loop.getaddrinfo

    async def answer(host: str, port: int, **hints: Any) -> list[Any]:
        if host != name:
            return await ask(host, port, **hints)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (each, port)) for each in hosts]

    monkeypatch.setattr(loop, "getaddrinfo", answer)
