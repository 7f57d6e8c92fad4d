"""Request and response over AMQP: a job's `reply_to`, with a real worker, against a real broker."""

from __future__ import annotations

import asyncio
import random
from base64 import b64encode
from contextlib import suppress
from typing import Any

import aiormq
import msgspec
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.common import FieldTable

from tests.support.channel import open_channel, take
from tests.support.commands import worker
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.sandbox.node import Node
from worker.simulator.behaviour import Behaviour, Rule
from worker.simulator.server import Simulator

JOBS, RESULTS, DEAD = (f"lcm.outcome.{name}" for name in ("jobs", "results", "dead"))
DIRECT = "amq.rabbitmq.reply-to"
REFUSED = Behaviour(rules=(Rule("refused|*", "refuse"),))


async def ask(channel: AbstractChannel, account: str, reply_to: str, **properties: Any) -> None:
    """Publish a job that names a queue for its result, confirmed."""
    await channel.basic_publish(
        msgspec.json.encode({"job_id": f"job-{account}", "account_number": account}),
        routing_key=JOBS,
        properties=aiormq.spec.Basic.Properties(reply_to=reply_to, delivery_mode=2, **properties),
        mandatory=True,
    )


async def test_a_caller_gets_its_result_by_direct_reply_to(vhost: str) -> None:
    """A caller without any queue of its own gets success and failure alike, with its correlation id and body."""
    async with (
        Simulator(REFUSED) as lcm,
        worker(vhost, lcm.url, broker__reply_to_prefixes=f'["{DIRECT}."]') as running,
        open_channel(vhost) as channel,
    ):
        replies: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        await channel.basic_consume(DIRECT, replies.put, no_ack=True)
        for account in ("1|2", "refused|2"):
            await ask(channel, account, DIRECT, correlation_id=f"call-{account}")
            async with asyncio.timeout(60):
                reply = await replies.get()
            result = await take(channel, RESULTS)
            assert reply.header.properties.correlation_id == f"call-{account}"
            assert reply.header.properties.message_id == result.header.properties.message_id
            assert reply.body == result.body
        assert running.of("reply.") == []


def forged(draw: random.Random) -> str:
    """A name as of a direct reply-to: a process that there is not, in part changed somewhere."""
    process = bytearray(b"\x83Xv\x00\x0ereply@29518564" + draw.randbytes(12))
    for _ in range(draw.randrange(3)):
        process[draw.randrange(len(process))] = draw.randrange(256)
    return (
        f"{DIRECT}.{b64encode(process[: draw.choice((9, 30, 31, 31))]).decode()}.{draw.choice(('', 'AAAA'))}"
    )


async def test_a_forged_direct_reply_to_ends_no_connection_but_that_of_replies(vhost: str) -> None:
    """RabbitMQ ends a connection on which one publishes to such a name, and results are not to wait for that."""
    draw = random.Random(1)  # noqa: S311 - no secret
    names = [f"{DIRECT}.x.y", f"{DIRECT}.ü.k", *(forged(draw) for _ in range(98))]
    async with (
        Simulator() as lcm,
        worker(vhost, lcm.url, broker__reply_to_prefixes=f'["{DIRECT}."]') as running,
        open_channel(vhost) as channel,
    ):
        for number, name in enumerate(names):
            await ask(channel, f"{number}|2", name)
        await running.logged("job.succeeded", len(names))
        await until(lambda: running.of("reply.lost"))
        replies: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        await channel.basic_consume(DIRECT, replies.put, no_ack=True)

        async def is_answered() -> bool:
            await ask(channel, "1|2", DIRECT)
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    return bool(await replies.get())
            return False

        await until(is_answered)
        assert {line["role"] for line in running.of("broker.lost")} == {"reply"}


async def test_who_is_not_allowed_gets_none(vhost: str) -> None:
    """A queue outside the prefixes, and one of our own within them, get nothing; the log says so, the job succeeds."""
    async with (
        Simulator() as lcm,
        worker(vhost, lcm.url, broker__reply_to_prefixes='["dialer.", "lcm."]') as running,
        open_channel(vhost) as channel,
    ):
        await channel.queue_declare("private", durable=True)
        await ask(channel, "1|2", "private")
        await ask(channel, "1|3", JOBS)
        await running.logged("reply.refused", 2)
        await running.logged("job.succeeded", 2)
        reasons = {line["reply_to"]: line["reason"] for line in running.of("reply.refused")}
        assert "reply_to_prefixes" in reasons["private"]
        assert "this worker's own" in reasons[JOBS]
        assert (await channel.queue_declare("private", passive=True)).message_count == 0
        assert (await channel.queue_declare(JOBS, passive=True)).message_count == 0


async def test_a_caller_that_is_gone_holds_nothing(vhost: str) -> None:
    """Neither a queue that isn't there nor one that refuses keeps a job; the reply is logged as lost."""
    full: FieldTable = {"x-max-length": 0, "x-overflow": "reject-publish"}
    async with (
        Simulator() as lcm,
        worker(vhost, lcm.url, broker__reply_to_prefixes='["dialer."]') as running,
        open_channel(vhost) as channel,
    ):
        await channel.queue_declare("dialer.full", durable=True, arguments=full)
        await ask(channel, "1|2", "dialer.gone")
        await ask(channel, "1|3", "dialer.full")
        lost = await running.logged("reply.lost", 2)
        await running.logged("job.succeeded", 2)
        assert {line["reply_to"] for line in lost} == {"dialer.gone", "dialer.full"}
        assert len({(await take(channel, RESULTS)).body for _ in range(2)}) == 2


async def test_a_forbidden_reply_costs_the_results_nothing(broker: Node, vhost: str) -> None:
    """Pitfall: a refused publish closes its channel; results go on over theirs, and the link stays up."""
    name = vhost.rpartition("/")[2]
    await broker.ctl("add_user", f"narrow-{name}", "secret")
    await broker.ctl("set_permissions", "-p", name, f"narrow-{name}", ".*", r"^lcm\.outcome\..*", ".*")
    narrow = vhost.replace("guest:guest", f"narrow-{name}:secret")
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
        await channel.queue_declare("dialer.1", durable=True)
        async with (
            Simulator() as lcm,
            worker(narrow, lcm.url, broker__reply_to_prefixes='["dialer."]') as running,
        ):
            for account in ("1|2", "1|3"):
                await ask(channel, account, "dialer.1")
            lost = await running.logged("reply.lost", 2)
            await running.logged("job.succeeded", 2)
            assert all("ACCESS_REFUSED" in line["reason"] for line in lost)
            assert not running.of("broker.lost")


async def test_a_retried_job_keeps_its_caller(vhost: str) -> None:
    """A copy in a retry queue carries the caller along, so the result of a later delivery still reaches it."""
    flaky = Behaviour(rules=(Rule("*", "not-json", limit=1),))
    async with (
        Simulator(flaky) as lcm,
        worker(
            vhost,
            lcm.url,
            broker__reply_to_prefixes=f'["{DIRECT}."]',
            broker__retry_delays='["100ms"]',
            retry__attempts=1,
        ) as running,
        open_channel(vhost) as channel,
    ):
        replies: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        await channel.basic_consume(DIRECT, replies.put, no_ack=True)
        await ask(channel, "1|2", DIRECT)
        async with asyncio.timeout(60):
            reply = await replies.get()
        assert msgspec.json.decode(reply.body)["status"] == "succeeded"
        assert len(running.of("job.retry_later")) == 1


async def test_a_message_that_still_says_direct_reply_to_is_no_trap(broker: Node, vhost: str) -> None:
    """Pitfall: a copy that kept the bare name would close the publishing channel again and again."""
    async with Simulator(REFUSED) as lcm, worker(vhost, lcm.url) as running, open_channel(vhost) as channel:
        # The broker checks reply_to where a client publishes, but not where its own code does, such as a plugin's.
        await broker.eval(publish_inside(vhost.rpartition("/")[2], JOBS))
        await running.logged("job.failed")
        letter = await take(channel, DEAD)
        assert letter.header.properties.reply_to is None
        await until(lambda: running.of("reply.refused"))
        assert not running.of("broker.lost")


def publish_inside(vhost: str, queue: str) -> str:
    """Return the Erlang by which the node itself publishes a job whose reply_to is the bare name."""
    body = msgspec.json.encode({"account_number": "refused|9", "job_id": "bare"})
    return (
        f'begin Exchange = rabbit_misc:r(<<"{vhost}">>, exchange, <<>>), '
        f'Properties = [{{reply_to, <<"{DIRECT}">>}}, {{delivery_mode, 2}}], '
        f'Message = rabbit_basic:message(Exchange, <<"{queue}">>, Properties, <<{",".join(map(str, body))}>>), '
        "case erlang:function_exported(rabbit_basic, publish, 1) of "
        "true -> rabbit_basic:publish(rabbit_basic:delivery(false, false, Message, undefined)); "
        "false -> rabbit_queue_type:publish_at_most_once(Exchange, Message) end end"
    )
