"""Asks over HTTP, within a time and a size for the whole answer: whoever answers may drip it, or never end it."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any


def ask(
    connection: HTTPConnection, path: str, *, most: int, headers: Mapping[str, str] | None = None
) -> tuple[HTTPResponse, bytes]:
    """Return the answer to a GET, and its body; its head and body may have `most` bytes together.

    The connection's timeout, which has to be a number, is for the whole answer.

    Raises:
        OSError: there is no answer, it is not whole in time, or it is too long; the text says which.
        HTTPException: it is no HTTP.
        UnicodeError: the host is no host name.
    """
    within = connection.timeout
    assert within is not None  # noqa: S101 - by whoever made the connection
    until = time.monotonic() + within
    try:
        connection.request("GET", path, headers=headers or {})
        # Not `getresponse`, whose reader has a time for each piece alone, and as many pieces as come.
        with closing(HTTPResponse(connection.sock, method="GET")) as answer:
            answer.fp = io.BufferedReader(_Bounded(connection.sock, until, most))
            answer.begin()
            # So many at most, or room is made for as many as the peer announces.
            body = answer.read(most)
            if answer.length:
                raise IncompleteRead(body, answer.length)
            return answer, body
    except TimeoutError as error:
        if error.errno is not None:
            raise  # the network's own
        raise TimeoutError(f"no whole answer within {within:g} s") from error
    except (OSError, UnicodeError):
        raise  # a certificate that is refused is a ValueError, too
    except ValueError as error:
        raise HTTPException(f"its parts have no length: {error}") from error


class _Bounded(io.RawIOBase):
    """What a socket receives, until a moment and up to a number of bytes."""

    def __init__(self, sock: socket.socket, until: float, most: int) -> None:
        self._sock = sock
        self._until = until
        self._most = self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if (remaining := self._until - time.monotonic()) <= 0:
            raise TimeoutError
        self._sock.settimeout(remaining)
        received = self._sock.recv_into(buffer)
        self._left -= received
        if self._left < 0:
            raise OSError(f"the answer is longer than {self._most // 1024} KiB")
        return received
