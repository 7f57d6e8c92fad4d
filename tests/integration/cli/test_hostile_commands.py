"""Every command on a terminal, with text that would take it over wherever text comes from outside."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiormq import spec
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection

from tests.support.channel import depth, open_channel, take
from tests.support.commands import Ended, on_terminal
from tests.support.dead_letters import Dead, publish_dead_letters
from tests.support.lcm import answering, peer, reply
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.simulator import documents

ACCOUNT = "18|1|2|0|0|44|274"
HOSTILE = "evil\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\x7f\u202egnp\u2066\u2028end"
AMQP_HOSTILE = HOSTILE[:120]
Command = tuple[dict[str, str], tuple[str, ...]]
"""Variables and arguments."""
NOWHERE: dict[str, Any] = {"broker__url": "amqp://127.0.0.1:1/", "lcm__url": "ws://127.0.0.1:1/"}
# Colours, and what a live view needs: cursor and screen switched, moved, a line erased.
_OWN = re.compile(r"\x1b\[(?:[0-9;]*[mHlKA]|\?25[lh]|\?1049[lh])|\r")
# Commands one after the other in one process, since each start takes half a second.
_EACH = """
import json, os, sys
from worker.cli import main
for variables, argv in json.loads(sys.argv[1]):
    os.environ.update(variables)
    sys.argv = ["lcm-worker", *argv]
    try:
        main()
    except SystemExit:
        pass
    for name in variables:
        del os.environ[name]
"""


def taken_over(ended: Ended) -> list[str]:
    """Return each character, with what stands around it, that is neither printable nor of the library's own."""
    plain = _OWN.sub("", ended.out).replace("\n", "")
    return [plain[max(0, at - 60) : at + 20] for at, char in enumerate(plain) if not char.isprintable()]


async def each_on_terminal(*commands: Command, **settings: Any) -> Ended:
    return await on_terminal(
        "-c", _EACH, json.dumps(commands), columns=200, program=sys.executable, **settings
    )


ARGUMENTS = [
    (HOSTILE,),
    ("dead", HOSTILE),
    ("check", f"--{HOSTILE}"),
    ("check", "--config", f"/nowhere/{HOSTILE}"),
    ("check", "--management", HOSTILE),
    ("check", "--management", f"http://{HOSTILE}"),
    ("health", "--timeout", HOSTILE),
    ("lookup", HOSTILE),
    ("lookup", "--json", HOSTILE),
    ("submit", f"/nowhere/{HOSTILE}"),
    ("submit", "/dev/null", "--wait", "--output", f"/nowhere/{HOSTILE}"),
    ("submit", "-", "--format", HOSTILE),
    ("submit", "/dev/null", "--collect", HOSTILE),
    ("top", "--once", f"/nowhere/{HOSTILE}"),
    ("dead", "list", "--since", HOSTILE),
    ("dead", "show", HOSTILE),
    ("dead", "drop", "--all", "--yes", "--output", f"/nowhere/{HOSTILE}"),
    ("undelivered", "list", "--routing-key", HOSTILE),
    ("topology", "export", "--worker-user", HOSTILE),
    ("simulate", "--host", HOSTILE),
    ("simulate", "--port", "0", "--record", f"/nowhere/{HOSTILE}"),
    ("simulate", "--fault", HOSTILE),
    ("simulate", "--account", f"{HOSTILE}=close:x"),
    ("simulate", "--scenario", HOSTILE),
]


async def test_arguments() -> None:
    """Whatever an argument holds, as a script may pass it on, the error or the answer shows it with escapes."""
    ended = await each_on_terminal(*(({}, each) for each in ARGUMENTS), **NOWHERE)
    assert taken_over(ended) == []
    assert (
        ended.out.count("evil") >= len(ARGUMENTS) - 5
    )  # where the broker or LCM is away, nothing else is told
    assert "Traceback" not in ended.out


SETTINGS = [
    "broker.url", "broker.prefix", "broker.ca_file", "broker.password_file", "broker.retry_delays",
    "broker.reply_to_prefixes", "lcm.url", "lcm.username", "lcm.headers", "lcm.greeting", "lcm.session_name",
    "lcm.proxy", "lcm.session_errors", "lcm.subprotocols", "log.level", "log.format", "worker.name", "health.listen",
    "retry.attempts", "retry.first_delay",
]  # fmt: skip


async def test_settings(tmp_path: Path) -> None:
    """Whatever a variable or the file holds, mistakes and `config show` show what they show of it with escapes."""
    variables = [{f"LCM_WORKER_{name.upper().replace('.', '__')}": HOSTILE} for name in SETTINGS]
    commands: list[Command] = [
        (each, ("config", "show")) for each in (*variables, {"LCM_WORKER_LCM__EVIL\x1b[2J\x9b31m": "x"})
    ]
    for number, text in enumerate(
        (
            "[lcm]\nusername = 1\n" + HOSTILE,
            f"[{json.dumps(HOSTILE)}]\n{json.dumps(HOSTILE)} = 1",
            f"[lcm]\nusername = {json.dumps(HOSTILE)}\n[log]\nlevel = {json.dumps(HOSTILE)}",
        )
    ):
        file = tmp_path / f"{number}-{HOSTILE}.toml"
        file.write_text(text)
        commands.append(({}, ("config", "show", "--config", str(file))))
    commands += [({"LCM_WORKER_LOG__LEVEL": HOSTILE}, (name,)) for name in ("run", "check", "health")]
    ended = await each_on_terminal(*commands)
    assert taken_over(ended) == []
    assert "lcm.username: must not hold line breaks" in ended.out
    assert ended.out.count("evil") >= 3  # the names of the files; of most of what is wrong nothing is shown
    assert "Traceback" not in ended.out


async def test_files_of_accounts(vhost: str, tmp_path: Path) -> None:
    """Fields and names of files of jobs are shown with escapes in what is wrong with them."""
    quoted = json.dumps(HOSTILE)
    files = {
        "accounts.csv": f"account_number,{HOSTILE}\n1|1,{HOSTILE}\n",
        "deadline.csv": f'account_number,deadline\n1|1,"{HOSTILE}"\n',
        "route.jsonl": f'{{"account_number": "1", "route": {quoted}}}\n',
        "key.jsonl": f'{{"account_number": 1, {quoted}: 1}}\n',
        "no.jsonl": f'{{"account_number": {HOSTILE}\n',
        "plain.txt": f'# {HOSTILE}\n{HOSTILE}\n"{HOSTILE}\n',
        f"{HOSTILE}.txt": "1,5E+10\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
    commands: list[Command] = [({}, ("submit", str(tmp_path / name))) for name in files]
    ended = await each_on_terminal(*commands, broker__url=vhost)
    assert taken_over(ended) == []
    assert ended.out.count("evil") >= 2  # an account is no mistake, and a mistake may show other things
    assert "Traceback" not in ended.out
    told = await on_terminal("lookup", "-", told=f'# {HOSTILE}\n"{HOSTILE}\n{HOSTILE}\n'.encode(), **NOWHERE)
    assert taken_over(told) == []


LINES: list[dict[str, Any]] = [
    {
        "event": "job.failed",
        "error": HOSTILE,
        "reason": HOSTILE,
        "job_id": HOSTILE,
        "account": HOSTILE,
        "app_id": HOSTILE,
    },
    {"event": "job.failed", "error": "lcm_rejected", "said": HOSTILE, "user_id": HOSTILE, "app_id": HOSTILE},
    {"event": "job.succeeded", "source": HOSTILE, "lcm_ms": 1.0},
    {"event": "job.deferred", "reason": HOSTILE},
    {"event": "worker.paused", "reason": HOSTILE},
    {"event": "lcm.outage_started", "reason": HOSTILE},
    {"event": "lcm.session_failed", "error": HOSTILE},
    {"event": "lcm.session_closed", "reason": HOSTILE},
    {"event": "broker.lost", "reason": HOSTILE, "role": HOSTILE},
    {"event": "result.undelivered", "reason": HOSTILE, "routing_key": HOSTILE, "waiting": 3},
    {"event": "worker.started", "version": HOSTILE, "lcm": HOSTILE, "broker": HOSTILE, "prefix": HOSTILE},
    {"event": HOSTILE},
]


async def test_top() -> None:
    """A log of every event with hostile fields, and lines that are none, harm neither the live view nor the summary."""
    log = [
        {"timestamp": "2026-01-31T12:00:00Z", "level": HOSTILE, "worker": HOSTILE} | each for each in LINES
    ]
    odd = [HOSTILE, f"{{{HOSTILE}", json.dumps(HOSTILE), json.dumps({"event": {HOSTILE: [HOSTILE]}})]
    text = "".join(f"{each}\n" for each in (*map(json.dumps, log), *odd)).encode()
    for options in (("--once",), ("--once", "--json"), ()):
        ended = await on_terminal("top", *options, columns=160, told=text)
        assert (taken_over(ended), "evil" in ended.out, "Traceback" in ended.out) == ([], True, False)


async def test_letters_and_parked_results(vhost: str) -> None:
    """`dead` and `undelivered` show, replay, send and drop what holds hostile text, in tables, pages and JSON."""
    letter = Dead("e-1", HOSTILE, HOSTILE, headers={"x": HOSTILE, HOSTILE: "x"}, app_id=AMQP_HOSTILE)
    other = Dead(HOSTILE, body=HOSTILE.encode())
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [letter, other])
        headers: dict[str, Any] = {"outcome-routing-key": f"result.{AMQP_HOSTILE}", HOSTILE: HOSTILE}
        parked = spec.Basic.Properties(
            headers=headers, message_id=AMQP_HOSTILE, app_id=AMQP_HOSTILE, user_id="guest"
        )
        for _ in range(2):
            body = msgspec.json.encode({"job_id": HOSTILE, "status": HOSTILE})
            await channel.basic_publish(body, routing_key="lcm.outcome.undelivered", properties=parked)
        commands = [
            (group, action, *options)
            for group in ("dead", "undelivered")
            for action, *options in (
                ("list",), ("list", "--json"), ("show", "--limit", "9"), ("show", "--json", "--limit", "9"),
                ("replay" if group == "dead" else "send", "--all", "--dry-run"), ("drop", "--all", "--dry-run"),
                ("replay" if group == "dead" else "send", "--all"), ("drop", "--all", "--yes"),
            )
        ]  # fmt: skip
        ended = await each_on_terminal(*(({}, each) for each in commands), broker__url=vhost)
    assert taken_over(ended) == []
    assert ended.out.count("evil") > len(commands)
    assert "Traceback" not in ended.out


async def forge(url: str, results: list[bytes]) -> None:
    """Answer each job with one of these, as whoever may publish results can, and with what is no result."""
    async with open_channel(url) as channel:
        for result in results:
            job = msgspec.json.decode((await take(channel, "lcm.outcome.jobs")).body)
            properties = spec.Basic.Properties(headers={HOSTILE: HOSTILE}, message_id=AMQP_HOSTILE)
            strangers = (forged(job_id=HOSTILE), forged(account_number=HOSTILE))
            for body in (HOSTILE.encode(), b"[]", *strangers, result):
                await channel.basic_publish(
                    body.replace(b"JOB", job["job_id"].encode()).replace(
                        b"ACCOUNT", job["account_number"].encode()
                    ),
                    exchange="lcm.outcome.results",
                    routing_key=f"result.failed.{job['route']}",
                    properties=properties,
                )


def forged(**fields: Any) -> bytes:
    result = {
        "job_id": "JOB", "account_number": "ACCOUNT", "status": "failed", "warnings": [HOSTILE], "attempts": 1,
        "error": {"code": HOSTILE, "message": HOSTILE, "transient": False}, "completed_at": HOSTILE,
        "duration_ms": 1, "worker": HOSTILE, "metadata": {HOSTILE: HOSTILE},
    }  # fmt: skip
    return msgspec.json.encode(result | fields)


OUTCOMES = [{"id": HOSTILE, "code": HOSTILE, "description": HOSTILE}]


@pytest.mark.parametrize(
    "options", [(), ("--output-format", "jsonl"), ("--output-format", "csv")], ids=" ".join
)
async def test_forged_results(vhost: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    """What `submit --wait` shows of results is printable, whoever published them, and whatever they hold."""
    file = tmp_path / "accounts.txt"
    file.write_text("1|1\n2|2\n3|3\n")
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
    found = {"status": "succeeded", "fingerprint": HOSTILE, "source": HOSTILE, "looked_up_at": HOSTILE}
    results = [forged(), forged(status=HOSTILE), forged(outcomes=OUTCOMES, **found)]
    command = ("submit", str(file), "--wait", "--timeout", "5s", *options)
    ended, _ = await asyncio.gather(
        on_terminal(*command, columns=160, broker__url=vhost), forge(vhost, results)
    )
    assert (taken_over(ended), "evil" in ended.out, "Traceback" in ended.out) == ([], True, False)


async def test_handshakes_of_lcm(vhost: str) -> None:
    """Status line, headers and close reason of an LCM are shown with escapes, by `check` and by `lookup`."""
    raw = HOSTILE.encode("latin-1", "replace")

    async def say_no(lcm: ServerConnection) -> None:
        await lcm.close(4401, HOSTILE)

    heads = [
        b"HTTP/1.1 403 %b\r\nLocation: %b\r\nRetry-After: %b\r\n\r\n" % (raw, raw, raw),
        b"HTTP/1.1 101 %b\r\nUpgrade: %b\r\nConnection: %b\r\n\r\n" % (raw, raw, raw),
        b"HTTP/1.1 101 x\r\nUpgrade: evil\x9b31m\r\nConnection: Upgrade\r\n\r\n",
        b"%b\r\n\r\n" % raw,
    ]
    async with AsyncExitStack() as stack:
        urls = [f"ws://{await stack.enter_async_context(answering(head))}/" for head in heads]
        urls.append(await stack.enter_async_context(peer(say_no)))
        each: list[Command] = [({"LCM_WORKER_LCM__URL": url}, ("lookup", ACCOUNT)) for url in urls]
        each += [({"LCM_WORKER_LCM__URL": url}, ("check",)) for url in urls[-3:]]
        ended = await each_on_terminal(*each, broker__url=vhost)
    assert taken_over(ended) == []
    assert ended.out.count("evil") >= 3
    assert "Traceback" not in ended.out


async def test_brokers_and_health_servers_that_are_none() -> None:
    """What a server says that is no broker, no management API or no worker is shown with escapes."""
    raw = HOSTILE.encode()
    body = b"HTTP/1.1 503 %b\r\nContent-Length: %d\r\n\r\n%b" % (raw, len(raw), raw)
    closing = b'{"reason": %b}' % json.dumps(HOSTILE).encode()
    refusing = b"HTTP/1.1 403 x\r\nContent-Length: %d\r\n\r\n%b" % (len(closing), closing)
    async with saying(raw) as broker, answering(body) as health, answering(refusing, refusing) as management:
        each: list[Command] = [
            ({"LCM_WORKER_BROKER__URL": f"amqp://{broker}/"}, ("dead", "list")),
            (
                {"LCM_WORKER_BROKER__URL": f"amqp://{broker}/"},
                ("check", "--management", f"http://{management}"),
            ),
            ({"LCM_WORKER_BROKER__URL": f"amqp://{broker}/"}, ("submit", "/dev/null")),
            ({"LCM_WORKER_HEALTH__LISTEN": health}, ("health",)),
            ({"LCM_WORKER_HEALTH__LISTEN": broker}, ("health",)),
        ]
        ended = await each_on_terminal(*each, lcm__url=NOWHERE["lcm__url"])
    assert taken_over(ended) == []
    assert ended.out.count("evil") >= 4
    assert "Traceback" not in ended.out


@asynccontextmanager
async def saying(words: bytes) -> AsyncIterator[str]:
    """Give the address of a server that says this to whoever connects, and hangs up."""

    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1") as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_queues_of_a_broker(vhost: str) -> None:
    """The arguments that a queue of ours has already are in the broker's words: shown with escapes, in the log too."""
    async with open_channel(vhost) as channel:
        arguments: Any = {"x-queue-type": "quorum", "x-dead-letter-exchange": HOSTILE}
        await channel.queue_declare("lcm.outcome.jobs", durable=True, arguments=arguments)
        each: list[Command] = [
            ({}, command) for command in (("topology", "apply"), ("check",), ("run",), ("topology", "show"))
        ]
        ended = await each_on_terminal(*each, broker__url=vhost, lcm__url=NOWHERE["lcm__url"])
    assert taken_over(ended) == []
    assert ended.out.count("evil") >= 3
    assert "Traceback" not in ended.out


async def test_a_workers_log_on_a_terminal(vhost: str) -> None:
    """Jobs and replies with hostile text in every field are lines of printable characters in the log of `run`."""

    async def answer(lcm: ServerConnection) -> None:
        async for request in lcm:
            bad = "reject" in str(request)
            text = (
                documents.reply({"success": False, "msg": HOSTILE})
                if bad
                else reply([{"OutComeID": HOSTILE, "Description": HOSTILE}])
            )
            await lcm.send(text, text=True)

    jobs = [
        HOSTILE.encode(),
        msgspec.json.encode({"account_number": ACCOUNT, "job_id": HOSTILE}),
        msgspec.json.encode({"account_number": f"reject{HOSTILE[-8:]}", "job_id": HOSTILE}),
        msgspec.json.encode({"account_number": HOSTILE, "job_id": "j"}),
        msgspec.json.encode(
            {"account_number": ACCOUNT, "route": HOSTILE, "deadline": HOSTILE, "metadata": HOSTILE}
        ),
    ]
    properties = spec.Basic.Properties(
        headers={HOSTILE: HOSTILE}, message_id=AMQP_HOSTILE, app_id=AMQP_HOSTILE, reply_to=AMQP_HOSTILE,
        content_encoding=AMQP_HOSTILE,
    )  # fmt: skip
    async with peer(answer) as url, open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
        for job in jobs:
            await channel.basic_publish(job, routing_key="lcm.outcome.jobs", properties=properties)

        async def all_ended() -> bool:
            return await depth(channel, "lcm.outcome.results") >= len(jobs)

        settings: dict[str, Any] = {"broker__url": vhost, "lcm__url": url, "worker__name": "w-1"}
        ended = await on_terminal("run", columns=160, meanwhile=until(all_ended), **settings)
    assert taken_over(ended) == []
    assert ended.out.count("evil") >= len(jobs)


async def test_requests_to_the_simulator() -> None:
    """Whatever a client sends to `simulate`, its terminal shows nothing of it that is not printable."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def harass() -> None:
        async for connection in connect(
            f"ws://127.0.0.1:{port}/?evil", additional_headers={"X-Evil": "\x9b31m"}
        ):
            for text in (HOSTILE, json.dumps({"data": {"AccountNumber": HOSTILE}, HOSTILE: HOSTILE})):
                await connection.send(text)
            await connection.close()
            break
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /%b HTTP/1.1\r\nUpgrade: %b\r\n\r\n" % (HOSTILE.encode(), HOSTILE.encode()))
        await reader.read()
        writer.close()

    ended = await on_terminal("simulate", "--port", str(port), meanwhile=harass())
    assert taken_over(ended) == []
    assert "Traceback" not in ended.out
