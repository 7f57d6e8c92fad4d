"""Secrets and certificates that change while the worker runs: it goes on by itself, and never ends over them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.broker import add_user, change_password, close_connections
from tests.support.certificates import Authority, Identity
from tests.support.channel import open_channel
from tests.support.files import replace
from tests.support.in_process import all_good, numbered, publish, quick, results, working
from tests.support.lcm import pooled
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from tests.support.wire.tls_front import TlsFront
from worker.broker.link import Link
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

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
    lcm = Simulator(ssl_context=demanding(old))
    await lcm.start()
    async with pooled(lcm.url, sessions=1, log=log, **files) as pool:
        assert await pool.probe()
        await lcm.stop()
        lcm = Simulator(port=lcm.port, ssl_context=demanding(new))
        async with lcm, running(pool.probe()) as probing:
            await until(lambda: "does not verify" in last_error(log))
            copy(new.file, ca)
            copy(new.issue("other").key, mine.key)
            await until(lambda: "TLS files can't be used" in last_error(log))
            assert mine.key in last_error(log)
            install(new.issue("renewed"), mine)
            assert await probing


async def test_certificates_for_the_broker_are_replaced(vhost: str, tmp_path: Path) -> None:
    """Pitfall `key half replaced`: while the broker closes connections, it is an outage and not the worker's end."""
    authority = Authority(tmp_path)
    mine, log = authority.issue("worker"), RecordingLog()
    async with TlsFront(demanding(authority), vhost) as front:
        files = {"ca_file": authority.file, "cert_file": mine.certificate, "key_file": mine.key}
        link = Link("test", broker_settings(front.url, **files), nothing, log, worker="w-1", confirms=True)
        async with running(link.run()):
            await until(lambda: link.is_up)
            copy(authority.issue("other").key, mine.key)
            front.cut()
            await until(lambda: "TLS files can't be used" in str(log.of("broker.unreachable")))
            install(authority.issue("renewed"), mine)
            await until(lambda: log.events.count("broker.connected") == 2)


async def nothing(*_: object) -> None:
    """A channel that needs no preparing."""


def demanding(authority: Authority) -> ssl.SSLContext:
    """Return what a server needs that asks for a certificate of its own authority."""
    context = authority.server_context()
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def copy(new: str, place: str) -> None:
    """Put a copy of a file in the place of another."""
    replace(Path(place), Path(new).read_text())


def install(new: Identity, place: Identity) -> None:
    """Put a certificate and its key in the place of others, one after the other."""
    for each, old in zip(new, place, strict=True):
        copy(each, old)


def last_error(log: RecordingLog) -> str:
    return str(log.of("lcm.session_failed")[-1:])
