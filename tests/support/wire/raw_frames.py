"""Bytes that can't be understood, such as those of TLS: whatever arrives together counts as one frame."""

from __future__ import annotations

from typing import NamedTuple

from tests.support.wire.record import Direction


class RawFrame(NamedTuple):
    """Some bytes."""

    kind: str
    direction: Direction
    size: int


def anything(_frame: object) -> bool:
    """Match every frame: the next one is meant."""
    return True


class RawConversation:
    """One connection, both ways."""

    def feed(self, direction: Direction, data: bytes) -> list[tuple[RawFrame, bytes]]:
        return [(RawFrame("bytes", direction, len(data)), data)] if data else []

    def rest(self, _direction: Direction) -> bytes:
        return b""
