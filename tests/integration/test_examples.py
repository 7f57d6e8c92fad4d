"""The examples for producers and consumers do what they say, in every language, as the users that they are for."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any
from uuid import uuid4

import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.support.broker import add_user
from tests.support.channel import depth, open_channel, take
from tests.support.commands import Ended, ending, environment
from tests.support.in_process import JOBS, RESULTS, quick, working
from tests.support.patience import PATIENCE
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.admin.definitions import Users, definitions_of, vhost_of
from worker.broker.topology import KEPT, topology_of
from worker.sandbox.node import Node
from worker.sandbox.server import ServerMissing, ensure_test_tools
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
OWN_QUEUE = "lcm.outcome.results.emea"
FULL: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
USERS = Users()
REPLIES = "amq.rabbitmq.reply-to.,dialer.replies."
JARS = [f"/usr/share/java/{name}.jar" for name in ("amqp-client", "gson", "slf4j-api", "slf4j-nop")]
_COMMANDS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "python": lambda name: (sys.executable, f"{name}.py"),
    "node": lambda name: ("node", f"{name}.js"),
    "java": lambda name: ("java", name.title()),
    "shell": lambda name: ("sh", f"{name}.sh"),
}
_DEADLINE = 60.0 * PATIENCE
LANGUAGES = pytest.mark.parametrize("language", _COMMANDS)
CLIENTS = pytest.mark.parametrize("language", [name for name in _COMMANDS if name != "shell"])


class Run:
    """One example under way, or at its end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self, stream: str = "stdout") -> str:
        """Wait for its next line; fail with what it complains of where it ends instead."""
        async with asyncio.timeout(_DEADLINE):
            line = await getattr(self._process, stream).readline()
            assert line, (await self.ended()).err
        return str(line.decode().rstrip("\n"))

    async def ended(self) -> Ended:
        """Wait for its end; return the rest of what it said."""
        async with asyncio.timeout(_DEADLINE):
            out, err = await self._process.communicate()
        assert self._process.returncode is not None
        return Ended(self._process.returncode, out.decode(), err.decode())


class Examples:
    """The examples in one language, for one vhost."""

    def __init__(self, folder: Path, language: str, url: str) -> None:
        self._folder = folder / language
        self._command = _COMMANDS[language]
        self._url = url

    @asynccontextmanager
    async def start(self, name: str, *arguments: str, user: str = "") -> AsyncIterator[Run]:
        """Start one, as this user."""
        url = self._url.replace("guest:guest", f"{user}:secret") if user else self._url
        process = await asyncio.create_subprocess_exec(
            *self._command(name),
            *arguments,
            cwd=self._folder,
            env=environment({}) | {"AMQP_URL": url, "CLASSPATH": ":".join([".", *JARS])},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        async with ending(process):
            yield Run(process)

    async def run(self, name: str, *arguments: str, user: str = "") -> Ended:
        """Run one to its end."""
        async with self.start(name, *arguments, user=user) as run:
            return await run.ended()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the examples, made ready as they say."""
    try:
        ensure_test_tools(install=False, say=pytest.fail)
    except ServerMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    copy = tmp_path_factory.mktemp("docs") / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("node_modules", "*.class"))
    for language, command in (
        ("node", ["npm", "ci", "--no-audit", "--no-fund"]),
        ("java", ["javac", "-cp", ":".join(JARS), *(file.name for file in copy.glob("java/*.java"))]),
    ):
        subprocess.run(command, cwd=copy / language, check=True)  # noqa: S603 - the commands stand right above
    return copy


@asynccontextmanager
async def at_work(broker: Node, vhost: str) -> AsyncIterator[tuple[AbstractChannel, Simulator]]:
    """Run a worker that replies and has no queue of results, beside the users that `topology export` makes."""
    topology = topology_of(broker_settings(vhost))
    definitions = definitions_of(topology, vhost=vhost_of(vhost), users=USERS, replies=True)
    for rights in definitions["permissions"]:
        await add_user(broker, rights.pop("user"), **rights)
    async with Simulator(Behaviour(rules=(Rule("bad*", "refuse"),))) as lcm, open_channel(vhost) as channel:
        settings = quick(vhost, lcm.url, BROKER__RESULTS_QUEUE=False, BROKER__REPLY_TO_PREFIXES=REPLIES)
        async with working(settings):
            yield channel, lcm


async def own_queue(channel: AbstractChannel) -> None:
    """Make the queue of the consumers as they make it, for the one that can't."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": KEPT["x-delivery-limit"]}
    await channel.queue_declare(OWN_QUEUE, durable=True, arguments=arguments)
    for status in ("succeeded", "failed"):
        await channel.queue_bind(OWN_QUEUE, RESULTS, f"result.{status}.emea")


async def publish_result(channel: AbstractChannel, body: bytes, message_id: str | None = None) -> None:
    """Publish a result as a worker would."""
    properties = spec.Basic.Properties(delivery_mode=2, message_id=message_id or str(uuid4()))
    await channel.basic_publish(
        body, exchange=RESULTS, routing_key="result.succeeded.emea", properties=properties, mandatory=True
    )


@CLIENTS
@pytest.mark.timeout_s(120)
async def test_a_producer_is_sure_of_each_job(language: str, folder: Path, broker: Node, vhost: str) -> None:
    """It says who it is; a refused job is published again, one that is returned is kept, and told as a mistake."""
    examples = Examples(folder, language, vhost)
    async with at_work(broker, vhost) as (channel, lcm):
        await channel.queue_declare("one job", arguments=FULL)
        await channel.queue_bind("one job", JOBS, "job")
        async with examples.start("producer", "18|1", "18|2", user=USERS.producer) as run:
            assert await run.says() == "confirmed 18|1"
            assert await run.says("stderr") == "refused; again in 1 s"
            taken = await take(channel, "one job")
            assert await run.ended() == Ended(0, "confirmed 18|2\n", "")
        properties, job = taken.header.properties, json.loads(taken.body)
        assert job == {"job_id": properties.message_id, "account_number": "18|1", "route": "emea"}
        assert (properties.delivery_mode, properties.content_type) == (2, "application/json")
        assert (properties.user_id, properties.app_id) == (USERS.producer, "dialer-example")
        assert properties.timestamp is not None

        await channel.queue_delete("one job")
        await channel.queue_unbind(JOBS, JOBS, "job")
        told = "returned: lcm.outcome.jobs has no queue for the key job; jobs kept: 2\n"
        assert await examples.run("producer", "18|3", "18|4", user=USERS.producer) == Ended(1, "", told)
        assert {exchange.account for exchange in lcm.record} <= {"18|1", "18|2"}


@LANGUAGES
@pytest.mark.timeout_s(120)
async def test_a_consumer_handles_each_result_once(
    language: str, folder: Path, broker: Node, vhost: str
) -> None:
    """It drops repeats, skips what it knows, and acknowledges what it has handled, and only that."""
    examples = Examples(folder, language, vhost)
    async with at_work(broker, vhost) as (channel, _):
        if language == "shell":
            await own_queue(channel)
        await channel.queue_declare("copies")
        await channel.queue_bind("copies", RESULTS, "result.#")
        async with examples.start("consumer", user=USERS.consumer) as consumer:
            assert await consumer.says() == f"consuming {OWN_QUEUE}"
            assert (await examples.run("producer", "18|1", user=USERS.producer)).status == 0
            copy = await take(channel, "copies")
            result, message_id = json.loads(copy.body), copy.header.properties.message_id
            ids = " ".join(outcome["id"] for outcome in result["outcomes"])
            assert await consumer.says() == f"changed 18|1 {ids}"
            await publish_result(channel, copy.body, message_id)
            repeat = f"{result['job_id']} succeeded" if language == "shell" else message_id
            assert await consumer.says() == f"repeat {repeat}"

            assert (await examples.run("producer", "18|1", "bad|1", user=USERS.producer)).status == 0
            failed, unchanged = sorted([await consumer.says(), await consumer.says()])
            assert unchanged == "unchanged 18|1"
            assert re.fullmatch("failed [0-9a-f-]{36} lcm_rejected", failed)

            changed = {"outcomes": result["outcomes"][:1], "fingerprint": "sha256:0"}
            await publish_result(channel, another(result, looked_up_at="2099-01-31T12:00:00.123Z", **changed))
            assert await consumer.says() == f"changed 18|1 {ids.split()[0]}"
            await publish_result(channel, another(result))
            assert await consumer.says() == "older 18|1"

            await publish_result(channel, b"not JSON")
            assert (await consumer.ended()).status != 0
        await until(lambda: holds(channel, OWN_QUEUE, 1))


@CLIENTS
async def test_a_request_has_its_answer(language: str, folder: Path, broker: Node, vhost: str) -> None:
    """It comes by direct reply-to; the producer's rights suffice; a queue that forgets takes the results."""
    examples = Examples(folder, language, vhost)
    async with at_work(broker, vhost) as (channel, _):
        await channel.queue_declare("forgets", arguments={"x-max-length": 1})
        await channel.queue_bind("forgets", RESULTS, "result.#")
        good = await examples.run("request", "18|1", user=USERS.producer)
        assert (good.status, good.err) == (0, "")
        assert good.out.splitlines()[-1].endswith(" Account 18|1")
        bad = await examples.run("request", "bad|1", user=USERS.producer)
        assert (bad.status, bad.out) == (1, "")
        assert bad.err.startswith("failed: ")
        assert "lcm_rejected" in bad.err
        assert await holds(channel, "lcm.outcome.undelivered", 0)
        assert await holds(channel, "forgets", 1)


async def test_a_request_of_the_shell_has_its_answer(folder: Path, broker: Node, vhost: str) -> None:
    """It comes to a queue of its own, which is gone afterwards."""
    examples = Examples(folder, "shell", vhost)
    async with at_work(broker, vhost):
        good = await examples.run("request", "18|1")
        assert (good.status, good.err) == (0, "")
        assert good.out.splitlines()[-1].endswith(" Account 18|1")
        bad = await examples.run("request", "bad|1")
        assert (bad.status, bad.out) == (1, "")
        assert bad.err.startswith("failed: lcm_rejected: ")
    name = vhost.rpartition("/")[2]
    assert "dialer.replies" not in await broker.ctl("list_queues", "-p", name, "name")


def another(result: dict[str, Any], **fields: object) -> bytes:
    """Return another result for the same account."""
    return json.dumps(result | {"job_id": str(uuid4())} | fields).encode()


async def holds(channel: AbstractChannel, queue: str, count: int) -> bool:
    return await depth(channel, queue) == count
