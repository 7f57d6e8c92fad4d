"""`check --management` against the management API of a real broker, and against what is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.support.broker import add_user, running_broker
from tests.support.certificates import Authority
from tests.support.channel import open_channel
from tests.support.commands import command
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.tls_front import TlsFront
from worker.broker.admin import management
from worker.broker.admin.inspect import Finding
from worker.broker.admin.management import check_policies
from worker.broker.admin.statistics import statistics_of
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.contract.errors import BrokerAway
from worker.sandbox.node import Node
from worker.settings import BrokerSettings

_numbers = count(1)


@pytest.fixture(scope="module")
def managed() -> Iterator[Node]:
    """Give a node of this file's own, with the management API."""
    with running_broker(Node(management=True)) as node:
        asyncio.run(until(lambda: serves(node)))
        yield node


async def serves(node: Node) -> bool:
    settings = broker_settings(node.url)
    found = await check_policies(settings, node.management_url)
    return [finding.level for finding in found] == ["ok", "unknown"]  # there are no queues yet


@pytest.fixture
def own(managed: Node) -> BrokerSettings:
    """Give the settings for an empty vhost, whose name needs quoting."""
    return broker_settings(asyncio.run(managed.add_vhost(f"a/b {next(_numbers)}")), retry_delays=["5s"])


async def set_policy(node: Node, kind: str, settings: BrokerSettings, pattern: str, **keys: object) -> None:
    definition = json.dumps({name.replace("_", "-"): value for name, value in keys.items()})
    vhost = settings.urls[0].rpartition("/")[2].replace("%2F", "/").replace("%20", " ")
    await node.ctl(f"set_{kind}", "-p", vhost, "--apply-to", "queues", f"{kind}-1", pattern, definition)


async def warnings(node: Node, settings: BrokerSettings) -> list[tuple[str, str]]:
    found = await check_policies(settings, node.management_url)
    return [(finding.what, finding.detail) for finding in found if finding.level == "warn"]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "not-yet"])
async def test_policies_that_may_lose_something(managed: Node, own: BrokerSettings, declared: bool) -> None:
    """Policies and operator policies are told by queue, name, key and loss, before and after queues are declared."""
    if declared:
        async with open_channel(own.urls[0]) as channel:
            await declare(channel, topology_of(own))
    await set_policy(managed, "policy", own, r"\.results$", overflow="drop-head", max_length=5)
    await set_policy(managed, "operator_policy", own, r"\.(dead|jobs)$", message_ttl=1000, delivery_limit=7)
    told = await warnings(managed, own)
    assert [what for what, _ in told] == [
        "queue lcm.outcome.dead",
        "queue lcm.outcome.dead",
        "queue lcm.outcome.results",
        "queue lcm.outcome.results",
        "queue lcm.outcome.jobs",
        "queue lcm.outcome.jobs",
    ]
    details = "\n".join(detail for _, detail in told)
    assert "policy 'policy-1' sets overflow to drop-head: " in details
    assert "policy 'policy-1' sets max-length to 5: the oldest results beyond it are lost" in details
    assert "operator policy 'operator_policy-1' sets message-ttl to 1000: dead letters that wait" in details
    assert "operator policy 'operator_policy-1' sets delivery-limit to 7: jobs that were returned" in details


async def test_what_it_says_of_drop_head_is_so(managed: Node, own: BrokerSettings) -> None:
    """The broker itself drops the oldest results by such a policy, although the queue's argument refuses."""
    async with open_channel(own.urls[0]) as channel:
        await declare(channel, topology_of(own))
        await set_policy(managed, "policy", own, r"\.results$", overflow="drop-head", max_length=2)
        for number in range(5):
            await channel.basic_publish(str(number).encode(), routing_key="lcm.outcome.results")
        assert (await channel.basic_get("lcm.outcome.results", no_ack=True)).body == b"3"


async def test_harmless_policies(managed: Node, own: BrokerSettings) -> None:
    """A policy for other queues, or with limits beyond ours, is no warning."""
    async with open_channel(own.urls[0]) as channel:
        await declare(channel, topology_of(own))
    await set_policy(managed, "policy", own, "^other", message_ttl=1)
    await set_policy(managed, "operator_policy", own, r"undelivered$", max_length=1_000_000)
    [policies, _] = await check_policies(own, managed.management_url)
    assert policies == Finding("ok", "policies", "none changes what these queues keep")


async def test_unacknowledged_jobs_are_counted(managed: Node, own: BrokerSettings) -> None:
    """What workers hold is told once the broker's statistics have it."""
    async with open_channel(own.urls[0]) as channel:
        await declare(channel, topology_of(own))
        await channel.basic_publish(b"{}", routing_key="lcm.outcome.jobs")
        await channel.basic_get("lcm.outcome.jobs")

        async def counted() -> bool:
            findings = await check_policies(own, managed.management_url)
            return findings[-1].detail.startswith("1 ")

        await until(counted)


async def test_who_may_not_ask_is_told_so(managed: Node, own: BrokerSettings) -> None:
    """A user of broker.url without the tag is refused with the remedy; one in the URL itself is taken."""
    await managed.add_vhost("plain")
    await add_user(managed, "plain", configure="", write="", read="")
    other = broker_settings(own.urls[0].replace("guest:guest", "plain:secret"))
    [away] = await check_policies(other, managed.management_url)
    assert (away.level, away.what) == ("away", "policies")
    assert "HTTP 401 Not management user" in away.detail
    assert "`rabbitmqctl set_user_tags USER management`" in away.detail
    with_user = managed.management_url.replace("http://", "http://guest:guest@")
    assert (await check_policies(broker_settings(own.urls[0]), f"{with_user}/api/"))[0].level == "ok"
    [wrong] = await check_policies(own, with_user.replace("guest@", "hunter2@"))
    assert "HTTP 401" in wrong.detail
    assert "hunter2" not in wrong.detail


@asynccontextmanager
async def answering(words: bytes) -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(words)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"AMQP\x00\x00\x09\x01", "speaks no HTTP: 'AMQP"),
        (b"", "closed connection without response"),
        (b"HTTP/1.1 301 Moved\r\n\r\n", "HTTP 301 Moved"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP 404 Not Found"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\nno", "HTTP 403 refused"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n" + b"[" * 100_000, "HTTP 403 refused"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "no management API"),
        (b"HTTP/1.1 200 OK\r\n\r\n7", "no management API"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000, "no management API"),
        (b"HTTP/1.1 200 OK\r\n\r\n[{}]", "no management API"),
    ],
)
async def test_what_is_no_management_api_is_told(words: bytes, said: str) -> None:
    """Whatever answers there, it is one line with the remedy."""
    async with answering(words) as url:
        [away] = await check_policies(broker_settings("amqp://a:b@127.0.0.1/"), url)
    assert (away.level, away.what) == ("away", "policies")
    assert said in away.detail


@pytest.mark.parametrize(
    ("piece", "said"),
    [(bytes(2**16), "the answer is longer than 1024 KiB"), (b" ", "no whole answer within 0.2 s")],
    ids=["endless", "dripping"],
)
async def test_an_answer_without_end_is_given_up(
    piece: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bounds are for the whole answer, and what came until then is not taken for one."""
    if len(piece) == 1:
        monkeypatch.setattr(management, "_TIMEOUT", 0.2)
    monkeypatch.setattr(management, "_MOST_BYTES", 2**20)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        [away] = await check_policies(broker_settings("amqp://a:b@127.0.0.1/"), url)
    assert away.level == "away"
    assert f"{url}: {said}" in away.detail


async def test_what_it_does_not_tell_is_unknown() -> None:
    """An API without statistics, or without our queues, is no ground for saying that nobody holds a job."""
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n[]") as url:
        found = await check_policies(broker_settings("amqp://a:b@127.0.0.1/"), url)
    assert {finding.what: finding.level for finding in found}["unacknowledged jobs"] == "unknown"


@pytest.mark.parametrize("url", ["http://a b:15672", "http://[::1]", "https://127.0.0.1:1"])
async def test_addresses_that_lead_nowhere(url: str, tmp_path: Path) -> None:
    """A host that can't be, an address of IPv6 without a port, TLS with files that can't be used: one line each."""
    ca = tmp_path / "ca.pem"
    ca.write_text("no certificate")
    [away] = await check_policies(broker_settings("amqp://a:b@127.0.0.1/", ca_file=str(ca)), url)
    assert (away.level, away.what) == ("away", "policies")


async def test_nobody_there() -> None:
    """Where nothing listens, the address and the plugin to enable are named."""
    async with answering(b"") as url:
        pass
    for gone, said in ((url, "Connection refused"), ("https://nobody.invalid:1", "nobody.invalid:1: ")):
        [away] = await check_policies(broker_settings("amqp://a:b@127.0.0.1/"), gone)
        assert said in away.detail
        assert "rabbitmq_management" in away.detail


async def test_tls_that_fails(tmp_path: Path) -> None:
    """An API that this host does not trust, or that has no TLS, is told with the setting or option to look at."""
    settings = broker_settings("amqp://a:b@127.0.0.1/")
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n[]") as url:
        [away] = await check_policies(settings, url.replace("http:", "https:"))
        assert away.detail.endswith(
            "it does not speak TLS; write http:// in --management, or name the port with TLS"
        )
        async with TlsFront(Authority(tmp_path).server_context(), url) as front:
            [away] = await check_policies(settings, front.url)
            assert "name the authority that signed it in broker.ca_file" in away.detail


async def test_statistics_of_results_without_a_queue(managed: Node, own: BrokerSettings) -> None:
    """`status --management` knows where results go, and what a consumer holds; bound to nothing is status 1."""
    async with open_channel(own.urls[0]) as channel:
        await declare(channel, topology_of(own))
        told = await statistics_of(own, managed.management_url)
        assert told.results_to == (("lcm.outcome.results", "#"),)
        await channel.queue_unbind("lcm.outcome.results", "lcm.outcome.results", "#")
        ended = await command(
            "status",
            "--management",
            managed.management_url,
            broker__url=own.urls[0],
            broker__retry_delays="5s",
        )
    document = json.loads(ended.out)
    assert (ended.status, document["results_to"]) == (1, [])
    assert document["findings"][0]["detail"].startswith(
        "no queue is bound to the exchange lcm.outcome.results"
    )


async def test_the_password_of_another_user_comes_from_a_file(
    managed: Node, own: BrokerSettings, tmp_path: Path
) -> None:
    """A user of the management API needs no password on the command line; one there is taken, and told."""
    vhost = own.urls[0].rpartition("/")[2].replace("%2F", "/").replace("%20", " ")
    for arguments in (
        ("add_user", "watcher", "s3:cret"),
        ("set_user_tags", "watcher", "monitoring"),
        ("set_permissions", "-p", vhost, "watcher", "", "", ".*"),
    ):
        await managed.ctl(*arguments)
    (tmp_path / "password").write_text("s3:cret\n")
    (tmp_path / "password").chmod(0o600)
    url = managed.management_url
    settings = {"broker__url": own.urls[0], "broker__retry_delays": "5s"}
    from_file = await command(
        *("status", "--management", url.replace("://", "://watcher@")),
        *("--management-password-file", tmp_path / "password"),
        **settings,
    )
    from_url = await command(
        "status", "--management", url.replace("://", "://watcher:s3%3Acret@"), **settings
    )
    without = await command("status", "--management", url.replace("://", "://watcher@"), **settings)
    assert [json.loads(each.out)["results_to"] for each in (from_file, from_url, without)] == [[], [], None]
    assert (from_file.err, without.err) == ("", "")
    assert "by --management-password-file" in from_url.err
    assert "s3" not in from_url.err


async def test_statistics_of_what_is_no_management_api(own: BrokerSettings) -> None:
    """JSON that is not the API's is told as such."""
    async with answering(b'HTTP/1.0 200 OK\r\n\r\n[{"no": 1}]') as url:
        with pytest.raises(BrokerAway, match="is no management API"):
            await statistics_of(own, url)
