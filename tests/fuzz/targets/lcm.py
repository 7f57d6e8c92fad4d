"""Targets: what LCM sends, as messages, as frames and as the answer to a handshake; and the frames sent to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from tests.fuzz.target import Target
from worker.contract.result import MAX_ERROR_MESSAGE
from worker.lcm import envelope
from worker.lcm.envelope import ErrorReply, Malformed, Unparseable, Unsolicited
from worker.lcm.frames import BINARY, PING, PONG, TEXT, Frames, masked
from worker.lcm.http_answer import LONGEST_PAUSE, read_answer
from worker.lcm.outcome_list import Reply, ReplyMemory, classify

_NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
_SESSION_ERRORS = envelope.session_errors_of(["WS_Error"])
_IDS = ("OutComeID", "OutcomeID", "OutcomeId")
_LONGEST_REASON = 300
_LARGEST_PLAIN = 64 * 1024
_KINDS = {Opcode.TEXT: TEXT, Opcode.BINARY: BINARY, Opcode.PONG: PONG}


def check_reply(data: bytes) -> None:
    """Any message means something, by few words, and an outcome list holds what the message says and nothing else."""
    frame = classify(data, _SESSION_ERRORS)
    memory = ReplyMemory()
    for _ in range(3):  # and not deeper in the stack, of which what is nested takes the rest
        assert classify(data, _SESSION_ERRORS, memory) == frame
    envelope.is_reply_of(data, "LoginResponse")
    envelope.error_of(data, _SESSION_ERRORS)
    match frame:
        case Reply(items):
            assert tuple(items) in list(_lists_in(json.loads(data)))
            assert json.loads(items.normalized.encoded) is not None
            assert {each.id for each in items.normalized.outcomes} == {id_.strip() for id_, _ in items}
        case ErrorReply(text):
            assert len(text.encode()) <= MAX_ERROR_MESSAGE
        case Malformed(why) | Unparseable(why) | Unsolicited(why):
            assert len(why) <= _LONGEST_REASON


def _lists_in(document: dict[str, Any]) -> Iterator[tuple[tuple[str, str], ...]]:
    """Yield the outcome lists of a reply, read by another parser and without any of our shortcuts."""
    for part in (document.get("message"), document.get("data")):
        response = part.get("response") if isinstance(part, dict) else None
        if isinstance(response, dict):
            response = [response]
        if isinstance(response, list):
            yield tuple(_item_of(outcome) for outcome in response)


def _item_of(outcome: dict[str, Any]) -> tuple[str, str]:
    [found, *_] = [value for name in _IDS if (value := outcome.get(name)) is not None]
    description = outcome.get("Description")
    return str(found), "" if description is None else str(description)


def check_frames(data: bytes) -> None:
    """However it is cut, a stream is divided in one way, and each message is the one that the library reads."""
    stream, cut = data[1:], data[0] * len(data) // 256 if data else 0
    whole = _divided([stream])
    assert _divided([stream[:cut], stream[cut:]]) == whole
    taken, passed = whole
    read = list(_library_reads(stream))
    assert taken[: len(read)] == read
    assert sum(len(payload) for _, payload in taken) + len(passed) <= len(stream)


def _divided(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], bytes]:
    taken: list[tuple[int, bytes]] = []
    passed = bytearray()

    def take(first: int, payload: bytes) -> bool:
        taken.append((first, payload))
        return True

    frames = Frames(take, passed.extend)
    for piece in pieces:
        frames.feed(piece)
    frames.end()
    return taken, bytes(passed)


def _library_reads(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the plain frames that the library reads, up to the first one that it refuses or that is not whole."""
    reader = StreamReader()
    reader.feed_data(stream)
    while frame := _read(reader, mask=False):
        if frame.fin and frame.opcode in _KINDS and len(frame.data) <= _LARGEST_PLAIN:
            yield _KINDS[frame.opcode], bytes(frame.data)


def _read(reader: StreamReader, *, mask: bool) -> Frame | None:
    try:
        next(Frame.parse(reader.read_exact, mask=mask))
    except StopIteration as done:
        frame: Frame = done.value
        return frame
    except ProtocolError:
        return None
    return None


def check_masked(data: bytes) -> None:
    """What is sent, with any key, is the frame that the library's parser reads."""
    key, times, payload = data[:4].ljust(4, b"\0"), data[4:5], data[5:]
    payload *= times[0] + 1 if times else 1
    for first, opcode in ((TEXT, Opcode.TEXT), (PING, Opcode.PING)):
        sent = payload if first == TEXT else payload[:125]
        reader = StreamReader()
        reader.feed_data(masked(first, sent, key))
        assert _read(reader, mask=True) == Frame(opcode, sent)
        assert not reader.buffer


def check_http_answer(data: bytes) -> None:
    """Any answer to a handshake is one that opens a websocket, or is told in few words with a bounded pause."""
    answer = read_answer(data)
    if answer is not None:
        text, kept = answer.told(_NOW)
        assert text.isprintable()
        assert len(text) <= _LONGEST_REASON
        assert 0 <= kept <= LONGEST_PAUSE


TARGETS = (
    Target(
        "lcm-reply",
        check_reply,
        (b'"OutComeID":"7"', b'"OutcomeID":7', b'"Description":"x"', b'"message":{}', b'"data":{"response":[]}',
         b'"errorType":"WS_Error"', b'"success":false', b'"msg":"OK"', b'"topic":"Error"', b'"subTopic":'),
    ),
    Target("lcm-frames", check_frames, (b"\x81\x01a", b"\x82\x00", b"\x8a\x00", b"\x89\x00", b"\x88\x00", b"\x81\x7e")),
    Target("lcm-masked", check_masked),
    Target(
        "http-answer",
        check_http_answer,
        (b"HTTP/1.1 503 ", b"HTTP/1.0 429\r", b"\r\nRetry-After: ", b"Wed, 31 Dec 9999 23:59:59 -2359", b"101"),
    ),
)  # fmt: skip
