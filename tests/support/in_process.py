"""A worker in the test's own process, with short delays, jobs for it, and what becomes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.support.channel import depth, take_all
from tests.support.log import RecordingLog
from tests.support.waiting import running, until
from worker.app import App
from worker.observability.tracing import Tracer
from worker.settings import Settings, load

JOBS, RESULTS, DEAD = (f"lcm.outcome.{name}" for name in ("jobs", "results", "dead"))
QUICK = {
    "BROKER__RETRY_DELAYS": "200ms,400ms",
    "BROKER__DELIVERY_LIMIT": "2",
    "LCM__SESSIONS": "4",
    "LCM__REPLY_TIMEOUT": "300ms",
    "RETRY__FIRST_DELAY": "10ms",
    "RETRY__MAX_DELAY": "20ms",
    "OUTAGE__PROBE_DELAY": "100ms",
    "OUTAGE__PROBE_MAX_DELAY": "200ms",
}


def quick(broker_url: str, lcm_url: str, **settings: object) -> Settings:
    ours = {"BROKER__URL": broker_url, "LCM__URL": lcm_url, **QUICK, **settings}
    return load(None, {f"LCM_WORKER_{name}": str(value) for name, value in ours.items()})


@asynccontextmanager
async def working(settings: Settings, tracer: Tracer | None = None) -> AsyncIterator[RecordingLog]:
    log = RecordingLog()
    app = App(settings, log, tracer)
    async with running(app.run()) as work:
        await until(lambda: log.events.count("broker.connected") >= 2)
        yield log
        app.stop()
        await work


async def publish(
    channel: AbstractChannel,
    *jobs: dict[str, Any],
    headers: dict[str, Any] | None = None,
    user_id: str | None = None,
    app_id: str | None = None,
) -> None:
    properties = spec.Basic.Properties(delivery_mode=2, headers=headers, user_id=user_id, app_id=app_id)
    for job in jobs:
        await channel.basic_publish(
            msgspec.json.encode(job), routing_key=JOBS, properties=properties, mandatory=True
        )


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"job_id": f"job-{n}", "account_number": f"{n}|1"} for n in range(count)]


async def results(channel: AbstractChannel, count: int) -> list[dict[str, Any]]:
    async def there() -> bool:
        return await depth(channel, RESULTS) >= count

    await until(there)
    return [msgspec.json.decode(message.body) for message in await take_all(channel, RESULTS)]


def all_good(found: list[dict[str, Any]], count: int) -> None:
    assert sorted(result["job_id"] for result in found) == sorted(f"job-{n}" for n in range(count))
    for result in found:
        assert result["outcomes"][-1]["description"] == f"Account {result['account_number']}"
