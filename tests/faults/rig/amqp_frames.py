"""AMQP 0-9-1 as a proxy sees it: frames with their meaning, what each ack settles, and which frame is meant."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pamqp import frame as wire
from pamqp.exceptions import UnmarshalingException
from pamqp.header import ContentHeader

from tests.faults.rig.job_ids import job_id_of
from tests.support.wire.record import FROM_WORKER, TO_WORKER, Direction, Match

_METHOD, _HEARTBEAT = 1, 8
_OVERHEAD = 8  # type, channel and size before the payload, one byte behind it
_WITH_CONTENT = {"basic.publish", "basic.deliver", "basic.return", "basic.getok"}
_SETTLING = {"basic.ack", "basic.nack", "basic.reject"}


@dataclass(slots=True, eq=False)
class Content:
    """One message on the wire; each is itself alone, however equal its fields are.

    `job_id` is that of the job it is or tells of. `returned`: the broker found no queue for it.
    """

    exchange: str = ""
    routing_key: str = ""
    redelivered: bool = False
    message_id: str = ""
    correlation_id: str = ""
    job_id: str = ""
    returned: bool = False


class AmqpFrame(NamedTuple):
    """One frame. `kind` is the method's name in lower case, or header, body, heartbeat, protocol or unreadable.

    The frames of one message share its `content`, complete from the first of them on. `tag` and `multiple` are
    those of the method; `settles` the messages that an ack, nack or reject speaks of: publishes where the broker
    says it, deliveries where the worker does. `text` is why a channel or connection is closed or blocked.
    """

    kind: str
    direction: Direction
    channel: int = 0
    tag: int = 0
    multiple: bool = False
    content: Content | None = None
    settles: tuple[Content, ...] = ()
    text: str = ""


@dataclass(slots=True)
class _Unfinished:
    """A message whose frames are still coming."""

    method: str
    tag: int
    content: Content
    size: int = -1  # of the body, once the header has told
    message_type: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


class _Side:
    """One direction of one connection: bytes in, whole frames out."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.waiting: list[tuple[AmqpFrame, bytes]] = []
        self.unfinished: dict[int, _Unfinished] = {}

    def next_raw(self) -> bytes | None:
        if len(self.buffer) < _OVERHEAD:
            return None
        protocol = self.buffer.startswith(b"AMQP")
        size = 8 if protocol else _OVERHEAD + int.from_bytes(self.buffer[3:7])
        if len(self.buffer) < size:
            return None
        raw = bytes(self.buffer[:size])
        del self.buffer[:size]
        return raw


class AmqpConversation:
    """One connection, both ways."""

    def __init__(self) -> None:
        self._sides = {direction: _Side() for direction in Direction}
        self._published: dict[int, int] = {}  # by channel with confirms: how many
        self._unsettled: dict[tuple[Direction, int], dict[int, Content]] = defaultdict(dict)

    def feed(self, direction: Direction, data: bytes) -> list[tuple[AmqpFrame, bytes]]:
        """Return the frames that are whole now, each with its bytes; those of a message come together."""
        side = self._sides[direction]
        side.buffer += data
        while (raw := side.next_raw()) is not None:
            side.waiting.append((self._read(side, direction, raw), raw))
        if side.unfinished:
            return []
        frames, side.waiting = side.waiting, []
        return frames

    def rest(self, direction: Direction) -> bytes:
        """Return the bytes that never became a whole frame or message."""
        side = self._sides[direction]
        return b"".join([*(raw for _, raw in side.waiting), bytes(side.buffer)])

    def _read(self, side: _Side, direction: Direction, raw: bytes) -> AmqpFrame:
        if raw.startswith(b"AMQP"):
            return AmqpFrame("protocol", direction)
        channel = int.from_bytes(raw[1:3])
        if raw[0] == _HEARTBEAT:
            return AmqpFrame("heartbeat", direction, channel)
        try:
            read: Any = wire.unmarshal(raw)[2]
        except (UnmarshalingException, ValueError):
            return AmqpFrame("unreadable", direction, channel)
        if raw[0] == _METHOD:
            return self._method(side, direction, channel, read)
        if channel not in side.unfinished:
            return AmqpFrame("unreadable", direction, channel)
        return self._part(side, direction, channel, read)

    def _part(self, side: _Side, direction: Direction, channel: int, read: Any) -> AmqpFrame:
        message = side.unfinished[channel]
        if isinstance(read, ContentHeader):
            _take_header(message, read)
            kind = "header"
        else:
            message.body += read.value
            kind = "body"
        return AmqpFrame(kind, direction, channel, content=self._progress(side, direction, channel))

    def _method(self, side: _Side, direction: Direction, channel: int, method: Any) -> AmqpFrame:
        kind = method.name.lower()
        tag = getattr(method, "delivery_tag", None) or 0
        if kind in _WITH_CONTENT:
            content = Content(
                method.exchange, method.routing_key, bool(getattr(method, "redelivered", False))
            )
            side.unfinished[channel] = _Unfinished(kind, tag, content)
            return AmqpFrame(kind, direction, channel, tag, content=content)
        if kind == "confirm.select":
            self._published[channel] = 0
        if kind in {"channel.open", "channel.close", "channel.closeok"}:
            self._forget(channel)
        multiple = bool(getattr(method, "multiple", False))
        settles = self._settled(direction, channel, tag, multiple) if kind in _SETTLING else ()
        text = getattr(method, "reply_text", "") or getattr(method, "reason", "") or ""
        return AmqpFrame(kind, direction, channel, tag, multiple, None, settles, text)

    def _progress(self, side: _Side, direction: Direction, channel: int) -> Content:
        """Return the message that a frame belongs to, and finish it with its last one."""
        message = side.unfinished[channel]
        content = message.content
        if len(message.body) < message.size:
            return content
        del side.unfinished[channel]
        content.job_id = job_id_of(
            bytes(message.body),
            message_type=message.message_type,
            message_id=content.message_id or None,
            headers=message.headers,
        )
        if message.method == "basic.publish" and channel in self._published:
            self._published[channel] += 1
            self._unsettled[FROM_WORKER, channel][self._published[channel]] = content
        elif message.method in {"basic.deliver", "basic.getok"}:
            self._unsettled[direction, channel][message.tag] = content
        elif message.method == "basic.return":
            self._returned(channel, content)
        return content

    def _settled(self, said: Direction, channel: int, tag: int, multiple: bool) -> tuple[Content, ...]:
        open_ones = self._unsettled[TO_WORKER if said is FROM_WORKER else FROM_WORKER, channel]
        tags = [number for number in open_ones if number <= tag or tag == 0] if multiple else [tag]
        return tuple(open_ones.pop(number) for number in tags if number in open_ones)

    def _returned(self, channel: int, returned: Content) -> None:
        for published in self._unsettled[FROM_WORKER, channel].values():
            if published.message_id == returned.message_id and not published.returned:
                published.returned = True
                return

    def _forget(self, channel: int) -> None:
        self._published.pop(channel, None)
        for direction in Direction:
            self._unsettled.pop((direction, channel), None)


def _take_header(message: _Unfinished, header: Any) -> None:
    message.size = header.body_size
    message.message_type = header.properties.message_type
    message.headers = header.properties.headers or {}
    message.content.message_id = header.properties.message_id or ""
    message.content.correlation_id = header.properties.correlation_id or ""


def is_method(kind: str) -> Match:
    """Match a method by its name, such as `channel.close`, whoever sends it."""
    return lambda frame: bool(frame.kind == kind)


def is_publish(*, exchange_suffix: str = "", job_id: str | None = None) -> Match:
    """Match the worker's basic.publish, which the message's header and body follow."""
    return lambda frame: frame.kind == "basic.publish" and bool(_fits(frame.content, exchange_suffix, job_id))


def is_delivery(*, job_id: str | None = None, redelivered: bool | None = None) -> Match:
    """Match a basic.deliver to the worker."""
    return lambda frame: (
        frame.kind == "basic.deliver"
        and _fits(frame.content, "", job_id)
        and redelivered in {None, frame.content.redelivered}
    )


def is_return(*, job_id: str | None = None) -> Match:
    """Match a basic.return to the worker."""
    return lambda frame: frame.kind == "basic.return" and _fits(frame.content, "", job_id)


def is_confirm(*, exchange_suffix: str = "", job_id: str | None = None) -> Match:
    """Match the broker's basic.ack of a publish, or of several of which at least one fits."""
    return lambda frame: (
        frame.kind == "basic.ack"
        and frame.direction is TO_WORKER
        and any(_fits(content, exchange_suffix, job_id) for content in frame.settles)
    )


def confirms_the(nth: int, *, exchange_suffix: str = "") -> Match:
    """Match the broker's basic.ack by which the n-th publish from now on that fits is confirmed, for one hold.

    Counted are publishes, not frames: on a busy machine one frame confirms many.
    """
    confirmed = 0

    def match(frame: Any) -> bool:
        nonlocal confirmed
        if not is_confirm(exchange_suffix=exchange_suffix)(frame):
            return False
        confirmed += sum(_fits(content, exchange_suffix, None) for content in frame.settles)
        return confirmed >= nth

    return match


def is_refusal(*, exchange_suffix: str = "", job_id: str | None = None) -> Match:
    """Match the broker's basic.nack of a publish that fits."""
    return lambda frame: (
        frame.kind == "basic.nack"
        and frame.direction is TO_WORKER
        and any(_fits(content, exchange_suffix, job_id) for content in frame.settles)
    )


def is_client_ack(*, job_id: str | None = None) -> Match:
    """Match the worker's basic.ack of a delivery."""
    return lambda frame: (
        frame.kind == "basic.ack"
        and frame.direction is FROM_WORKER
        and (job_id is None or any(content.job_id == job_id for content in frame.settles))
    )


def _fits(content: Content | None, exchange_suffix: str, job_id: str | None) -> bool:
    return (
        content is not None
        and content.exchange.endswith(exchange_suffix)
        and (job_id is None or content.job_id == job_id)
    )
