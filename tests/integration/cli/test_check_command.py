"""`lcm-worker check` as a process, against a real broker and a simulated LCM."""

from __future__ import annotations

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.frames import Close, Frame, Opcode

from tests.support.broker import add_user
from tests.support.channel import depth, open_channel
from tests.support.commands import command
from tests.support.lcm import peer
from tests.support.raw_peer import RawPeer, raw_peer
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

UNTOLD = {"policies", "unacknowledged jobs", "oldest job"}


def levels(out: str) -> dict[str, str]:
    """Return what was checked, and what came of it."""
    return {line.split(":")[0].split(maxsplit=1)[1]: line.split()[0] for line in out.splitlines()}


async def test_all_is_well(vhost: str) -> None:
    """With broker, topology and LCM as they should be, every line is ok or unknown and the status is 0."""
    async with Simulator() as lcm, open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
        ended = await command("check", broker__url=vhost, lcm__url=lcm.url)
    assert (ended.status, ended.err) == (0, "")
    checked = levels(ended.out)
    assert {what for what, level in checked.items() if level != "ok"} == UNTOLD
    assert {checked[what] for what in UNTOLD} == {"unknown"}
    assert {
        "settings",
        "broker",
        "lcm",
        "alarms",
        "queue lcm.outcome.jobs",
        "queue lcm.outcome.retry.10m",
    } <= checked.keys()


async def test_sessions_without_a_fence_are_warned_of(vhost: str) -> None:
    """Where a late reply can be taken for the next account's, a line says so with the remedy; the status stays 0."""
    async with Simulator() as lcm:
        ended = await command("check", broker__url=vhost, lcm__url=lcm.url, lcm__ping_interval=0)
    assert ended.status == 0
    assert "warn    lcm.ping_interval: no ping goes ahead of a request" in ended.out
    assert "set lcm.max_exchanges = 1 with it" in ended.out


async def test_nothing_is_changed(vhost: str) -> None:
    """On an empty broker it says what `run` will declare, declares nothing, and the status is 0."""
    async with Simulator() as lcm:
        first = await command("check", broker__url=vhost, lcm__url=lcm.url)
        second = await command("check", broker__url=vhost, lcm__url=lcm.url)
    assert (first.status, second.out) == (0, first.out)
    assert "new     queue lcm.outcome.jobs: does not exist yet; `run` declares it\n" in first.out


async def test_a_passive_worker_misses_what_is_not_there(vhost: str) -> None:
    """Where operations own the topology, each entity that is missing is named and the status is 2."""
    async with Simulator() as lcm:
        ended = await command("check", broker__url=vhost, lcm__url=lcm.url, broker__declare="passive")
    assert ended.status == 2
    assert levels(ended.out)["queue lcm.outcome.dead"] == "missing"


async def test_a_queue_with_another_argument_is_named(vhost: str) -> None:
    """A queue that stands with another argument is named with the argument; its jobs stay; the status is 2."""
    async with Simulator() as lcm, open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost, delivery_limit=7)))
        await channel.basic_publish(b"{}", routing_key="lcm.outcome.jobs")
        ended = await command("check", broker__url=vhost, lcm__url=lcm.url)
        assert await depth(channel, "lcm.outcome.jobs") == 1
    assert ended.status == 2
    (wrong,) = (line for line in ended.out.splitlines() if not line.startswith(("ok", "unknown")))
    assert wrong.startswith("wrong   queue lcm.outcome.jobs: ")
    assert "x-delivery-limit" in wrong


async def alarmed(node: Node) -> bool:
    """Whether the broker has noticed that it lacks memory or disk."""
    return await node.eval("rabbit_alarm:get_alarms()") != "[]"


async def rested(node: Node) -> bool:
    return not await alarmed(node)


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_an_alarm_is_told(kind: str, broker: Node, vhost: str) -> None:
    """A broker that takes no messages is found out before a worker needs it; no message is left. The status is 1."""
    raised = {"memory": ("set_vm_memory_high_watermark", "0"), "disk": ("set_disk_free_limit", "1000000GB")}
    lowered = {"memory": ("set_vm_memory_high_watermark", "0.4"), "disk": ("set_disk_free_limit", "1000000")}
    async with Simulator() as lcm:
        await broker.ctl(*raised[kind])
        try:
            await until(lambda: alarmed(broker))
            ended = await command("check", broker__url=vhost, lcm__url=lcm.url)
        finally:
            await broker.ctl(*lowered[kind])
        await until(lambda: rested(broker))
        after = await command("check", broker__url=vhost, lcm__url=lcm.url)
    assert ended.status == 1
    assert levels(ended.out)["alarms"] == "alarm"
    assert "`rabbitmq-diagnostics alarms`" in ended.out
    assert levels(ended.out)["broker"] == "ok"
    assert (after.status, levels(after.out)["alarms"]) == (0, "ok")


async def test_who_may_not_publish_to_nowhere_learns_of_no_alarm(broker: Node, vhost: str) -> None:
    """A user without a right to the default exchange is refused there, which says as well that the broker reads."""
    name = vhost.rpartition("/")[2]
    await add_user(broker, name, configure="^$", write="^lcm", read=".*")
    async with Simulator() as lcm, open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
        url = vhost.replace("guest:guest", f"{name}:secret")
        ended = await command("check", broker__url=url, lcm__url=lcm.url, broker__declare="passive")
    assert (ended.status, levels(ended.out)["alarms"]) == (0, "ok")


async def test_a_management_api_that_is_away_is_told(vhost: str) -> None:
    """Asked for policies where no API answers, it says so and what to enable; the others are checked; status 1."""
    async with Simulator() as lcm, Simulator() as other:
        await other.stop()
        url = f"http://me:s3cret@127.0.0.1:{other.port}"
        ended = await command("check", "--management", url, broker__url=vhost, lcm__url=lcm.url)
    assert ended.status == 1
    assert levels(ended.out)["policies"] == "away"
    assert "rabbitmq_management" in ended.out
    assert "in the list of processes" in ended.err
    assert "s3cret" not in ended.out + ended.err
    assert {levels(ended.out)[what] for what in ("broker", "alarms", "lcm")} == {"ok"}


@pytest.mark.parametrize(
    "url", ["127.0.0.1:15672", "ftp://127.0.0.1", "http://", "http://h:port", "http://[::1"]
)
async def test_a_management_url_that_is_none(url: str) -> None:
    """What can't be the address of the API is wrong usage."""
    ended = await command("check", "--management", url)
    assert (ended.status, ended.out) == (2, "")
    assert "http://HOST:15672" in ended.err


async def test_lcm_is_away(vhost: str) -> None:
    """Without LCM its line says so and what to look at, the broker is checked all the same, the status is 1."""
    async with Simulator() as lcm:
        url = lcm.url
    ended = await command("check", broker__url=vhost, lcm__url=url)
    assert ended.status == 1
    assert levels(ended.out)["lcm"] == "away"
    assert levels(ended.out)["broker"] == "ok"
    assert "see lcm.url" in ended.out


async def test_lcm_refuses_the_credentials(vhost: str) -> None:
    """Where LCM answers 401 the line points to the credentials, which it does not show."""
    async with Simulator(Behaviour(credentials="me:right")) as lcm:
        settings = {"lcm__username": "me", "lcm__password": "s3cret-wrong"}
        ended = await command("check", broker__url=vhost, lcm__url=lcm.url, **settings)
    assert (ended.status, levels(ended.out)["lcm"]) == (1, "refused")
    assert "HTTP 401; see the credentials and certificates in [lcm]" in ended.out
    assert "s3cret" not in ended.out + ended.err


async def test_lcm_closes_every_session_at_once(vhost: str) -> None:
    """An LCM that accepts the websocket and closes it by a refusal is not ok; code and reason are told."""

    async def turn_out(lcm: ServerConnection) -> None:
        await lcm.close(4401, "token expired")

    async with peer(turn_out) as url:
        ended = await command("check", broker__url=vhost, lcm__url=url)
    assert (ended.status, levels(ended.out)["lcm"]) == (1, "refused")
    assert "code 4401 (unauthorized): token expired; see the credentials" in ended.out


def goodbye(code: int, reason: str = "") -> bytes:
    return Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False)


GOODBYES = {
    "credentials": (goodbye(4401, "bad token"), "refused", "code 4401 (unauthorized): bad token"),
    "full": (goodbye(1013), "away", "code 1013"),
    "flood": (b"\x89\x00" * 5000, "away", "sent more than 1000 pings"),
}


@pytest.mark.parametrize("kind", GOODBYES)
async def test_lcm_says_goodbye_and_does_not_hang_up(vhost: str, kind: str) -> None:
    """An LCM that ends the websocket, and leaves the network's connection open, has opened no session."""
    said, level, told = GOODBYES[kind]

    async def talk(lcm: RawPeer) -> None:
        await lcm.accept()
        lcm.say_bytes(said)
        while True:
            await lcm.hear()

    async with raw_peer(talk) as url:
        ended = await command("check", broker__url=vhost, lcm__url=url)
    assert (ended.status, levels(ended.out)["lcm"]) == (1, level)
    assert told in ended.out


async def test_the_broker_is_away() -> None:
    """Without a broker its line says so and what to look at, LCM is checked all the same, the status is 1."""
    async with Simulator() as lcm, Simulator() as other:
        await other.stop()
        url = f"amqp://me:s3cret-password@127.0.0.1:{other.port}/"
        ended = await command("check", broker__url=url, lcm__url=lcm.url)
    assert (ended.status, ended.err) == (1, "")
    assert levels(ended.out)["broker"] == "away"
    assert levels(ended.out)["lcm"] == "ok"
    assert "see broker.url" in ended.out
    assert "s3cret" not in ended.out


async def test_a_results_queue_that_nobody_wants_is_warned_of(vhost: str) -> None:
    """With results_queue false a results queue that still stands is a warning, no failure."""
    async with Simulator() as lcm, open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
        ended = await command("check", broker__url=vhost, lcm__url=lcm.url, broker__results_queue="false")
    assert ended.status == 0
    assert levels(ended.out)["queue lcm.outcome.results"] == "warn"
    assert "unbind or delete it" in ended.out


async def test_wrong_settings_are_all_told() -> None:
    """Every mistake is told on a line of its own, with its source, and nothing is tried."""
    ended = await command("check", lcm__sessions="none", broker__prefix="")
    assert (ended.status, ended.out) == (2, "")
    assert [line.split(":")[1].strip() for line in ended.err.splitlines()] == [
        "lcm.sessions",
        "broker.prefix",
    ]


async def test_a_health_address_that_is_no_host_is_told() -> None:
    """`health` asks nobody under a name that can't be one, and says so in one line; the status is 1."""
    ended = await command("health", health__listen="rabbit..example.com:8080")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert ended.err.startswith("lcm-worker: no answer from rabbit..example.com:8080/livez: ")
