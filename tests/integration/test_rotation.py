"""Secrets and certificates that change while the worker runs: it goes on by itself, and never ends over them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
from aiormq.abc import AbstractChannel

from tests.support.broker import add_user, change_password, close_connections
from tests.support.certificates import Authority, Identity, encrypted
from tests.support.channel import depth, open_channel, take_all
from tests.support.files import replace
from tests.support.in_process import DEAD, RESULTS, all_good, numbered, publish, quick, results, working
from tests.support.lcm import pooled
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from tests.support.wire.tls_front import TlsFront
from worker.broker.link import Link
from worker.common.tasks import cancel, start
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

AHEAD = 20
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


async def test_the_brokers_password_changes(broker: Node, vhost: str, tmp_path: Path) -> None:
    """The user gets a new password and every connection is cut: once the file has it, the worker is back."""
    user = urlsplit(vhost).path.removeprefix("/")
    await add_user(broker, user, **EVERYTHING)
    file = tmp_path / "password"
    replace(file, "secret\n")
    url = vhost.replace("guest:guest@", f"{user}@")
    async with Simulator() as lcm, working(quick(url, lcm.url, BROKER__PASSWORD_FILE=file)) as log:
        await change_password(broker, user, "other/secret")
        await close_connections(broker, vhost)
        await until(lambda: len(log.of("broker.unreachable")) > 1)
        assert "user name or password refused" in log.of("broker.unreachable")[0]["error"]
        file.unlink()
        await until(lambda: "can't be read" in log.of("broker.unreachable")[-1]["error"])
        assert "broker.password_file" in log.of("broker.unreachable")[-1]["error"]
        replace(file, "other/secret\n")
        await until(lambda: log.events.count("broker.connected") == 4)
        async with open_channel(vhost) as channel:
            await publish(channel, *numbered(5))
            all_good(await results(channel, 5), 5)


async def test_a_token_of_lcm_expires(vhost: str, tmp_path: Path) -> None:
    """LCM refuses the old token: an outage, which ends by itself once the file holds the new one."""
    file = tmp_path / "token"
    replace(file, "old")
    settings = {"LCM__USERNAME": "me", "LCM__PASSWORD_FILE": file}
    async with Simulator(Behaviour(credentials="me:old")) as lcm, open_channel(vhost) as channel:
        async with working(quick(vhost, lcm.url, **settings)) as log:
            await publish(channel, *numbered(5))
            await until(lambda: log.events.count("job.succeeded") == 5)
            lcm.behaviour = Behaviour(credentials="me:new", close_code=4401)
            await lcm.close_sessions()
            await until(lambda: "lcm.outage_started" in log.events)
            # By a handshake or, where a session had just been opened, by its end.
            assert "401" in log.of("lcm.outage_started")[0]["reason"]
            replace(file, "new")
            await until(lambda: "lcm.outage_ended" in log.events)
        all_good(await results(channel, 5), 5)


async def test_certificates_of_lcm_are_replaced(tmp_path: Path) -> None:
    """LCM comes back with a certificate of another authority; half replaced files are an outage like any other."""
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    mine, ca = old.issue("worker"), str(tmp_path / "ca.pem")
    copy(old.file, ca)
    files: dict[str, Any] = {"ca_file": ca, "cert_file": mine.certificate, "key_file": mine.key}
    log = RecordingLog()
    lcm = Simulator(ssl_context=old.server_context(demanding=True))
    await lcm.start()
    async with pooled(lcm.url, sessions=1, log=log, **files) as pool:
        assert await pool.probe()
        await lcm.stop()
        lcm = Simulator(port=lcm.port, ssl_context=new.server_context(demanding=True))
        async with lcm, running(pool.probe()) as probing:
            await until(lambda: "does not verify" in last_error(log))
            copy(new.file, ca)
            copy(new.issue("other").key, mine.key)
            await until(lambda: "lcm.key_file can't be used" in last_error(log))
            assert mine.key in last_error(log)
            install(new.issue("renewed"), mine)
            assert await probing


async def test_certificates_for_the_broker_are_replaced(vhost: str, tmp_path: Path) -> None:
    """Pitfall `key half replaced`: while the broker closes connections, it is an outage and not the worker's end."""
    authority = Authority(tmp_path)
    mine, log = authority.issue("worker"), RecordingLog()
    async with TlsFront(authority.server_context(demanding=True), vhost) as front:
        files = {"ca_file": authority.file, "cert_file": mine.certificate, "key_file": mine.key}
        link = Link("test", broker_settings(front.url, **files), nothing, log, worker="w-1", confirms=True)
        async with running(link.run()):
            await until(lambda: link.is_up)
            copy(authority.issue("other").key, mine.key)
            front.cut()
            await until(lambda: "broker.key_file can't be used" in str(log.of("broker.unreachable")))
            install(authority.issue("renewed"), mine)
            await until(lambda: log.events.count("broker.connected") == 2)


async def test_certificates_change_while_jobs_come(vhost: str, tmp_path: Path) -> None:
    """Both sides get another authority, then the worker another certificate, key and password: every job succeeds."""
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    ours = {section: Own(tmp_path / section) for section in ("LCM", "BROKER")}
    for own in ours.values():
        own.trust(old)
        own.show(old, "first")
    async with (
        Simulator() as simulator,
        TlsFront(old.server_context(demanding=True), simulator.url) as lcm,
        TlsFront(old.server_context(demanding=True), vhost) as broker,
        open_channel(vhost) as channel,
    ):
        settings = {key: file for section, own in ours.items() for key, file in own.settings(section)}
        tolerant = {
            "BROKER__DELIVERY_LIMIT": 1000,  # a cut connection returns what is in hand
            # No session but the one that is cut is opened, however slow the machine is.
            "LCM__SESSIONS": 1,
            "LCM__REPLY_TIMEOUT": "60s",
        }
        async with (
            working(quick(broker.url, lcm.url, **settings, **tolerant)) as log,
            Load(channel, log) as load,
        ):
            for front, own in zip((lcm, broker), ours.values(), strict=True):
                await load.flows()
                own.trust(old, new)
                front.context = new.server_context(demanding=True)
                front.context.load_verify_locations(old.file)
                await load.flows()  # what is open stays open
                seen = len(front.clients)
                front.cut()
                await until(partial(opened_anew, front, seen, "first"))
                await load.flows()
                own.show(new, "second")
                front.context = new.server_context(demanding=True)
                own.trust(new)
                await load.flows()
                assert "second" not in front.clients
                front.cut()
                await until(partial(opened_anew, front, seen, "second"))
                await load.flows()
            published = await load.ended()
        found = [msgspec.json.decode(message.body) for message in await take_all(channel, RESULTS)]
        assert {result["job_id"] for result in found} == published
        assert {result["status"] for result in found} == {"succeeded"}
        assert await depth(channel, DEAD) == 0
        assert "job.failed" not in log.events


def opened_anew(front: TlsFront, seen: int, name: str) -> bool:
    """Tell whether a connection was opened after the first `seen`, and the last one with this certificate."""
    return len(front.clients) > seen and front.clients[-1] == name


class Own:
    """The files of a section: the authorities that it trusts, its certificate, and its encrypted key's password."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._ca, self._certificate, self._key, self._password = (
            folder / name for name in ("ca.pem", "own.pem", "own.key", "own.password")
        )

    def settings(self, section: str) -> list[tuple[str, Path]]:
        files = {"CA": self._ca, "CERT": self._certificate, "KEY": self._key, "KEY_PASSWORD": self._password}
        return [(f"{section}__{name}_FILE", file) for name, file in files.items()]

    def trust(self, *authorities: Authority) -> None:
        replace(self._ca, "".join(Path(authority.file).read_text() for authority in authorities))

    def show(self, authority: Authority, name: str) -> None:
        """Take a new certificate, under this name, whose key is encrypted with a password of its own."""
        made, password = authority.issue(name), f"password of {name}"
        replace(self._certificate, Path(made.certificate).read_text())
        replace(self._key, Path(encrypted(made.key, password)).read_text())
        replace(self._password, password)


class Load:
    """Publishes jobs for as long as it is open, a few ahead of those that have succeeded."""

    def __init__(self, channel: AbstractChannel, log: RecordingLog) -> None:
        self._channel = channel
        self._log = log
        self._published: set[str] = set()
        self._enough = False

    async def __aenter__(self) -> Self:
        self._publishing = start(self._publish())
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel(self._publishing)

    @property
    def _succeeded(self) -> set[str]:
        return {line["job_id"] for line in self._log.of("job.succeeded")}

    async def _publish(self) -> None:
        while not self._enough:
            job_id = f"job-{len(self._published)}"
            await publish(self._channel, {"job_id": job_id, "account_number": f"{len(self._published)}|1"})
            self._published.add(job_id)
            await until(lambda: len(self._published) - len(self._succeeded) < AHEAD)

    async def flows(self) -> None:
        """Wait until more jobs have succeeded than were published so far."""
        before = len(self._published)
        await until(lambda: len(self._succeeded) > before)

    async def ended(self) -> set[str]:
        """Publish no more, wait until all have succeeded, and return their ids."""
        self._enough = True
        await self._publishing
        await until(lambda: self._succeeded == self._published)
        return self._published


async def nothing(*_: object) -> None:
    """A channel that needs no preparing."""


def copy(new: str, place: str) -> None:
    """Put a copy of a file in the place of another."""
    replace(Path(place), Path(new).read_text())


def install(new: Identity, place: Identity) -> None:
    """Put a certificate and its key in the place of others, one after the other."""
    for each, old in zip(new, place, strict=True):
        copy(each, old)


def last_error(log: RecordingLog) -> str:
    return str(log.of("lcm.session_failed")[-1:])
