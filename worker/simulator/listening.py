"""How a server stops listening without leaving a connection behind that nobody closes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

_STEPS = 2  # of the event loop, from the accepting of a connection to the moment at which its server knows it


class _Listening(Protocol):
    def fileno(self) -> int: ...


async def accept_no_more(sockets: Iterable[_Listening]) -> None:
    """Stop accepting, and let what has been accepted get as far as being known; then the server can be closed.

    Closed at once, asyncio would forget a connection that it had accepted a moment before, its socket open.
    """
    loop = asyncio.get_running_loop()
    for listening in sockets:
        loop.remove_reader(listening.fileno())
    for _ in range(_STEPS):
        await asyncio.sleep(0)
