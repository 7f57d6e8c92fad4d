"""Results that come faster than they are handled stop the reading, however large they are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage

from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, settled
from worker.broker.admin.subscription import Subscription
from worker.broker.link import Link
from worker.broker.topology import topology_of

MOST = 500 * 64 * 1024


@dataclass
class Message:
    """What the subscription looks at in a message."""

    body: bytes
    delivery_tag: int


@dataclass
class Channel:
    """Takes note of acknowledgements."""

    acknowledged: list[int] = field(default_factory=list)

    async def basic_ack(self, tag: int, **_: Any) -> None:
        self.acknowledged.append(tag)


async def test_large_results_stop_the_reading_until_they_are_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 500 times 64 KiB nothing more is read from the broker; what came is handled, and reading goes on."""
    reading = [True]
    may_handle, channel = asyncio.Event(), Channel()
    handled: list[int] = []

    async def handle(bodies: list[bytes]) -> None:
        await may_handle.wait()
        handled.extend(map(len, bodies))

    monkeypatch.setattr(Link, "read", lambda _link, on: reading.append(on))
    settings = broker_settings("amqp://127.0.0.1:1/")
    subscription = Subscription(
        settings, topology_of(settings), RecordingLog(), handle, queue="q", routes=["*"], name="t"
    )
    for tag, size in enumerate([MOST, 1], 1):
        assert reading[-1]
        subscription._take(cast(AbstractChannel, channel), cast(DeliveredMessage, Message(bytes(size), tag)))
    assert not reading[-1]
    async with running(subscription._pass_on()):
        may_handle.set()
        await settled()
        assert reading[-1]
        assert handled == [MOST, 1]
        assert channel.acknowledged == [2]
