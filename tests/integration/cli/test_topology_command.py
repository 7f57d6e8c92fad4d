"""`lcm-worker topology` as a process: shown without a broker, applied to one, exported and imported into one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiormq
import msgspec
import pytest
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ProbableAuthenticationError

from tests.support.channel import depth, open_channel, take
from tests.support.commands import Ended, command, on_terminal, worker
from tests.support.settings import broker_settings
from worker.broker.declare import declare, verify
from worker.broker.topology import topology_of
from worker.sandbox.node import Node, NodeFailed
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

GUIDE = Path(__file__).parents[3] / "docs" / "deployment.md"
ROLES = ("worker", "producer", "consumer")
PASSWORD = "s3cret-pass"
NOWHERE = "amqp://127.0.0.1:1/"
Attempt = Callable[[AbstractChannel], Awaitable[object]]


def users_of(vhost: str) -> dict[str, str]:
    """Return a name for each role that no other test uses: users belong to a node, not to a vhost."""
    return {role: f"{vhost.rpartition('/')[2]}.{role}" for role in ROLES}


def url_of(vhost: str, role: str) -> str:
    return vhost.replace("guest:guest", f"{users_of(vhost)[role]}:{PASSWORD}")


async def exported(vhost: str, *arguments: str, **settings: Any) -> Ended:
    options = [part for role, user in users_of(vhost).items() for part in (f"--{role}-user", user)]
    ended = await command("topology", "export", *options, *arguments, broker__url=vhost, **settings)
    assert ended.status == 0, ended.err
    return ended


async def imported(broker: Node, document: str) -> None:
    """By a pipe, as the docs have it: Debian's rabbitmqctl changes the folder and the user."""
    await broker.ctl("import_definitions", told=document)


async def set_up(broker: Node, vhost: str, **settings: Any) -> None:
    """Import the export, and give its users a password, as an operator would."""
    await imported(broker, (await exported(vhost, **settings)).out)
    names = users_of(vhost).values()
    await asyncio.gather(*(broker.ctl("change_password", name, PASSWORD) for name in names))


async def test_show_needs_no_broker() -> None:
    """In a pipe `show` prints exchanges, queues and bindings of the settings as JSON, with nobody listening."""
    ended = await command(
        "topology", "show", broker__url=NOWHERE, broker__prefix="x", broker__retry_delays='["120s"]'
    )
    assert (ended.status, ended.err) == (0, "")
    shown = msgspec.json.decode(ended.out)
    topology = topology_of(broker_settings(NOWHERE, prefix="x", retry_delays=["2m"]))
    assert shown == {
        "exchanges": [{"name": each.name, "type": each.kind} for each in topology.exchanges],
        "queues": [{"name": each.name, "arguments": each.all_arguments} for each in topology.queues],
        "bindings": [
            {"exchange": each.exchange, "queue": each.queue, "routing_key": each.key}
            for each in topology.bindings
        ],
    }
    assert {queue["name"] for queue in shown["queues"]} == {
        "x.jobs",
        "x.results",
        "x.dead",
        "x.undelivered",
        "x.retry.2m",
    }


async def test_show_is_a_table_on_a_terminal() -> None:
    """On a terminal every queue and its arguments are a row of a table; with --json it is JSON there, too."""
    shown = await on_terminal("topology", "show", columns=100, broker__url=NOWHERE)
    rows = [line.split() for line in shown.out.splitlines()]
    assert ["lcm.outcome.results", "topic"] in rows
    assert ["lcm.outcome.retry.10m", "x-queue-type", "quorum"] in rows
    assert ["x-message-ttl", "600000"] in rows
    assert ["lcm.outcome.jobs", "job", "lcm.outcome.jobs"] in rows
    as_json = await on_terminal("topology", "show", "--json", broker__url=NOWHERE)
    assert msgspec.json.decode(as_json.out).keys() == {"exchanges", "queues", "bindings"}


async def test_apply_declares_all_and_says_what_it_did(vhost: str) -> None:
    """On an empty broker each entity is created and bound, also where workers are passive; again, each stands."""
    topology = topology_of(broker_settings(vhost))
    first = await command("topology", "apply", broker__url=vhost, broker__declare="passive")
    assert (first.status, first.err) == (0, "")
    done = [line.split()[:3] for line in first.out.splitlines()]
    assert done == [
        *(["created", "exchange", each.name] for each in topology.exchanges),
        *(["created", "queue", each.name] for each in topology.queues),
        *(["bound", "queue", each.queue] for each in topology.bindings),
    ]
    async with open_channel(vhost) as channel:
        await verify(channel, topology)
        await channel.basic_publish(b"{}", exchange="lcm.outcome.jobs", routing_key="job", mandatory=True)
        second = await command("topology", "apply", broker__url=vhost)
        assert await depth(channel, "lcm.outcome.jobs") == 1
    assert (second.status, second.out) == (0, first.out.replace("created", "exists "))


async def test_apply_names_what_stands_otherwise(vhost: str) -> None:
    """Pitfall: redeclaring with other arguments. One error names queue, argument and remedy; the status is 2."""
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost, delivery_limit=7)))
    ended = await command("topology", "apply", broker__url=vhost)
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    for part in ("queue 'lcm.outcome.jobs'", "x-delivery-limit", "drain and delete it"):
        assert part in ended.err
    assert ended.out.splitlines()[-1] == "exists  queue lcm.outcome.results"


async def test_apply_says_where_there_is_no_broker() -> None:
    """Without a broker one line says so and what to look at, without the password; the status is 1."""
    ended = await command("topology", "apply", broker__url=NOWHERE.replace("//", "//me:s3cret@"))
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert "127.0.0.1:1: " in ended.err
    assert "see broker.url" in ended.err
    assert "s3cret" not in ended.err


async def test_export_tells_what_is_left_to_do(vhost: str) -> None:
    """`export` says on standard error who needs a password, what a second import does, and that workers are passive."""
    ended = await exported(vhost)
    users = users_of(vhost)
    assert f"until `rabbitmqctl change_password`: {', '.join(users.values())}" in ended.err
    assert "--no-users" in ended.err
    assert f"'passive' for workers that log in as {users['worker']}" in ended.err
    assert "guest" not in ended.out
    again = await exported(vhost, "--no-users")
    assert "change_password" not in again.err


@pytest.mark.parametrize("name", ["lcm-outcome-worker", ""])
async def test_users_must_differ(name: str) -> None:
    """Two parts with one user, or one without a name, is wrong usage: their rights would add up."""
    ended = await command("topology", "export", "--producer-user", name)
    assert (ended.status, ended.out) == (2, "")
    assert "three different names" in " ".join(ended.err.split())


@pytest.mark.timeout_s(240)
async def test_the_exported_users_can_do_their_work(broker: Node, vhost: str) -> None:
    """On an imported topology a passive worker takes a producer's jobs, retries, dead-letters and answers a caller."""
    callers = {"broker__reply_to_prefixes": '["callers."]', "broker__retry_delays": '["100ms"]'}
    await set_up(broker, vhost, **callers)
    settings = {"broker__declare": "passive", "retry__attempts": 1, **callers}
    behaviour = Behaviour(rules=(Rule("later", "error", 1), Rule("never", "refuse")))
    async with (
        Simulator(behaviour) as lcm,
        open_channel(vhost) as operator,
        open_channel(url_of(vhost, "producer")) as producer,
        open_channel(url_of(vhost, "consumer")) as consumer,
        worker(url_of(vhost, "worker"), lcm.url, **settings) as running,
    ):
        own = "lcm.outcome.results.dialer-7"
        await consumer.queue_declare(own)
        await consumer.queue_bind(own, "lcm.outcome.results", "result.succeeded.#")
        await operator.queue_declare("callers.1")
        for account in ("now", "later", "never"):
            await producer.basic_publish(
                msgspec.json.encode({"account_number": account, "job_id": account}),
                exchange="lcm.outcome.jobs",
                routing_key="job",
                properties=aiormq.spec.Basic.Properties(reply_to="callers.1"),
                mandatory=True,
            )
        statuses = {await status(consumer, "lcm.outcome.results") for _ in range(3)}
        assert statuses == {("now", "succeeded"), ("later", "succeeded"), ("never", "failed")}
        assert {await status(consumer, own) for _ in range(2)} == statuses - {("never", "failed")}
        assert {await status(operator, "callers.1") for _ in range(3)} == statuses
        assert (
            await take(operator, "lcm.outcome.dead")
        ).body == b'{"account_number":"never","job_id":"never"}'
        assert [line["job_id"] for line in running.of("job.retry_later")] == ["later"]
        await consumer.queue_delete(own)


@pytest.mark.timeout_s(240)
async def test_the_documented_operator_can_do_the_work(broker: Node, vhost: str) -> None:
    """Its rights are enough to submit and wait, to handle dead letters and what workers parked, and to look on."""
    shared = {"broker__declare": "passive", "lcm__fleet_sessions": 4}
    await set_up(broker, vhost, **shared)
    name = f"{vhost.rpartition('/')[2]}.operator"
    rights = re.findall(r"'(\^.+?\$)'", GUIDE.read_text().split("-p / lcm-outcome-operator")[1])[:3]
    await broker.ctl("add_user", name, PASSWORD)
    await broker.ctl("set_permissions", "-p", vhost.rpartition("/")[2], name, *rights)
    own = vhost.replace("guest:guest", f"{name}:{PASSWORD}")
    both = f"{own},{url_of(vhost, 'worker').replace(PASSWORD, '')}"

    async def by_hand(*arguments: str, told: str = "") -> Ended:
        return await command(*arguments, told=told, broker__url=both, **shared)

    parked = aiormq.spec.Basic.Properties(
        user_id=users_of(vhost)["worker"], headers={"outcome-routing-key": "result.succeeded"}
    )
    async with (
        Simulator(Behaviour(rules=(Rule("never", "refuse"),))) as lcm,
        open_channel(url_of(vhost, "worker")) as channel,
        worker(url_of(vhost, "worker"), lcm.url, **shared),
    ):
        submitted = await by_hand("submit", "--wait", "-", told="now\nnever\n")
        assert "1 succeeded" in submitted.err
        assert (await by_hand("status")).status == 0
        assert msgspec.json.decode((await by_hand("dead", "list")).out)["count"] == 1
        assert "replayed 1 letter" in (await by_hand("dead", "replay", "--all")).err
        await channel.basic_publish(
            b"{}", exchange="lcm.outcome.undelivered", routing_key="undelivered", properties=parked
        )
        assert "sent 1 result" in (await by_hand("undelivered", "send", "--all")).err


async def status(channel: AbstractChannel, queue: str) -> tuple[str, str]:
    result: dict[str, Any] = msgspec.json.decode((await take(channel, queue)).body)
    return result["job_id"], result["status"]


def publish(exchange: str, key: str) -> Attempt:
    return lambda channel: channel.basic_publish(b"{}", exchange=exchange, routing_key=key)


def consume(queue: str) -> Attempt:
    async def ignore(_message: object) -> None:
        """Take no notice."""

    return lambda channel: channel.basic_consume(queue, ignore)


def get(queue: str) -> Attempt:
    return lambda channel: channel.basic_get(queue)


def purge(queue: str) -> Attempt:
    return lambda channel: channel.queue_purge(queue)


def delete(queue: str) -> Attempt:
    return lambda channel: channel.queue_delete(queue)


def make(queue: str) -> Attempt:
    return lambda channel: channel.queue_declare(queue)


def make_exchange(name: str) -> Attempt:
    return lambda channel: channel.exchange_declare(name)


def bind(queue: str, exchange: str) -> Attempt:
    return lambda channel: channel.queue_bind(queue, exchange, "#")


JOBS, RESULTS, RETRY, DEAD = (f"lcm.outcome.{name}" for name in ("jobs", "results", "retry", "dead"))
FORBIDDEN: dict[str, dict[str, Attempt]] = {
    "worker": {
        "publish jobs": publish(JOBS, "job"),
        "publish by the default exchange": publish("", JOBS),
        "publish elsewhere": publish("amq.topic", "x"),
        "take results": get(RESULTS),
        "take dead letters": consume(DEAD),
        "take from a retry queue": get(f"{RETRY}.5s"),
        "purge dead letters": purge(DEAD),
        "purge results": purge(RESULTS),
        "delete the jobs queue": delete(JOBS),
        "declare a queue": make("mine"),
        "declare one of ours": make(f"{RETRY}.7s"),
        "declare an exchange": make_exchange("mine"),
        "delete an exchange": lambda channel: channel.exchange_delete(RESULTS),
        "bind a retry queue": bind(f"{RETRY}.5s", JOBS),
    },
    "producer": {
        "publish results": publish(RESULTS, "result.succeeded"),
        "publish retries": publish(RETRY, "5s"),
        "publish dead letters": publish(DEAD, "dead"),
        "publish by the default exchange": publish("", JOBS),
        "take jobs": get(JOBS),
        "take results": consume(RESULTS),
        "take dead letters": get(DEAD),
        "purge jobs": purge(JOBS),
        "declare a queue": make("mine"),
        "bind a queue": bind(JOBS, RESULTS),
        "delete the jobs queue": delete(JOBS),
    },
    "consumer": {
        "publish jobs": publish(JOBS, "job"),
        "publish results": publish(RESULTS, "result.succeeded"),
        "publish dead letters": publish(DEAD, "dead"),
        "publish by the default exchange": publish("", JOBS),
        "take jobs": consume(JOBS),
        "take dead letters": get(DEAD),
        "purge jobs": purge(JOBS),
        "delete the results queue": delete(RESULTS),
        "unbind the results queue": lambda channel: channel.queue_unbind(RESULTS, RESULTS, "#"),
        "declare a queue elsewhere": make("mine"),
        "declare another's queue": make("lcm.outcome.resultsX"),
    },
}


@pytest.mark.timeout_s(240)
async def test_the_exported_users_can_do_nothing_else(broker: Node, vhost: str) -> None:
    """Whatever isn't a user's part is refused by the broker: other queues and exchanges, and any change to ours."""
    await set_up(broker, vhost)
    admitted = []
    for role, attempts in FORBIDDEN.items():
        connection = await aiormq.connect(url_of(vhost, role))
        for what, attempt in attempts.items():
            channel = await connection.channel()
            try:
                async with asyncio.timeout(60):
                    await attempt(channel)
            except ChannelAccessRefused:
                continue
            admitted.append((role, what))
        await connection.close()
    assert admitted == []


@pytest.mark.timeout_s(240)
async def test_an_import_lets_nobody_in_by_itself(broker: Node, vhost: str) -> None:
    """Without a password no user can log in; a second import takes it away again, one of `--no-users` does not."""
    whole, topology_only = (await exported(vhost)).out, (await exported(vhost, "--no-users")).out
    producer = users_of(vhost)["producer"]
    with pytest.raises(NodeFailed, match="no_such_user"):
        await imported(broker, topology_only)
    await imported(broker, whole)
    for password in ("", PASSWORD):
        assert not await admits(vhost.replace("guest:guest", f"{producer}:{password}"))
    await broker.ctl("change_password", producer, PASSWORD)
    await imported(broker, topology_only)
    assert await admits(url_of(vhost, "producer"))
    await imported(broker, whole)
    assert not await admits(url_of(vhost, "producer"))


async def admits(url: str) -> bool:
    with suppress(ProbableAuthenticationError):
        await (await aiormq.connect(url)).close()
        return True
    return False


@pytest.mark.timeout_s(120)
async def test_an_import_agrees_with_apply(broker: Node, vhost: str) -> None:
    """What an import made is what `apply` would make: nothing is created, and no argument differs."""
    await imported(broker, (await exported(vhost)).out)
    ended = await command("topology", "apply", broker__url=vhost)
    assert (ended.status, ended.err) == (0, "")
    assert {line.split()[0] for line in ended.out.splitlines()} == {"exists", "bound"}
