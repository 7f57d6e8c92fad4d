"""What travels over the broker, free of any AMQP library's types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from worker.common.callbacks import always

MILLISECONDS_HEADER = "timestamp_in_ms"
"""When a message was published, in milliseconds since 1970: RabbitMQ's own name, which its plugins set as well."""

_YEAR_10000 = 253_402_300_800_000  # in milliseconds since 1970


class Properties(msgspec.Struct, frozen=True):
    """The AMQP 0-9-1 basic properties, by their own names. `None` is absent.

    `user_id` was verified by the broker. What is published has always that of the connection.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] = {}
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    message_type: str | None = None
    app_id: str | None = None
    user_id: str | None = None

    @property
    def published_at(self) -> datetime | None:
        """When the message was published, where it tells: by the header, since `timestamp` counts whole seconds."""
        milliseconds = self.headers.get(MILLISECONDS_HEADER)
        if type(milliseconds) is int and 0 <= milliseconds < _YEAR_10000:
            return datetime.fromtimestamp(milliseconds / 1000, UTC)
        return self.timestamp


PROPERTY_NAMES = tuple(name for name in Properties.__struct_fields__ if name != "headers")
"""The names of all properties but the headers, which are the names that AMQP libraries use, too."""


class Delivery(msgspec.Struct):
    """One message that the broker delivered and that waits to be settled.

    `delivery_count` is how often it came back without being settled, over all its deferred copies.

    `is_current` turns false when the channel that brought it is gone: from then on it can't be settled, the
    broker delivers it again, and whatever is done for it is done in vain.
    """

    body: bytes
    properties: Properties = msgspec.field(default_factory=Properties)
    redelivered: bool = False
    tag: int = 0
    delivery_count: int = 0
    is_current: Callable[[], bool] = always


class Message(msgspec.Struct, frozen=True):
    """One message to publish: persistent, mandatory, and done only once the broker confirmed it."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Properties
