"""Secrets and account numbers are planted wherever they may be; everything goes wrong; then they are looked for."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.support.canaries import Canary, canary, echo, found
from tests.support.channel import depth, open_channel, take_all
from tests.support.commands import Worker, command, on_terminal
from tests.support.in_process import DEAD, JOBS, quick
from tests.support.lcm import reply
from tests.support.waiting import running, until
from worker.app import App
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.contract import result
from worker.observability.log import RecordLog, build_log
from worker.settings import LogSettings, Scrubber, Settings
from worker.simulator import documents

UNDELIVERED = "lcm.outcome.undelivered"
BROKER, BROKER_QUERY = canary("brokerpw"), canary("brokerquery")
TOKEN, NAMELESS, PASSWORD = canary("urltoken"), canary("nameless"), canary("password")
HEADER, COOKIE, GREETING = canary("header", plain=True), canary("cookie", plain=True), canary("greeting")
LONG = canary("longgreetingpart", plain=True)
SECRETS = (BROKER, BROKER_QUERY, TOKEN, NAMELESS, PASSWORD, HEADER, COOKIE, GREETING, LONG)
LOGIN = {
    "channel": "LCM",
    "topic": "WebService",
    "subtopic": "Login",
    "message": {"token": GREETING.value, "other": LONG.value},
}
EVENTS = (
    "broker.connected", "lcm.session_failed", "lcm.outage_started", "job.deferred", "job.succeeded", "job.failed",
    "job.retry_later", "reply.refused", "reply.lost", "result.undelivered", "lcm.session_closed",
)  # fmt: skip


def account(kind: str) -> Canary:
    """Return the account that LCM treats in this way."""
    core = f"77{kind}0099"
    return Canary(core, f"18|{core}|ü\"'/2")


KINDS = (
    "ok", "refuse", "malformed", "key", "close", "error", "crash", "silence", "early", "route", "id", "deadline",
    "metadata", "refused", "lost",
)  # fmt: skip
ACCOUNTS = {kind: account(kind) for kind in KINDS}
NUMBER = Canary("7799887766554433", "7799887766554433")


def lcm_settings(url: str, password_file: Path) -> dict[str, object]:
    """Return the settings of LCM with a canary in each that holds a secret."""
    password_file.write_text(PASSWORD.value)
    return {
        "LCM__URL": f"{url}?token={TOKEN.quoted}&{NAMELESS.quoted}",
        "LCM__USERNAME": "agent",
        "LCM__PASSWORD_FILE": password_file,
        "LCM__HEADERS": json.dumps({"X-Api-Key": HEADER.value, "Cookie": f"lang=en; sid={COOKIE.value}"}),
        "LCM__GREETING": json.dumps([{"send": json.dumps(LOGIN), "await": "LoginResponse"}]),
    }


@dataclass
class Lcm:
    """An LCM that tells back what it was sent, in whatever it says; its first connections end in refusals."""

    url: str = ""
    refusals: list[str] = field(default_factory=lambda: ["", "http", "upgrade", "close", "greeting"])
    _ways: dict[ServerConnection, str] = field(default_factory=dict)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Lcm]:
        async with serve(
            self._converse,
            "127.0.0.1",
            0,
            compression=None,
            ping_interval=None,
            process_request=self._refuse,
            process_response=self._spoil,
        ) as server:
            self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            yield self

    def _refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        way = self._ways[connection] = self.refusals.pop(0) if self.refusals else ""
        if way != "http":
            return None
        refusal = connection.respond(401, f"{echo(request)}\n")
        refusal.headers["WWW-Authenticate"] = echo(request)
        refusal.headers["Location"] = echo(request)
        return refusal

    def _spoil(self, connection: ServerConnection, request: Request, response: Response) -> None:
        if self._ways[connection] == "upgrade":
            del response.headers["Upgrade"]
            response.headers["Upgrade"] = echo(request, *(each.value for each in ACCOUNTS.values()))

    async def _converse(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await self._talk(connection, self._ways[connection])

    async def _talk(self, connection: ServerConnection, way: str) -> None:
        assert connection.request is not None
        greeting = str(await connection.recv())
        basic = b64decode(connection.request.headers["Authorization"].partition(" ")[2]).decode()
        known = echo(connection.request, greeting, basic, *json.loads(greeting)["message"].values())
        accounts = " ".join(each.value for each in ACCOUNTS.values())
        if way == "close":
            await connection.close(4401, f"{ACCOUNTS['ok'].value} {basic}")
            return
        if way == "greeting":
            login = {"channel": "LCM", "topic": "WebService", "subtopic": "LoginResponse"}
            refused = {"success": False, "msg": f"{known} {accounts}"}
            await connection.send(json.dumps({**login, "message": refused}))
            return
        await connection.send(
            json.dumps({"channel": "LCM", "topic": "WebService", "subtopic": "LoginResponse", "message": {}})
        )
        async for request in connection:
            asked = json.loads(request)["data"]["AccountNumber"]
            (kind,) = [kind for kind, each in ACCOUNTS.items() if each.value == asked]
            await self._answer(connection, kind, f"{asked} {known}")

    async def _answer(self, connection: ServerConnection, kind: str, known: str) -> None:
        outcome = {"OutComeID": "7", "Description": known}
        answers = {
            "refuse": documents.reply({"success": False, "msg": known}),
            "error": documents.error(known, known),
            "malformed": reply(known),
            "key": reply("?").replace(
                b'"?"', msgspec.json.encode([outcome])[:-2] + b"," + _twice(known) + b"}]"
            ),
        }
        if kind == "close":
            await connection.close(4000, known[:30])
        elif kind == "early":
            await connection.send(b"\xff" + known.encode())
        elif kind != "silence":
            await connection.send(
                answers.get(kind) or reply([outcome, {"OutComeID": known, "Description": "x"}]), text=True
            )


def _twice(key: str) -> bytes:
    named = msgspec.json.encode(key)
    return named + b":1," + named + b":2"


class Everywhere:
    """All logs at once: each format, with plain and with hashed accounts, at debug; and the pages at each event."""

    def __init__(self, settings: Settings) -> None:
        self.streams: dict[tuple[str, str], io.BytesIO] = {}
        self.pages: list[bytes] = []
        self.events: set[str] = set()
        self.app: App | None = None
        self._logs: list[RecordLog] = []
        for form in ("json", "console"):
            for accounts in ("plain", "hashed"):
                stream = self.streams[form, accounts] = io.BytesIO()
                section = LogSettings.model_validate({"format": form, "accounts": accounts, "level": "debug"})
                self._logs.append(build_log(section, worker="w-1", hide=Scrubber(settings), stream=stream))

    def __getattr__(self, level: str) -> Callable[..., None]:
        def write(event: str, *record: Any, **fields: Any) -> None:
            self.events.add(event)
            for log in self._logs:
                getattr(log, level)(event, *record, **fields)
            if self.app is not None:
                pages = self.app.pages
                self.pages += [page().body for page in pages.values()]

        return write

    def dropped(self) -> int:
        return sum(log.dropped() for log in self._logs)


async def publish_jobs(channel: AbstractChannel) -> int:
    """Publish a job for each account, with the account in whatever field it may stand by mistake; return how many."""
    jobs: list[tuple[dict[str, str], str | None]] = [
        ({"account_number": each.value, "job_id": f"j {each.value}"}, None) for each in ACCOUNTS.values()
    ]
    by_kind = dict(zip(ACCOUNTS, jobs, strict=True))
    for kind in ("route", "deadline", "metadata"):
        by_kind[kind][0][kind] = ACCOUNTS[kind].value
    by_kind["id"][0]["job_id"] = f"{'x' * 70}{ACCOUNTS['id'].value}{'x' * 100}"
    by_kind["refused"] = by_kind["refused"][0], f"elsewhere.{ACCOUNTS['refused'].value}"
    by_kind["lost"] = by_kind["lost"][0], f"replies.{ACCOUNTS['lost'].value}"
    bodies: list[tuple[bytes, str | None]] = [
        (msgspec.json.encode(job), reply_to) for job, reply_to in by_kind.values()
    ]
    bodies.append(
        (f'{{"account_number": {NUMBER.value}, "job_id": "{NUMBER.value}"}}'.encode(), f"no.{NUMBER.value}")
    )
    for body, reply_to in bodies:
        properties = spec.Basic.Properties(delivery_mode=2, reply_to=reply_to)
        await channel.basic_publish(body, routing_key=JOBS, properties=properties, mandatory=True)
    return len(bodies)


async def test_everything_that_goes_wrong_betrays_nothing(
    vhost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever LCM tells back: no secret is in a log, page, result or letter, and no account in a hashed log."""
    made = result.succeeded

    def broken(job: Any, *args: Any, **kwargs: Any) -> Any:
        if job.account_number == ACCOUNTS["crash"].value:
            raise RuntimeError(f"{job.account_number} {PASSWORD.value} {TOKEN.quoted}")
        return made(job, *args, **kwargs)

    monkeypatch.setattr(result, "succeeded", broken)
    refused = re.sub("//[^@]*@", f"//guest:{BROKER.quoted}@", vhost)
    broker = f"{refused},{vhost}?note={BROKER_QUERY.quoted}"
    async with Lcm().serving() as lcm, open_channel(vhost) as channel:
        settings = quick(
            broker, lcm.url, **lcm_settings(lcm.url, tmp_path / "password"),
            BROKER__RESULTS_QUEUE="false", BROKER__REPLY_TO_PREFIXES="replies.", OUTAGE__FAILURES="1000",
            RETRY__ATTEMPTS="1", BROKER__RETRY_DELAYS="100ms", BROKER__PREFETCH="8",
            LCM__SESSIONS="1", OUTAGE__PROBE_DELAY="10ms", OUTAGE__PROBE_MAX_DELAY="20ms",
        )  # fmt: skip
        await declare(channel, topology_of(settings.broker))
        jobs = await publish_jobs(channel)
        log = Everywhere(settings)
        app = log.app = App(settings, log)
        async with running(app.run()) as work:

            async def all_ended() -> bool:
                return await depth(channel, DEAD) + await depth(channel, UNDELIVERED) >= jobs

            await until(all_ended)
            app.stop()
            await work
        messages = [*await take_all(channel, DEAD), *await take_all(channel, UNDELIVERED)]
    assert log.events >= {*EVENTS}
    written = {" ".join(key): stream.getvalue() for key, stream in log.streams.items()}
    written["pages"] = b"\n".join(log.pages)
    written["messages"] = "\n".join(f"{each.body!r} {each.header!r}" for each in messages).encode()

    betrayed = {where: told for where, text in written.items() if (told := found(text, SECRETS))}
    for where in ("json hashed", "console hashed"):
        if told := found(written[where], (*ACCOUNTS.values(), NUMBER)):
            betrayed[f"{where}: accounts"] = told
    assert betrayed == {}
    assert b"**********" in written["messages"]


async def test_no_command_and_no_process_betrays_a_secret(vhost: str, tmp_path: Path) -> None:
    """Neither do commands where LCM tells secrets back, nor a worker's own command line, nor an aborted worker."""
    broker = f"{vhost}?note={BROKER_QUERY.quoted}"
    management = f"http://me:{BROKER.quoted}@127.0.0.1:1"
    accounts = [ACCOUNTS[kind].value for kind in ("ok", "refuse", "malformed", "key", "error", "close")]
    async with (
        Lcm(refusals=[]).serving() as lcm,
        Lcm(refusals=["upgrade"] * 9).serving() as upgrading,
        Lcm(refusals=["greeting"] * 9).serving() as refusing,
    ):
        at, upgrade, greeting = (
            as_variables(broker, each.url, tmp_path) for each in (lcm, upgrading, refusing)
        )
        ended = await asyncio.gather(
            command("lookup", *accounts, **at),
            on_terminal("lookup", *accounts, columns=200, **at),
            command("lookup", accounts[0], **upgrade),
            command("check", "--management", management, **at),
            command("check", **greeting),
            command("config", "show", **at),
        )
        async with Worker(log__level="debug", **at) as started:
            await started.logged("worker.ready")
            command_line = await asyncio.to_thread(Path(f"/proc/{started.process.pid}/cmdline").read_bytes)
            started.signal(signal.SIGABRT)
            assert await started.ended() == -signal.SIGABRT
    written = [*(f"{each.out}{each.err}".encode() for each in ended), started.err + started.out, command_line]
    assert [found(text, SECRETS) for text in written] == [[]] * len(written)
    assert all("**********" in f"{each.out}{each.err}" for each in ended)


def as_variables(broker: str, lcm: str, folder: Path) -> dict[str, Any]:
    """Return the settings of LCM and the broker for a process."""
    ours = {name.lower(): value for name, value in lcm_settings(lcm, folder / "password").items()}
    return {
        "broker__url": broker,
        "lcm__url": lcm,
        "retry__attempts": 1,
        "lcm__reply_timeout": "300ms",
    } | ours
