"""What travels over the broker, free of any AMQP library's types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(slots=True, frozen=True)
class Properties:
    """The AMQP 0-9-1 basic properties, by their own names. `None` is absent."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    message_type: str | None = None
    app_id: str | None = None


def _always() -> bool:
    return True


@dataclass(slots=True)
class Delivery:
    """One message that the broker handed over and that waits to be settled.

    `returns` is how often it came back without being settled, over all copies that were put off.

    `is_current` turns false when the channel that brought it is gone: from then on it can't be settled, the
    broker hands it out again, and whatever is done for it is done in vain.
    """

    body: bytes
    properties: Properties = field(default_factory=Properties)
    redelivered: bool = False
    tag: int = 0
    returns: int = 0
    is_current: Callable[[], bool] = _always


@dataclass(slots=True, frozen=True)
class Message:
    """One message to publish: persistent, mandatory, and done only once the broker confirmed it."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Properties
