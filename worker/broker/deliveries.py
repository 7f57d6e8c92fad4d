"""The deliveries of one channel, each handed over as it arrives, without a task of its own."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from aiormq.abc import AbstractChannel
from pamqp.header import ContentHeader

from worker.broker.connection import socket_of
from worker.broker.frames import DELIVER, OnContent
from worker.common.callbacks import ignore

_TAG_AND_REDELIVERED = struct.Struct(">Q?")


@dataclass(slots=True)
class Arrival:
    """A message that was delivered; `header.properties` are the library's."""

    header: ContentHeader
    body: bytes
    delivery_tag: int
    redelivered: bool


Take = Callable[[Arrival], object]
"""Called with each delivery; it does not wait, and never raises."""


class Deliveries:
    """Consumes queues on one channel. All consumers of the channel must be made here.

    So deliveries are handed over in the order of their tags, and an acknowledgement of all up to one tag includes none
    that nobody knows of.
    """

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self._consumers: dict[bytes, Take] = {}
        socket_of(channel).frames.claim(channel.number, self._on_method)

    async def consume(
        self, queue: str, take: Take, arguments: Mapping[str, Any] = MappingProxyType({})
    ) -> str:
        """Have the messages of a queue delivered to `take`; return the consumer's tag. Raises what the library does."""
        tag = uuid4().hex
        # Before the broker is asked: the first delivery may come with its answer.
        self._consumers[tag.encode()] = take
        given = {"no_ack": False, "consumer_tag": tag, "arguments": dict(arguments)}
        await self._channel.basic_consume(queue, ignore, **given)  # type: ignore[arg-type]
        return tag

    def _on_method(self, payload: bytes) -> OnContent | bool:
        if not payload.startswith(DELIVER):
            return False
        start = len(DELIVER) + 1
        end = start + payload[start - 1]
        take = self._consumers.get(payload[start:end])
        if take is None:
            return False
        delivery_tag, redelivered = _TAG_AND_REDELIVERED.unpack_from(payload, end)
        return lambda header, body: take(Arrival(header, body, delivery_tag, redelivered))
