"""The frames of a connection: deliveries and confirms are handled as they arrive, the rest is the library's.

The library handles each frame in three tasks, which costs more than all that a good job needs besides. So whoever
claims a channel is given the method frames that arrive on it, and the contents that belong to those it takes.
Pure but for the time: bytes come in, calls go out.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from pamqp.header import ContentHeader

OnContent = Callable[[ContentHeader, bytes], object]
"""Called with a content's header, which holds its properties, and its body."""

OnMethod = Callable[[bytes], "OnContent | bool"]
"""Called with a method frame's payload; returns whether it takes the frame, or what takes its content as well."""

DELIVER = b"\x00\x3c\x00\x3c"
RETURN = b"\x00\x3c\x00\x32"
ACK = b"\x00\x3c\x00\x50"
NACK = b"\x00\x3c\x00\x78"
"""The first bytes of a method frame's payload: class 60, basic, and the method."""

_CHANNEL_ENDS = (b"\x00\x14\x00\x28", b"\x00\x14\x00\x29")  # channel.close and channel.close-ok

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_KINDS = frozenset({_METHOD, _HEADER, _BODY, _HEARTBEAT})
_HEAD = struct.Struct(">BHI")
_AROUND = _HEAD.size + 1  # bytes of a frame beside its payload
_END = 0xCE
_ENDS = bytes([_END])
_CONTENT = struct.Struct(">BHIHHQ")
_SIZE_AT = _CONTENT.size - 8  # in a header's frame, the size of the body
_BASIC, _WEIGHT = 60, 0
_MOST_BODY = 512 * 2**20
"""The largest body that RabbitMQ can be set to take."""
_MOST_UNTUNED = 128 * 1024
"""How large a frame may be until the connection is tuned; by the protocol it has 4 KiB at most."""
_A_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_SIGN_OF_LIFE = 1.0
"""Seconds after which the library is given a heartbeat where all frames since were taken from it.

It drops a connection on which it sees no frame for some 50 s, and a busy broker sends no heartbeats.
"""


@dataclass(slots=True)
class _Content:
    """A content that is arriving."""

    done: OnContent
    header: ContentHeader | None = None
    missing: int = 0
    parts: list[bytes] | None = None


def content_frames(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Return the frames of a content: its header, and its body in as many frames as `frame_max` asks; 0 is no limit."""
    header_size = _CONTENT.size - _HEAD.size + len(properties)
    header = _CONTENT.pack(_HEADER, channel, header_size, _BASIC, _WEIGHT, len(body))
    frames = [header, properties, _ENDS]
    most = frame_max - _AROUND if frame_max else len(body)
    for start in range(0, len(body), most or 1):
        part = body[start : start + most]
        frames += [_HEAD.pack(_BODY, channel, len(part)), part, _ENDS]
    return b"".join(frames)


def _check_body_size(size: int) -> None:
    if size > _MOST_BODY:
        raise ValueError(f"a body of {size} bytes, where {_MOST_BODY} is the most")


class Frames:
    """Divides what a connection receives into frames. `pass_on` is given those that nobody has claimed, as bytes.

    What is no AMQP frame is passed on as it is, with all that follows: the library knows how to refuse it.
    """

    def __init__(self, pass_on: Callable[[bytes], object]) -> None:
        self._pass_on = pass_on
        self._claims: dict[int, OnMethod] = {}
        self._contents: dict[int, _Content] = {}
        self._rest: list[bytes] = []
        self._missing = 0
        self._most = _MOST_UNTUNED
        self._is_amqp = True
        self._passed_at = 0.0
        self.held = False
        """While this is set no frame is handled: what is fed is kept for a later `feed`."""

    def tune(self, frame_max: int) -> None:
        """Take frames of so many bytes from now on; 0 is no limit but that of a body."""
        self._most = min(frame_max or _MOST_BODY, _MOST_BODY)

    def claim(self, channel: int, on_method: OnMethod) -> None:
        """Have the method frames of a channel offered to `on_method` first, until the channel is closed."""
        self._contents.pop(channel, None)
        self._claims[channel] = on_method

    def feed(self, data: bytes = b"") -> None:
        """Handle what was received.

        Raises:
            ValueError: a frame or a body is larger than any may be; nothing of it is waited for.
        """
        if self._rest:
            self._rest.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return  # the rest of a large frame; joined once
            data = b"".join(self._rest)
        if self._is_amqp:
            data = self._divide(data)
        elif data:
            self._pass_on(data)
            data = b""
        self._rest = [data] if data else []

    def end(self) -> None:
        """Handle nothing any more, also not what is held: the connection is gone."""
        self._rest.clear()

    def _divide(self, data: bytes) -> bytes:
        """Handle the frames that are complete; return the beginning of the next one."""
        start = passed = 0
        size = len(data)
        self._missing = 0
        while start < size and not self.held:
            if data[start] not in _KINDS:
                return self._is_no_amqp(data[passed:])
            if size - start < _AROUND:
                break
            kind, channel, length = _HEAD.unpack_from(data, start)
            end = start + _AROUND + length
            if end - start > self._most:
                raise ValueError(f"a frame of {end - start} bytes, where {self._most} is the most")
            if end > size:
                self._missing = end - size
                break
            if data[end - 1] != _END:
                return self._is_no_amqp(data[passed:])
            if channel in self._claims and self._is_taken(kind, channel, data[start + _HEAD.size : end - 1]):
                self._pass(data[passed:start])
                passed = end
            elif kind == _HEADER:
                _check_body_size(int.from_bytes(data[start + _SIZE_AT : start + _CONTENT.size]))
            start = end
        self._pass(data[passed:start])
        if passed and (now := time.monotonic()) - self._passed_at > _SIGN_OF_LIFE:
            self._passed_at = now
            self._pass_on(_A_HEARTBEAT)
        return data[start:]

    def _is_no_amqp(self, data: bytes) -> bytes:
        self._is_amqp = False
        self._pass(data)
        return b""

    def _pass(self, frames: bytes) -> None:
        if frames:
            self._passed_at = time.monotonic()
            self._pass_on(frames)

    def _is_taken(self, kind: int, channel: int, payload: bytes) -> bool:
        if kind == _METHOD:
            if payload.startswith(_CHANNEL_ENDS):
                del self._claims[channel]  # its number may become another's
                return False
            taken = self._claims[channel](payload)
            if callable(taken):
                self._contents[channel] = _Content(taken)
            return taken is not False
        content = self._contents.get(channel)
        if content is None:
            return False
        if kind == _HEADER:
            header = content.header = ContentHeader()
            header.unmarshal(payload)
            _check_body_size(header.body_size)
            content.missing = header.body_size
            body = b""
        else:
            content.missing -= len(payload)
            body = self._body_so_far(content, payload)
        if content.missing <= 0:
            del self._contents[channel]
            content.done(content.header or ContentHeader(), body)
        return True

    @staticmethod
    def _body_so_far(content: _Content, payload: bytes) -> bytes:
        """Return the whole body once nothing is missing; that is one frame nearly always."""
        if content.missing <= 0 and content.parts is None:
            return payload
        content.parts = content.parts or []
        content.parts.append(payload)
        return b"".join(content.parts) if content.missing <= 0 else b""
