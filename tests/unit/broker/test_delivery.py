"""A message of the library's is ours in every property, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiormq import spec
from aiormq.abc import DeliveredMessage

from worker.broker.delivery import PERSISTENT, TRANSIENT, amqp_properties, delivery_of
from worker.contract.job import DELIVERY_COUNT_HEADER
from worker.contract.message import PROPERTY_NAMES, Properties

EVERY_PROPERTY: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "priority": 4,
    "correlation_id": "call-1",
    "reply_to": "dialer.1",
    "message_id": "m-1",
    "timestamp": datetime(2026, 1, 31, 12, tzinfo=UTC),
    "message_type": "lcm.outcome.job.v1",
    "app_id": "dialer",
    "user_id": "guest",
}
HEADERS = {"traceparent": "00-1-2-03"}


def message(
    properties: spec.Basic.Properties | None = None, *, body: bytes = b"{}", **delivery: Any
) -> DeliveredMessage:
    """Return what the library gives to a consumer."""
    fields = {"redelivered": False, "delivery_tag": 1} | delivery
    header = SimpleNamespace(properties=properties or spec.Basic.Properties())
    return cast(DeliveredMessage, SimpleNamespace(body=body, header=header, **fields))


def counted(**headers: object) -> int:
    """Return the delivery count of a message with these headers."""
    return delivery_of(message(spec.Basic.Properties(headers=cast(Any, headers)))).delivery_count


def test_every_property_is_listed_here() -> None:
    """What is tested below is all that a message can have."""
    assert EVERY_PROPERTY.keys() == set(PROPERTY_NAMES)


def test_a_delivery_has_every_property() -> None:
    """Each property of the message is found under the same name, with its headers."""
    found = delivery_of(message(spec.Basic.Properties(headers=cast(Any, HEADERS), **EVERY_PROPERTY)))
    assert found.properties == Properties(headers=HEADERS, **EVERY_PROPERTY)


@pytest.mark.parametrize("name", EVERY_PROPERTY)
def test_each_property_goes_both_ways(name: str) -> None:
    """One property alone is written and read back as it was, and all others are absent."""
    sent = Properties(**{name: EVERY_PROPERTY[name]})
    written = amqp_properties(sent, user_id=sent.user_id)
    assert getattr(written, name) == EVERY_PROPERTY[name]
    assert delivery_of(message(written)).properties == sent


def test_a_message_without_properties_has_none() -> None:
    """What a producer leaves out is absent, and the headers are empty."""
    assert delivery_of(message()).properties == Properties()


def test_a_delivery_knows_how_it_came() -> None:
    """Body, tag and the broker's word on whether it is a repeat are kept."""
    found = delivery_of(message(body=b"\x00", redelivered=True, delivery_tag=7))
    assert (found.body, found.tag, found.redelivered) == (b"\x00", 7, True)
    found = delivery_of(message(redelivered=None, delivery_tag=None))
    assert (found.tag, found.redelivered) == (0, False)


def test_a_delivery_asks_whether_it_is_current() -> None:
    """The question goes to whoever knows the channel; without one the delivery stays current."""
    current = [True]
    found = delivery_of(message(), lambda: current[0])
    assert found.is_current()
    current[0] = False
    assert not found.is_current()
    assert delivery_of(message()).is_current()


def test_returns_add_up_over_copies() -> None:
    """The broker's count and the one that earlier copies carry are added."""
    assert counted() == 0
    assert counted(**{"x-delivery-count": 2}) == 2
    assert counted(**{DELIVERY_COUNT_HEADER: 3}) == 3
    assert counted(**{"x-delivery-count": 2, DELIVERY_COUNT_HEADER: 3}) == 5


@pytest.mark.parametrize("value", ["3", -3, 2.5, True, None, [3], {"a": 3}])
def test_a_count_that_is_none_is_not_counted(value: object) -> None:
    """A producer may write anything into a header of ours: it can't lower the count, nor break the reading."""
    assert counted(**{"x-delivery-count": 2, DELIVERY_COUNT_HEADER: value}) == 2


def headers_of(user_id: str | None, *, redelivered: bool) -> Mapping[str, Any]:
    """Return what is left of the headers of a message of this user, where the workers' user is `worker`."""
    sent = spec.Basic.Properties(
        headers={"outcome-attempts": 3, "x-delivery-count": 2, "traceparent": "t"}, user_id=user_id
    )
    return delivery_of(message(sent, redelivered=redelivered), own_users={"worker"}).properties.headers


def test_headers_of_ours_count_on_messages_of_our_user_only() -> None:
    """Whoever else sends them, or sends them without the user that the broker verifies, is not believed."""
    for stranger in ("dialer", None):
        assert headers_of(stranger, redelivered=True) == {"x-delivery-count": 2, "traceparent": "t"}
    assert headers_of("worker", redelivered=True).keys() == {
        "outcome-attempts",
        "x-delivery-count",
        "traceparent",
    }


def test_the_brokers_count_counts_where_it_says_redelivered() -> None:
    """Anybody can send the header; the broker sets it with its flag only."""
    assert headers_of("worker", redelivered=False) == {"outcome-attempts": 3, "traceparent": "t"}
    assert headers_of("dialer", redelivered=False) == {"traceparent": "t"}


def test_messages_are_persistent_unless_said_otherwise() -> None:
    """Only a reply, which nobody waits for after a restart of the broker, may be transient."""
    assert amqp_properties(Properties(), user_id=None).delivery_mode == PERSISTENT == 2
    assert (
        amqp_properties(Properties(), user_id=None, delivery_mode=TRANSIENT).delivery_mode == TRANSIENT == 1
    )


def test_headers_are_copied() -> None:
    """What is published later is what it was when it was handed over."""
    headers = dict(HEADERS)
    written = amqp_properties(Properties(headers=headers), user_id=None)
    headers["late"] = "yes"
    assert written.headers == HEADERS
