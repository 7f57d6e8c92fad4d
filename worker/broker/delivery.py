"""A message of the library's as a delivery of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiormq.abc import DeliveredMessage

from worker.job import RETURNS_HEADER
from worker.message import Delivery, Properties


def delivery_of(message: DeliveredMessage, is_current: Callable[[], bool]) -> Delivery:
    properties = message.header.properties
    return Delivery(
        body=message.body,
        properties=Properties(
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
            headers=properties.headers or {},
            priority=properties.priority,
            correlation_id=properties.correlation_id,
            reply_to=properties.reply_to,
            message_id=properties.message_id,
            timestamp=properties.timestamp,
            message_type=properties.message_type,
            app_id=properties.app_id,
        ),
        redelivered=bool(message.redelivered),
        tag=message.delivery_tag or 0,
        returns=_returns(properties.headers or {}),
        is_current=is_current,
    )


def _returns(headers: Mapping[str, Any]) -> int:
    """Add up how often the broker and, before a copy was put off, its predecessors say that it came back."""
    counts = (headers.get(name) for name in ("x-delivery-count", RETURNS_HEADER))
    return sum(count for count in counts if type(count) is int and count > 0)
