"""Bodies are bounded only after they were received, so the bytes in hand are bounded as well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.support.channel import depth, open_channel, take
from tests.support.commands import Worker, worker
from tests.support.in_process import DEAD, JOBS, numbered, publish
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.simulator.server import Simulator

MIB = 1024 * 1024
BODY = b"{" + b" " * 15_000_000 + b'"account_number": "1"}'


async def publish_big(channel: AbstractChannel, count: int) -> None:
    for _ in range(count):
        await channel.basic_publish(
            BODY, routing_key=JOBS, properties=spec.Basic.Properties(delivery_mode=2), mandatory=True
        )


def peak(running: Worker) -> int:
    """Return the most memory that a worker has had so far, in bytes."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


@pytest.mark.timeout_s(240)
async def test_big_jobs_cost_bounded_memory(vhost: str) -> None:
    """24 jobs of 15 MB are dead-lettered, and good ones behind them done, in less memory than a third of them take."""
    async with open_channel(vhost) as channel, Simulator() as lcm:
        await declare(channel, topology_of(broker_settings(vhost)))
        async with worker(vhost, lcm.url) as idle:
            at_rest = peak(idle)
        await publish_big(channel, 24)
        await publish(channel, *numbered(10))
        async with worker(vhost, lcm.url) as running:

            async def all_ended() -> bool:
                return await depth(channel, DEAD) == 24 and len(running.of("job.succeeded")) == 10

            await until(all_ended, deadline=120)
            assert peak(running) - at_rest < 8 * len(BODY)
            assert running.of("broker.lost") == []
        letter = await take(channel, DEAD)
        assert letter.body == BODY
