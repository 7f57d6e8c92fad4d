"""A collector gets every message of a queue once, from whichever node answers."""

from __future__ import annotations

import asyncio

import pytest
from aiormq import spec

from tests.support.channel import depth, open_channel
from tests.support.settings import broker_settings
from worker.broker.admin.collector import collect
from worker.contract.errors import BrokerAway
from worker.sandbox.folder import free_port


async def test_collected_messages_are_gone_from_the_queue(vhost: str) -> None:
    """Each message is passed on and acknowledged, those that come later included."""
    settings = broker_settings(f"amqp://guest:guest@127.0.0.1:{free_port()}/", vhost)
    async with open_channel(vhost) as channel:
        await channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
        async with collect(settings, "q", name="test") as collected:
            for body in (b"1", b"2"):
                properties = spec.Basic.Properties(message_id="m")
                await channel.basic_publish(body, routing_key="q", properties=properties)
                async with asyncio.timeout(30):
                    delivery = await collected.get()
                assert (delivery.body, delivery.properties.message_id) == (body, "m")
        assert await depth(channel, "q") == 0


async def test_collecting_needs_a_broker() -> None:
    """Where no node answers, the error names each that was tried."""
    ports = free_port(), free_port()
    settings = broker_settings(*(f"amqp://guest:hunter2@127.0.0.1:{port}/" for port in ports))
    with pytest.raises(BrokerAway) as raised:
        async with collect(settings, "q", name="test"):
            pytest.fail("nobody is there")
    assert all(str(port) in str(raised.value) for port in ports)
    assert "hunter2" not in str(raised.value)
