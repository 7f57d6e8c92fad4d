"""What a session receives is divided into frames; plain ones may be taken, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from worker.lcm.frames import BINARY, PING, PONG, TEXT, Frames, masked

LARGE = 70_000


def written(frame: Frame) -> bytes:
    """Return a frame as a server sends it."""
    return frame.serialize(mask=False)


def divided(
    stream: bytes, cuts: list[int], wants: Callable[[int, bytes], bool]
) -> tuple[list[tuple[int, bytes]], bytes, list[bytes]]:
    """Feed a stream in pieces; return what was taken, what was passed on, and both in their order."""
    taken: list[tuple[int, bytes]] = []
    order: list[bytes] = []
    passed = bytearray()

    def take(first: int, payload: bytes) -> bool:
        if wants(first, payload):
            taken.append((first, payload))
            order.append(payload)
            return True
        return False

    def pass_on(data: bytes) -> None:
        passed.extend(data)
        order.append(data)

    frames = Frames(take, pass_on)
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        frames.feed(stream[start:end])
    frames.end()
    return taken, bytes(passed), order


FRAMES = st.lists(
    st.one_of(
        st.builds(Frame, st.sampled_from([Opcode.TEXT, Opcode.BINARY]), st.binary(max_size=300)),
        st.builds(Frame, st.just(Opcode.TEXT), st.binary(max_size=30), st.just(False)),
        st.builds(Frame, st.just(Opcode.CONT), st.binary(max_size=30), st.booleans()),
        st.builds(Frame, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=20)),
        st.just(Frame(Opcode.CLOSE, Close(1000, "bye").serialize())),
        st.just(Frame(Opcode.TEXT, bytes(LARGE))),
    ),
    max_size=8,
)


@given(FRAMES, st.data())
def test_frames_are_the_same_however_they_are_cut(frames: list[Frame], data: st.DataObject) -> None:
    """Plain frames are taken, whole and in order; all others go on byte for byte."""
    stream = b"".join(map(written, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    plain = {Opcode.TEXT: TEXT, Opcode.BINARY: BINARY, Opcode.PONG: PONG}
    mine = [frame for frame in frames if frame.fin and frame.opcode in plain and len(frame.data) < LARGE]
    taken, passed, _ = divided(stream, cuts, lambda _first, _payload: True)
    assert taken == [(plain[frame.opcode], bytes(frame.data)) for frame in mine]
    assert passed == b"".join(written(frame) for frame in frames if frame not in mine)


@given(FRAMES, st.data())
def test_what_is_not_taken_goes_on(frames: list[Frame], data: st.DataObject) -> None:
    """Where nothing is wanted, the library is given the very stream, also a frame that is cut off at the end."""
    stream = b"".join(map(written, frames))[: data.draw(st.integers(0, 2 * LARGE))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    taken, passed, _ = divided(stream, cuts, lambda _first, _payload: False)
    assert taken == []
    assert passed == stream


def test_the_order_is_kept() -> None:
    """A frame that goes on comes before the plain one behind it, and after the one ahead of it."""
    frames = [Frame(Opcode.TEXT, b"1"), Frame(Opcode.PING, b"2"), Frame(Opcode.TEXT, b"3")]
    stream = b"".join(map(written, frames))
    _, _, order = divided(stream, [], lambda _first, _payload: True)
    assert order == [b"1", written(frames[1]), b"3"]


@pytest.mark.parametrize(
    "header",
    [b"\x81\x85mask", b"\xc1\x05hello", b"\x83\x05hello", b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"],
    ids=["masked", "reserved bit", "reserved opcode", "longer than anything"],
)
def test_what_is_no_plain_frame_goes_on_at_once(header: bytes) -> None:
    """The library refuses it by its header; nothing is kept until the rest has come."""
    passed = bytearray()
    frames = Frames(lambda _first, _payload: True, passed.extend)
    frames.feed(header)
    assert bytes(passed) == header


@pytest.mark.parametrize(
    ("first", "opcode", "size"),
    [
        *((TEXT, Opcode.TEXT, size) for size in (0, 1, 3, 4, 125, 126, 127, 65_535, 65_536, 70_001)),
        (PING, Opcode.PING, 8),
    ],
)
def test_what_is_masked_is_read_by_the_library(first: int, opcode: Opcode, size: int) -> None:
    """A frame of any size is the one that the library reads from a client, whatever its key."""
    payload = bytes(number % 251 for number in range(size))
    reader = StreamReader()
    reader.feed_data(masked(first, payload, b"\x00\xffk\x01"))
    reading = Frame.parse(reader.read_exact, mask=True)
    with pytest.raises(StopIteration) as done:
        next(reading)
    assert done.value.value == Frame(opcode, payload)
    assert not reader.buffer
