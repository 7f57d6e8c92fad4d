"""Websocket connections as a proxy sees them: the handshake, then frames with their meaning."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tests.support.wire.record import FROM_WORKER, TO_WORKER, Direction, Match

_KINDS = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
_REPLY = "setcalloutcomeofflineresponse"
_HEAD_END = b"\r\n\r\n"
_TOO_LONG_TO_READ = 256 * 1024


class WsFrame(NamedTuple):
    """One frame, or one half of the handshake.

    `kind` is handshake, text, binary, continuation, ping, pong or close. `status` is that of the handshake's
    answer, `code` that of a close; `subtopic` and `account` stand where a whole message has them. `payload`,
    without its mask, is there for whoever chooses a frame; the record goes without it.
    """

    kind: str
    direction: Direction
    fin: bool = True
    size: int = 0
    status: int = 0
    code: int = 0
    subtopic: str = ""
    account: str = ""
    payload: bytes = b""


class _Data(msgspec.Struct):
    account: str = msgspec.field(default="", name="AccountNumber")


class _Message(msgspec.Struct):
    subtopic: str = ""
    sub_topic: str = msgspec.field(default="", name="subTopic")
    data: msgspec.Raw = msgspec.Raw()


_MESSAGE = msgspec.json.Decoder(_Message)
_DATA = msgspec.json.Decoder(_Data)


class _Side:
    def __init__(self) -> None:
        self.buffer = bytearray()
        self.upgraded = False


class WsConversation:
    """One connection, both ways."""

    def __init__(self) -> None:
        self._sides = {direction: _Side() for direction in Direction}

    def feed(self, direction: Direction, data: bytes) -> list[tuple[WsFrame, bytes]]:
        """Return the frames that are whole now, each with its bytes."""
        side = self._sides[direction]
        side.buffer += data
        frames = []
        while (found := _next(side, direction)) is not None:
            frame, size = found
            frames.append((frame, bytes(side.buffer[:size])))
            del side.buffer[:size]
        return frames

    def rest(self, direction: Direction) -> bytes:
        """Return the bytes that never became a whole frame."""
        return bytes(self._sides[direction].buffer)


def _next(side: _Side, direction: Direction) -> tuple[WsFrame, int] | None:
    return _frame(side.buffer, direction) if side.upgraded else _handshake(side, direction)


def _handshake(side: _Side, direction: Direction) -> tuple[WsFrame, int] | None:
    end = side.buffer.find(_HEAD_END)
    if end < 0:
        return None
    size = end + len(_HEAD_END)
    first_line = side.buffer.split(b" ", 2)
    status = int(first_line[1]) if direction is TO_WORKER and first_line[1].isdigit() else 0
    # What comes behind a refusal is a page, not frames; it stays in the buffer until the end.
    side.upgraded = status in {0, 101}
    if not side.upgraded:
        size = len(side.buffer)
    return WsFrame("handshake", direction, size=size, status=status), size


def _frame(buffer: bytearray, direction: Direction) -> tuple[WsFrame, int] | None:
    if len(buffer) < 2:
        return None
    length, masked = buffer[1] & 0x7F, bool(buffer[1] & 0x80)
    extended = {126: 2, 127: 8}.get(length, 0)
    start = 2 + extended + (4 if masked else 0)
    if len(buffer) < start:
        return None
    if extended:
        length = int.from_bytes(buffer[2 : 2 + extended])
    if len(buffer) < start + length:
        return None
    payload = bytes(buffer[start : start + length])
    if masked:
        payload = _unmasked(payload, bytes(buffer[start - 4 : start]))
    return _meaning(_KINDS.get(buffer[0] & 0x0F, "unknown"), direction, bool(buffer[0] & 0x80), payload), (
        start + length
    )


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))


def _meaning(kind: str, direction: Direction, fin: bool, payload: bytes) -> WsFrame:
    frame = WsFrame(kind, direction, fin, len(payload), payload=payload)
    if kind == "close" and len(payload) >= 2:
        return frame._replace(code=int.from_bytes(payload[:2]))
    if kind not in {"text", "binary"} or not fin or len(payload) > _TOO_LONG_TO_READ:
        return frame
    try:
        message = _MESSAGE.decode(payload)
        account = _DATA.decode(message.data).account if direction is FROM_WORKER else ""
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return frame
    return frame._replace(subtopic=message.subtopic or message.sub_topic, account=account)


def is_request(*, account: str | None = None) -> Match:
    """Match a request of the worker's, for this account or any."""
    return lambda frame: bool(
        frame.kind == "text"
        and frame.direction is FROM_WORKER
        and frame.account
        and account in {None, frame.account}
    )


def is_reply(*, containing: bytes = b"") -> Match:
    """Match a whole reply of LCM's whose text contains this, such as an account number."""
    return lambda frame: bool(
        frame.direction is TO_WORKER and frame.subtopic.lower() == _REPLY and containing in frame.payload
    )


def is_kind(kind: str, direction: Direction | None = None) -> Match:
    """Match a frame by its kind, such as `ping` or `handshake`, and its way."""
    return lambda frame: bool(frame.kind == kind and direction in {None, frame.direction})
