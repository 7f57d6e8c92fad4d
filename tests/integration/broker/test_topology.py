"""The topology on a real broker: declared as the contract says, compared, and doing what it is for."""

from __future__ import annotations

import json
from typing import Any

import aiormq
import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.support.broker import add_user
from tests.support.channel import depth, open_channel, take
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.admin.inspect import Finding, inspect
from worker.broker.declare import declare, declare_entity, delete, verify, verify_entity
from worker.broker.topology import Queue, topology_of
from worker.contract.errors import BrokerAway, TopologyError
from worker.sandbox.node import Node
from worker.settings import BrokerSettings

DEAD_LETTERED = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}


async def arguments(node: Node, url: str) -> dict[str, dict[str, Any]]:
    """Return the arguments of every queue of a vhost as the broker has them."""
    vhost = url.rpartition("/")[2]
    listed = await node.ctl("list_queues", "-p", vhost, "--formatter", "json", "name", "durable", "arguments")
    queues = json.loads(listed)
    assert all(queue["durable"] for queue in queues)
    return {queue["name"]: {name: value for name, _, value in queue["arguments"]} for queue in queues}


async def publish(channel: AbstractChannel, exchange: str, key: str, **properties: Any) -> None:
    await channel.basic_publish(
        b"{}",
        exchange=exchange,
        routing_key=key,
        mandatory=True,
        properties=spec.Basic.Properties(delivery_mode=2, **properties),
    )


async def test_queues_stand_as_the_contract_says(broker: Node, vhost: str) -> None:
    """Declared, read back from the broker: every queue, durable, with exactly the contract's arguments."""
    settings = broker_settings(vhost, retry_delays=["120s", "250ms"], delivery_limit=7)
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(settings))
    back = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "lcm.outcome.jobs",
        "x-dead-letter-routing-key": "job",
        **DEAD_LETTERED,
    }
    kept = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000, "x-overflow": "reject-publish"}
    assert await arguments(broker, vhost) == {
        "lcm.outcome.dead": kept,
        "lcm.outcome.results": kept,
        "lcm.outcome.undelivered": kept | {"x-max-length": 100_000},
        "lcm.outcome.jobs": {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "lcm.outcome.dead",
            "x-dead-letter-routing-key": "dead",
            "x-delivery-limit": 7,
            **DEAD_LETTERED,
        },
        "lcm.outcome.retry.2m": back | {"x-message-ttl": 120_000},
        "lcm.outcome.retry.250ms": back | {"x-message-ttl": 250},
    }


async def test_every_exchange_leads_where_it_should(vhost: str) -> None:
    """A job published to the exchange or to the queue's own name arrives; results and dead letters are kept."""
    settings = broker_settings(vhost, retry_delays=["10m"])
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(settings))
        for exchange, key, queue in (
            ("lcm.outcome.jobs", "job", "lcm.outcome.jobs"),
            ("", "lcm.outcome.jobs", "lcm.outcome.jobs"),
            ("lcm.outcome.results", "result.succeeded", "lcm.outcome.results"),
            ("lcm.outcome.results", "result.failed.emea", "lcm.outcome.results"),
            ("lcm.outcome.retry", "10m", "lcm.outcome.retry.10m"),
            ("lcm.outcome.dead", "dead", "lcm.outcome.dead"),
            ("lcm.outcome.undelivered", "undelivered", "lcm.outcome.undelivered"),
        ):
            await publish(channel, exchange, key)
            await take(channel, queue)
        for exchange in (
            "lcm.outcome.jobs",
            "lcm.outcome.retry",
            "lcm.outcome.dead",
            "lcm.outcome.undelivered",
        ):
            with pytest.raises(aiormq.exceptions.PublishError):
                await publish(channel, exchange, "some.other.key")


async def test_a_retry_queue_returns_a_message_to_the_jobs_queue(vhost: str) -> None:
    """After its delay a message of a retry queue is back in the jobs queue, untouched; a longer one stays."""
    settings = broker_settings(vhost, retry_delays=["50ms", "10m"])
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(settings))
        await publish(channel, "lcm.outcome.retry", "10m", message_id="long")
        await publish(channel, "lcm.outcome.retry", "50ms", message_id="short")
        returned = await take(channel, "lcm.outcome.jobs")
        assert returned.header.properties.message_id == "short"
        assert returned.body == b"{}"
        assert await depth(channel, "lcm.outcome.retry.10m") == 1
        await until(lambda: empty(channel, "lcm.outcome.retry.50ms"))


async def empty(channel: AbstractChannel, queue: str) -> bool:
    return await depth(channel, queue) == 0


async def test_over_the_delivery_limit_the_broker_dead_letters(vhost: str) -> None:
    """The crash net: a job that comes back more often than the limit allows ends in the dead-letter queue."""
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost, delivery_limit=2)))
        await publish(channel, "lcm.outcome.jobs", "job", message_id="poison")
        for _ in range(3):
            await until(lambda: returned(channel))
        assert (await take(channel, "lcm.outcome.dead")).header.properties.message_id == "poison"


async def returned(channel: AbstractChannel) -> bool:
    """Take the next job and give it back, if there is one."""
    job = await channel.basic_get("lcm.outcome.jobs")
    if isinstance(job.delivery, spec.Basic.GetOk) and job.delivery.delivery_tag:
        await channel.basic_reject(job.delivery.delivery_tag, requeue=True)
        return True
    return False


async def test_declaring_twice_changes_nothing(vhost: str) -> None:
    """Every start declares: where all of it stands already, that is no error, and messages stay."""
    topology = topology_of(broker_settings(vhost))
    async with open_channel(vhost) as channel:
        await declare(channel, topology)
        await publish(channel, "lcm.outcome.dead", "dead")
        await declare(channel, topology)
        await verify(channel, topology)
        assert await depth(channel, "lcm.outcome.dead") == 1


async def test_another_argument_is_an_error_that_names_it(vhost: str) -> None:
    """Pitfall: redeclaring with other arguments. The error names queue, argument and both values, and what to do."""
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost, delivery_limit=20)))
        with pytest.raises(TopologyError) as raised:
            await declare(channel, topology_of(broker_settings(vhost, delivery_limit=10)))
    for part in ("queue 'lcm.outcome.jobs'", "x-delivery-limit", "20", "10", "delete it"):
        assert part in str(raised.value)


async def test_another_kind_of_exchange_is_an_error_that_names_it(vhost: str) -> None:
    """An exchange of another type is named with both types."""
    async with open_channel(vhost) as channel:
        await channel.exchange_declare("lcm.outcome.results", exchange_type="fanout", durable=True)
        with pytest.raises(TopologyError, match=r"exchange 'lcm\.outcome\.results'.*'fanout'"):
            await declare(channel, topology_of(broker_settings(vhost)))


async def test_passive_finds_what_is_missing(vhost: str) -> None:
    """With `passive` a missing exchange, and then a missing queue, is named, and nothing is created."""
    topology = topology_of(broker_settings(vhost))
    async with open_channel(vhost) as channel:
        with pytest.raises(TopologyError, match=r"exchange 'lcm\.outcome\.jobs' does not exist"):
            await verify(channel, topology)
    async with open_channel(vhost) as channel:
        await declare(channel, topology)
        await channel.queue_delete("lcm.outcome.retry.2m")
        with pytest.raises(TopologyError, match=r"queue 'lcm\.outcome\.retry\.2m' does not exist.*active"):
            await verify(channel, topology)


async def test_who_may_not_declare_is_told_so(broker: Node, vhost: str) -> None:
    """A user without the permission to configure, or to bind, reads which entity it was and which way out there is."""
    name = vhost.rpartition("/")[2]
    url = vhost.replace("guest:guest", f"{name}:secret")
    topology = topology_of(broker_settings(vhost))
    await add_user(broker, name, configure="^$", write=".*", read=".*")
    async with open_channel(url) as channel:
        with pytest.raises(TopologyError, match=r"exchange 'lcm\.outcome\.jobs'.*permissions to configure"):
            await declare(channel, topology)
    await add_user(broker, name, configure=".*", write=".*", read="jobs|retry|dead|undelivered")
    async with open_channel(url) as channel:
        with pytest.raises(TopologyError, match=r"binding of queue 'lcm\.outcome\.results' to.*permissions"):
            await declare(channel, topology)


async def test_a_full_vhost_is_told_as_that(broker: Node, vhost: str) -> None:
    """At the vhost's limit of queues the error has the broker's words and the command, and nothing of arguments."""
    name = vhost.rpartition("/")[2]
    await broker.ctl("set_vhost_limits", "-p", name, '{"max-queues": 1}')
    async with open_channel(vhost) as channel:
        with pytest.raises(TopologyError) as raised:
            await declare(channel, topology_of(broker_settings(vhost)))
    said = str(raised.value)
    assert (
        f"406 PRECONDITION_FAILED - cannot declare queue 'lcm.outcome.undelivered': queue limit in vhost '{name}'"
        in said
    )
    assert f"`rabbitmqctl set_vhost_limits -p {name} '{{\"max-queues\": N}}'`" in said
    assert "other arguments" not in said
    assert "drain" not in said


async def test_an_argument_that_the_broker_does_not_take_is_told_as_that(vhost: str) -> None:
    """Any other 406 has the broker's words alone: nothing stands there otherwise, and nothing is to be deleted."""
    async with open_channel(vhost) as channel:
        with pytest.raises(TopologyError) as raised:
            await declare_entity(channel, Queue("mine", {"x-overflow": "spill"}))
    assert "queue 'mine' could not be declared: 406 PRECONDITION_FAILED - invalid arg 'x-overflow'" in str(
        raised.value
    )
    assert "other arguments" not in str(raised.value)


async def test_a_queue_of_another_connection_alone_is_told_as_that(vhost: str) -> None:
    """An exclusive queue of that name is somebody's own, whatever its arguments."""
    async with open_channel(vhost) as other, open_channel(vhost) as channel:
        await other.queue_declare("lcm.outcome.dead", exclusive=True)
        with pytest.raises(
            TopologyError, match=r"queue 'lcm.outcome.dead' is another connection's alone: 405 "
        ):
            await declare(channel, topology_of(broker_settings(vhost)))


async def test_a_queue_out_of_reach_is_an_outage(broker: Node, vhost: str) -> None:
    """A queue that the broker knows but can't reach is not missing: nobody is told to declare it, no worker ends."""
    async with open_channel(vhost) as channel:
        await channel.queue_declare("stopped", durable=True)
        await broker.eval(f'rabbit_amqqueue_sup_sup:stop_for_vhost(<<"{vhost.rpartition("/")[2]}">>)')
        with pytest.raises(
            BrokerAway, match=r"queue 'stopped' is out of the broker's reach: 404 NOT_FOUND - queue"
        ):
            await verify_entity(channel, Queue("stopped"))


async def looked_at(settings: BrokerSettings) -> list[Finding]:
    return await inspect(settings, topology_of(settings), worker="test")


async def test_inspect_has_the_brokers_words(vhost: str) -> None:
    """What can't be looked at is wrong with the broker's words, rather than missing."""
    async with open_channel(vhost) as other:
        await other.queue_declare("lcm.outcome.results", exclusive=True)
        for settings in (broker_settings(vhost), broker_settings(vhost, declare="passive")):
            found = {finding.what: finding for finding in await looked_at(settings)}
            assert found["queue lcm.outcome.results"].level == "wrong"
            assert "405 RESOURCE_LOCKED" in found["queue lcm.outcome.results"].detail


async def test_a_topology_made_for_a_while_can_be_deleted(vhost: str) -> None:
    """After `delete` nothing of the topology stands any more, whatever its queues held."""
    topology = topology_of(broker_settings(vhost))
    async with open_channel(vhost) as channel:
        await declare(channel, topology)
        await publish(channel, "lcm.outcome.dead", "dead")
        await delete(channel, topology)
    findings = await looked_at(broker_settings(vhost))
    assert all("does not exist yet" in finding.detail for finding in findings[1:])


async def test_inspect_compares_without_changing_anything(vhost: str) -> None:
    """A look at a broker says of each entity whether it is missing, new, right or wrong, and creates none."""
    wanted = broker_settings(vhost, delivery_limit=10)
    levels = {finding.level for finding in await looked_at(wanted)}
    assert levels == {"ok", "new"}
    passive = broker_settings(vhost, declare="passive")
    missing = [finding for finding in await looked_at(passive) if finding.level == "missing"]
    assert len(missing) == len(topology_of(passive).entities)
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost, delivery_limit=20)))
    assert [finding for finding in await looked_at(passive) if finding.level != "ok"] == []
    [wrong] = [finding for finding in await looked_at(wanted) if finding.level != "ok"]
    assert (wrong.level, wrong.what) == ("wrong", "queue lcm.outcome.jobs")
    assert "x-delivery-limit" in wrong.detail


async def test_inspect_warns_of_a_results_queue_nobody_asked_for(vhost: str) -> None:
    """Where consumers bind their own queues, the common one would keep a copy of every result: that is said."""
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
    findings = await looked_at(broker_settings(vhost, results_queue=False))
    warnings = [finding for finding in findings if finding.level == "warn"]
    assert [finding.what for finding in warnings] == ["queue lcm.outcome.results"]
    assert isinstance(findings[0], Finding)
    assert "guest:guest" not in findings[0].detail


@pytest.mark.parametrize("name", ["results", "dead"])
async def test_a_length_policy_refuses_rather_than_drops(name: str, broker: Node, vhost: str) -> None:
    """With a policy of at most 3 messages, what comes beyond is refused, and the first ones are still there."""
    topology = topology_of(broker_settings(vhost))
    async with open_channel(vhost) as channel:
        await declare(channel, topology)
        policy = json.dumps({"max-length": 3})
        await broker.ctl("set_policy", "-p", vhost.rpartition("/")[2], "short", ".*", policy)
        binding = {"results": "result.succeeded", "dead": "dead"}[name]
        with pytest.raises(aiormq.exceptions.DeliveryError):  # noqa: PT012 - whichever is the first beyond it
            for number in range(20):
                await publish(channel, f"lcm.outcome.{name}", binding, message_id=str(number))
        first = await take(channel, f"lcm.outcome.{name}")
        assert first.header.properties.message_id == "0"
