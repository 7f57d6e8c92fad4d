"""Turns the library's messages into ours, and our properties into the library's."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Protocol

from pamqp.header import ContentHeader
from yarl import URL

from worker.broker.fields import WritableProperties
from worker.common.callbacks import always
from worker.contract.job import DELIVERY_COUNT_HEADER
from worker.contract.job_copies import without_own_headers
from worker.contract.message import Delivery, Properties

PERSISTENT, TRANSIENT = 2, 1
BROKER_COUNT_HEADER = "x-delivery-count"


class Received(Protocol):
    """A message as it was received, by way of the library or not."""

    @property
    def header(self) -> ContentHeader: ...
    @property
    def body(self) -> bytes: ...
    @property
    def delivery_tag(self) -> int | None: ...
    @property
    def redelivered(self) -> bool | None: ...


def delivery_of(
    message: Received,
    is_current: Callable[[], bool] = always,
    *,
    own_users: Container[str | None] | None = None,
) -> Delivery:
    """Return a message as a Delivery; `is_current` as there.

    Headers of ours count only on messages of `own_users`, which the broker has verified, and so does the broker's
    delivery count only where it says `redelivered`: anybody can send such headers. None trusts all.
    """
    properties = message.header.properties
    headers: Mapping[str, Any] = properties.headers or {}
    if headers and own_users is not None:
        if properties.user_id not in own_users:
            headers = without_own_headers(headers)
        if not message.redelivered and BROKER_COUNT_HEADER in headers:
            headers = {name: value for name, value in headers.items() if name != BROKER_COUNT_HEADER}
    return Delivery(
        body=message.body,
        properties=Properties(
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
            headers=headers,
            priority=properties.priority,
            correlation_id=properties.correlation_id,
            reply_to=properties.reply_to,
            message_id=properties.message_id,
            timestamp=properties.timestamp,
            message_type=properties.message_type,
            app_id=properties.app_id,
            user_id=properties.user_id,
        ),
        redelivered=bool(message.redelivered),
        tag=message.delivery_tag or 0,
        delivery_count=_delivery_count(headers),
        is_current=is_current,
    )


def own_users(urls: Iterable[str]) -> frozenset[str | None]:
    """Return the users on whose messages headers of ours count: those of `broker.url`."""
    return frozenset(URL(url).user for url in urls)


def amqp_properties(
    properties: Properties, *, user_id: str | None, delivery_mode: int = PERSISTENT
) -> WritableProperties:
    """Return properties as the library writes them; `user_id` is the connection's, which the broker verifies."""
    return WritableProperties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=dict(properties.headers),
        delivery_mode=delivery_mode,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        message_type=properties.message_type,
        user_id=user_id,
        app_id=properties.app_id,
    )


def _delivery_count(headers: Mapping[str, Any]) -> int:
    """Add up how often it came back, as the broker counts and, for earlier copies of a deferred job, its header."""
    counts = (headers.get(name) for name in (BROKER_COUNT_HEADER, DELIVERY_COUNT_HEADER))
    return sum(count for count in counts if type(count) is int and count > 0)
