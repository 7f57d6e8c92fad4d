"""Targets: what the broker sends, divided into frames."""

from __future__ import annotations

import math
import struct
from itertools import pairwise

from pamqp.header import ContentHeader

from tests.fuzz.target import Target
from worker.broker.fields import read_leniently
from worker.broker.frames import ACK, DELIVER, NACK, RETURN, Frames, OnContent

_OURS = 1
_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

read_leniently()


class _Reader:
    """Claims one channel, as consumer and publisher do; what it tells are calls in their order."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, ...]] = []
        self.passed = bytearray()
        self.error = ""
        self._frames = Frames(self.passed.extend)
        # No heartbeat stands for frames that were taken: those come by the clock.
        self._frames._passed_at = math.inf
        self._frames.claim(_OURS, self._method)

    def feed(self, *pieces: bytes) -> None:
        """Receive these pieces; where a frame can't be read, the connection is dropped: see broker/socket."""
        try:
            for piece in pieces:
                self._frames.feed(piece)
        except Exception as error:  # noqa: BLE001 - whatever it is: see there
            self.error = type(error).__name__

    def _method(self, payload: bytes) -> OnContent | bool:
        self.taken.append((payload,))
        return self._content if payload.startswith((DELIVER, RETURN)) else payload.startswith((ACK, NACK))

    def _content(self, header: ContentHeader, body: bytes) -> None:
        self.taken.append((str(header.body_size).encode(), body))


def check_frames(data: bytes) -> None:
    """However a stream is cut, the same methods and contents are taken of it, in order, and the same is passed on."""
    cut, stream = data[0] * len(data) // 256 if data else 0, data[1:]
    ends = sorted({0, cut, cut // 2, cut + 1, len(stream)} & set(range(len(stream) + 1)))
    whole, parts = _Reader(), _Reader()
    whole.feed(stream)
    parts.feed(*(stream[start:end] for start, end in pairwise(ends)))
    assert (parts.taken, parts.error) == (whole.taken, whole.error)
    if not whole.error:
        assert parts.passed == whole.passed
    assert sum(len(body) for _, *body_ in parts.taken for body in body_) <= len(stream)


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame of AMQP."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


TARGETS = (
    Target(
        "amqp-frames",
        check_frames,
        (
            *(frame(1, _OURS, method + bytes(9)) for method in (ACK, NACK, RETURN)),
            frame(1, _OURS, DELIVER + b"\x01c" + bytes(9) + b"\x01x\x01k"),
            frame(2, _OURS, struct.pack(">HHQH", 60, 0, 3, 0)),
            frame(3, _OURS, b"abc"),
            frame(3, 2, b"abc"),
            frame(1, _OURS, b"\x00\x14\x00\x29"),
            _HEARTBEAT,
        ),
    ),
)
