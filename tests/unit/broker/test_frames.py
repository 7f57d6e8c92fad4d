"""What a connection receives is divided into frames, of which those that are claimed are handled as they arrive."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pamqp.frame
import pytest
from aiormq import spec
from hypothesis import given
from hypothesis import strategies as st
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from worker.broker.frames import DELIVER, Frames, OnContent, content_frames

OURS, OTHER = 1, 2
MIB = 2**20
HEARTBEAT = Heartbeat().marshal()


def method(frame: Frame, channel: int) -> bytes:
    """Return a method frame."""
    return pamqp.frame.marshal(frame, channel)


def delivery(channel: int, tag: int, *parts: bytes) -> list[bytes]:
    """Return the frames of a delivery whose body comes in these parts."""
    deliver = spec.Basic.Deliver(consumer_tag="c", delivery_tag=tag, exchange="x", routing_key="k")
    header = ContentHeader(
        body_size=sum(map(len, parts)), properties=spec.Basic.Properties(message_id=f"m-{tag}")
    )
    frames: list[Frame | ContentHeader | ContentBody] = [deliver, header, *map(ContentBody, parts)]
    return [pamqp.frame.marshal(frame, channel) for frame in frames]


class Reader:
    """Claims the deliveries of one channel; what is passed on is the library's."""

    def __init__(self) -> None:
        self.passed = b""
        self.taken: list[tuple[str | None, bytes]] = []
        self.frames = Frames(self._pass_on)
        self.frames.claim(OURS, self._method)
        self.on_taken: Callable[[], object] = lambda: None

    def _pass_on(self, data: bytes) -> None:
        # Those that stand for frames of ours come by the clock.
        self.passed += data if data != HEARTBEAT else b""

    def _method(self, payload: bytes) -> OnContent | bool:
        return self._take if payload.startswith(DELIVER) else False

    def _take(self, header: ContentHeader, body: bytes) -> None:
        self.taken.append((header.properties.message_id, body))
        self.on_taken()


@given(st.data())
def test_frames_are_the_same_however_they_are_cut(data: st.DataObject) -> None:
    """Contents of two channels may alternate frame by frame, and a read may end anywhere."""
    bodies = st.lists(st.binary(min_size=1, max_size=30), max_size=3)
    ours = [data.draw(bodies) for _ in range(3)]
    mine = [frame for tag, parts in enumerate(ours) for frame in delivery(OURS, tag, *parts)]
    foreign = [frame for tag in range(3) for frame in delivery(OTHER, tag, b"foreign")]
    mine.insert(
        data.draw(st.sampled_from([0, len(mine)])), method(spec.Basic.CancelOk(consumer_tag="c"), OURS)
    )
    stream, left, right = b"", list(mine), list(foreign)
    while left or right:
        from_left = bool(left) and (not right or data.draw(st.booleans()))
        stream += (left if from_left else right).pop(0)
    reader = Reader()
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        reader.frames.feed(stream[:cut])
        stream = stream[cut:]
    assert reader.taken == [(f"m-{tag}", b"".join(parts)) for tag, parts in enumerate(ours)]
    cancel_ok = method(spec.Basic.CancelOk(consumer_tag="c"), OURS)
    assert reader.passed.replace(cancel_ok, b"") == b"".join(foreign)
    assert cancel_ok in reader.passed


def test_the_library_gets_a_heartbeat_in_place_of_the_frames_that_it_does_not_see() -> None:
    """It would take a busy connection for a dead one: the broker sends no heartbeats beside other frames."""
    passed: list[bytes] = []
    frames = Frames(passed.append)
    frames.claim(OURS, lambda _payload: lambda _header, _body: None)
    frames.feed(b"".join(delivery(OURS, 1, b"{}")))
    assert passed == [HEARTBEAT]
    frames.feed(b"".join(delivery(OURS, 2, b"{}")))
    assert passed == [HEARTBEAT]  # not more than one in a second


def test_what_is_held_is_handled_later() -> None:
    """Reading can stop between two deliveries that came together: the second one waits."""
    reader = Reader()

    def hold() -> None:
        reader.frames.held = True

    reader.on_taken = hold
    reader.frames.feed(b"".join(delivery(OURS, 1, b"a") + delivery(OURS, 2, b"b") + delivery(OTHER, 3)))
    reader.frames.feed(HEARTBEAT + method(spec.Basic.QosOk(), OURS))
    assert [body for _, body in reader.taken] == [b"a"]
    assert reader.passed == b""
    reader.frames.held, reader.on_taken = False, lambda: None
    reader.frames.feed()
    assert [body for _, body in reader.taken] == [b"a", b"b"]
    assert reader.passed == b"".join(delivery(OTHER, 3)) + HEARTBEAT + method(spec.Basic.QosOk(), OURS)


@pytest.mark.parametrize(
    "words", [b"AMQP\x00\x00\x09\x01", b"H", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03"]
)
def test_what_is_no_frame_is_passed_on_as_it_is(words: bytes) -> None:
    """The library refuses a peer that does not speak AMQP, and waits for nothing more of it to do so."""
    reader = Reader()
    reader.frames.feed(HEARTBEAT + words[:1])
    reader.frames.feed(words[1:])
    assert reader.passed == HEARTBEAT + words


def test_a_frame_without_its_end_is_passed_on() -> None:
    """What is out of step is no delivery, even on a channel that is claimed: the library gives up the connection."""
    reader = Reader()
    frames = delivery(OURS, 1, b"a")
    frames[-1] = frames[-1][:-1] + b"\x00"
    reader.frames.feed(b"".join(frames) + HEARTBEAT)
    assert reader.taken == []
    assert reader.passed == frames[-1] + HEARTBEAT


def test_of_a_connection_that_is_gone_nothing_is_handled() -> None:
    """What was held is delivered again, and the library takes no more once it knows the end."""
    reader = Reader()
    reader.frames.held = True
    reader.frames.feed(b"".join(delivery(OURS, 1, b"a") + delivery(OTHER, 2)))
    reader.frames.end()
    reader.frames.held = False
    reader.frames.feed()
    assert reader.taken == []
    assert reader.passed == b""


@pytest.mark.parametrize("end", [spec.Channel.Close(320, "bye", 0, 0), spec.Channel.CloseOk()])
def test_a_channel_s_claim_ends_with_the_channel(end: Frame) -> None:
    """Its number may be given to another channel, whose frames are the library's."""
    reader = Reader()
    later = b"".join([method(end, OURS), *delivery(OURS, 1, b"a")])
    reader.frames.feed(later)
    assert reader.taken == []
    assert reader.passed == later


def test_a_frame_without_a_claim_costs_the_library_nothing_it_had_before() -> None:
    """Frames of channel 0 and of channels that nobody claims arrive byte for byte, also a large one in pieces."""
    reader = Reader()
    large = pamqp.frame.marshal(ContentBody(bytes(100_000)), OTHER)
    for start in range(0, len(large), 1000):
        reader.frames.feed(large[start : start + 1000])
    assert reader.passed == large
    head = struct.Struct(">BHI").unpack_from(reader.passed)
    assert head == (3, OTHER, 100_000)


@pytest.mark.parametrize("channel", [OURS, OTHER])
@pytest.mark.parametrize(
    ("frame_max", "most"), [(None, 128 * 1024), (4096, 4096), (2**32 - 1, 512 * MIB), (0, 512 * MIB)]
)
def test_a_frame_has_as_many_bytes_as_were_agreed_on(frame_max: int | None, most: int, channel: int) -> None:
    """One that is larger is refused by its head, and nothing of it is waited for; before tuning it has 128 KiB."""
    for size in (most - 1, most, most + 1):
        reader = Reader()
        if frame_max is not None:
            reader.frames.tune(frame_max)
        received = struct.pack(">BHI", 3, channel, size - 8) + bytes(min(size - 8, MIB)) + b"\xce"
        if size > most:
            with pytest.raises(ValueError, match=f"a frame of {size} bytes, where {most} is the most"):
                reader.frames.feed(received[:8])
            with pytest.raises(ValueError, match="a frame of"):
                reader.frames.feed(received)
        else:
            reader.frames.feed(received)


@pytest.mark.parametrize("channel", [OURS, OTHER], ids=["claimed", "the-library-s"])
@pytest.mark.parametrize("size", [512 * MIB - 1, 512 * MIB, 512 * MIB + 1, 2**60])
def test_a_body_is_as_large_as_rabbitmq_takes(size: int, channel: int) -> None:
    """A delivery that announces more is refused by its header, whoever it is for."""
    reader = Reader()
    frames = delivery(channel, 1)[0] + pamqp.frame.marshal(ContentHeader(body_size=size), channel)
    if size > 512 * MIB:
        with pytest.raises(ValueError, match=f"a body of {size} bytes, where 536870912 is the most"):
            reader.frames.feed(frames)
    else:
        reader.frames.feed(frames)
        assert reader.passed == (frames if channel == OTHER else b"")


@pytest.mark.parametrize(
    ("frame_max", "sizes"), [(0, [20_001]), (4096, [4088] * 4 + [3649]), (20_009, [20_001])]
)
def test_a_content_is_written_as_the_library_writes_it(frame_max: int, sizes: list[int]) -> None:
    """A header and a body, which is divided so that each frame with what is around it has `frame_max` bytes at most."""
    body = bytes(number % 251 for number in range(20_001))
    properties = spec.Basic.Properties(message_id="m-1", headers={"a": "b"})
    header = ContentHeader(body_size=len(body), properties=properties)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    parts = [ContentBody(body[start : start + size]) for start, size in zip(starts, sizes, strict=True)]
    written = [pamqp.frame.marshal(header, 7), *(pamqp.frame.marshal(part, 7) for part in parts)]
    assert content_frames(7, properties.marshal(), body, frame_max) == b"".join(written)


def test_an_empty_body_has_no_frame() -> None:
    """Of a message without a body only the header is written."""
    properties = spec.Basic.Properties()
    expected = pamqp.frame.marshal(ContentHeader(body_size=0, properties=properties), 7)
    for frame_max in (0, 4096):
        assert content_frames(7, properties.marshal(), b"", frame_max) == expected
