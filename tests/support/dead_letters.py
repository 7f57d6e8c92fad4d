"""Dead letters for tests: publishing them as this worker does, and consuming what is left of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiormq import spec
from aiormq.abc import AbstractChannel, DeliveredMessage

from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.admin.dead_letter import Ours
from worker.broker.declare import declare
from worker.broker.topology import topology_of

JOBS, DEAD = "lcm.outcome.jobs", "lcm.outcome.dead"
OURS = Ours(JOBS, frozenset({"worker"}))
_MAX_UNCONFIRMED = 200


@dataclass(frozen=True)
class Dead:
    """One dead letter; `headers` are added to those that this worker writes, or replace them."""

    job_id: str
    code: str = "timeout"
    reason: str = "LCM did not reply in 10 s"
    failed_at: str = "2026-01-31T12:00:00.000Z"
    headers: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""
    app_id: str = ""
    user_id: str | None = None

    @property
    def sent_body(self) -> bytes:
        return self.body or msgspec.json.encode(
            {"account_number": f"18|{self.job_id}", "job_id": self.job_id}
        )

    @property
    def sent_headers(self) -> dict[str, Any]:
        ours = {
            "outcome-job-id": self.job_id,
            "outcome-error-code": self.code,
            "outcome-error-reason": self.reason,
            "outcome-attempts": 15,
            "outcome-failed-at": self.failed_at,
            "outcome-worker": "w-0",
        }
        return ours | self.headers


async def publish_dead_letters(channel: AbstractChannel, url: str, letters: Iterable[Dead]) -> None:
    """Declare the topology and publish dead letters to their queue, in their order."""
    await declare(channel, topology_of(broker_settings(url)))
    unconfirmed: list[asyncio.Task[Any]] = []
    for letter in letters:
        properties = spec.Basic.Properties(
            delivery_mode=2,
            message_id=f"m-{letter.job_id}",
            headers=letter.sent_headers,
            app_id=letter.app_id or None,
            user_id=letter.user_id,
        )
        publishing = channel.basic_publish(
            letter.sent_body, exchange=DEAD, routing_key="dead", properties=properties, mandatory=True
        )
        unconfirmed.append(asyncio.ensure_future(publishing))
        if len(unconfirmed) == _MAX_UNCONFIRMED:
            await asyncio.gather(*unconfirmed)
            unconfirmed.clear()
    await asyncio.gather(*unconfirmed)


async def consume(channel: AbstractChannel, queue: str, count: int) -> list[DeliveredMessage]:
    """Consume exactly so many messages of a queue, and return them in the order of their delivery."""
    found: list[DeliveredMessage] = []

    async def keep(message: DeliveredMessage) -> None:
        found.append(message)

    consumed = await channel.basic_consume(queue, keep, no_ack=True)
    await until(lambda: len(found) >= count, deadline=60)
    assert consumed.consumer_tag is not None
    await channel.basic_cancel(consumed.consumer_tag)
    assert len(found) == count
    return found


def job_ids(messages: Iterable[DeliveredMessage]) -> list[str]:
    """Return the job ids of messages."""
    return [(message.header.properties.headers or {})["outcome-job-id"] for message in messages]  # type: ignore[misc]


def lines(out: str) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [msgspec.json.decode(line) for line in out.splitlines()]
