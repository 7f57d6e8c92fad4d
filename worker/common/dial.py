"""Connects to a host by all of its addresses, side by side: one that swallows packets must not hide the others.

As RFC 8305 says ("happy eyeballs"). asyncio has it as `happy_eyeballs_delay`, which uvloop does not know.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

from worker.common.tasks import cancel, start

_HEAD_START = 0.25
"""Seconds that an address is given before the next one is tried beside it."""

_Address = tuple[socket.AddressFamily, tuple[Any, ...]]


async def dial(host: str, port: int) -> socket.socket:
    """Return a socket that is connected to a host.

    Raises:
        OSError: the name has no address, or none of its addresses takes a connection; the text says why.
        UnicodeError: it is no host name.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = _families_in_turn([(family, address) for family, _, _, _, address in found])
    attempts: list[asyncio.Task[socket.socket]] = []
    try:
        while True:
            attempts += [start(_connect(*address)) for address in addresses[len(attempts) :][:1]]
            pending = [attempt for attempt in attempts if not attempt.done()]
            if pending:
                patience = _HEAD_START if len(attempts) < len(addresses) else None
                await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for attempt in attempts:
                if attempt.done() and attempt.exception() is None:
                    attempts.remove(attempt)
                    return attempt.result()
            if len(attempts) == len(addresses) and all(attempt.done() for attempt in attempts):
                raise _error_of(addresses, attempts)
    finally:
        await cancel(*attempts)
        for attempt in attempts:
            if not attempt.cancelled() and attempt.exception() is None:
                attempt.result().close()


async def _connect(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _families_in_turn(addresses: Sequence[_Address]) -> list[_Address]:
    """Order them so that IPv6 and IPv4 alternate: often one of the two as a whole leads nowhere."""
    families = dict.fromkeys(family for family, _ in addresses)
    by_family = ([each for each in addresses if each[0] is family] for family in families)
    return [each for each in chain.from_iterable(zip_longest(*by_family)) if each is not None]


def _error_of(addresses: Sequence[_Address], attempts: Sequence[asyncio.Task[socket.socket]]) -> OSError:
    codes = [error.errno for attempt in attempts if isinstance(error := attempt.exception(), OSError)]
    if len(set(codes)) == 1 and codes[0] is not None:
        # Not the event loop's own text, which tells the address alone.
        return OSError(codes[0], os.strerror(codes[0]))
    told = zip(addresses, codes, strict=False)
    texts = [f"{address[0]}: {os.strerror(code) if code else 'failed'}" for (_, address), code in told]
    return OSError("; ".join(texts) or "the name has no address")
