"""The frames of a session: those that most messages come in are read and written here, the rest is the library's.

The library's parser costs more than reading the reply that it has found. What is divided here is the plain frame of
RFC 6455: whole, without extensions, and, where it is received, unmasked and not large. Pure: bytes come in, calls go
out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from worker.common.callbacks import ignore

TEXT, BINARY, PING, PONG = 0x81, 0x82, 0x89, 0x8A
"""First bytes of plain frames: the opcode, with FIN and without a reserved bit."""

_PLAIN = frozenset({TEXT, BINARY, PONG})
_LARGEST = (
    64 * 1024
)  # bytes of a payload; larger ones go on to the library as they come, and are not kept here
_LENGTH_16, _LENGTH_64, _MASKED = 126, 127, 128
_LONGEST_16 = 0xFFFF
_SIZE_16, _SIZE_64 = struct.Struct(">H"), struct.Struct(">Q")


def masked(first: int, payload: bytes, key: bytes) -> bytes:
    """Return the plain frame by which a client sends a payload; its `key` are 4 bytes that nobody can foresee."""
    length = len(payload)
    if length < _LENGTH_16:
        header = bytes((first, _MASKED | length))
    elif length <= _LONGEST_16:
        header = bytes((first, _MASKED | _LENGTH_16)) + _SIZE_16.pack(length)
    else:
        header = bytes((first, _MASKED | _LENGTH_64)) + _SIZE_64.pack(length)
    repeated = (key * (length // len(key) + 1))[:length]
    hidden = int.from_bytes(payload) ^ int.from_bytes(repeated)
    return b"".join((header, key, hidden.to_bytes(length)))


class Frames:
    """Divides what is received, from the first byte behind the handshake on.

    `take` is given the first byte and the payload of each plain frame, and returns whether it takes it. Whatever is not
    taken is passed on, in order and byte for byte; so the library is never given a part of a frame that was taken. A
    frame of more than `max_size` bytes, where there is such a limit, is passed on, too: the library refuses it.
    """

    def __init__(
        self,
        take: Callable[[int, bytes], bool],
        pass_on: Callable[[bytes], object],
        max_size: int | None = None,
    ) -> None:
        self._take = take
        self._pass_on = pass_on
        self._largest = _LARGEST if max_size is None else min(_LARGEST, max_size)
        self._rest = b""
        self._to_pass = 0
        self._drops = False

    def feed(self, data: bytes) -> None:
        """Handle what was received."""
        if self._rest:
            data = self._rest + data
        start, size = 0, len(data)
        while start < size and not self._drops:
            if self._to_pass:
                end = min(size, start + self._to_pass)
                self._to_pass -= end - start
                self._pass_on(data[start:end])
                start = end
                continue
            extent = _extent(data, start)
            if extent is None:
                break
            payload, length = extent
            end = payload + length
            if data[start] not in _PLAIN or length > self._largest:
                self._to_pass = end - start
                continue
            if end > size:
                break
            if not self._take(data[start], data[payload:end]):
                self._pass_on(data[start:end])
            start = end
        self._rest = b"" if self._drops else data[start:]

    def drop(self) -> None:
        """Handle nothing more, not even what was received already: so nothing that a peer sends on costs any time."""
        self._drops = True
        # Circles of those who are called, and this, would have to be collected.
        self._take, self._pass_on = _never, ignore

    def end(self) -> None:
        """Pass on what is there of a frame that will not be completed."""
        rest, self._rest = self._rest, b""
        if rest:
            self._pass_on(rest)


def _never(_first: int, _payload: bytes) -> bool:
    return False


def _extent(data: bytes, start: int) -> tuple[int, int] | None:
    """Return where a frame's payload begins, and its length; None where the header is not complete."""
    begins, size = start + 2, len(data)
    if size < begins:
        return None
    length = data[start + 1]
    if length < _LENGTH_16:
        return begins, length
    if length >= _MASKED:
        # A server must not mask: the library closes the connection over it, whatever follows.
        return begins, _LARGEST + 1
    width = _SIZE_16 if length == _LENGTH_16 else _SIZE_64
    if size < begins + width.size:
        return None
    return begins + width.size, int(width.unpack_from(data, begins)[0])
