"""TLS with LCM and with the broker: who is let in, and what is told of each who is not, in one line."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.broker import tls_port
from tests.support.certificates import Authority, Identity, encrypted
from tests.support.commands import command
from tests.support.lcm import opened, pooled
from tests.support.log import RecordingLog
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from tests.support.wire.tls_front import TlsFront
from worker.broker import connection
from worker.broker.connection import connect_any
from worker.broker.link import Link
from worker.contract.errors import BrokerAway, SessionNotOpened
from worker.sandbox.node import Node
from worker.simulator.server import Simulator


@dataclass(frozen=True)
class Certificates:
    """Who shows what to whom."""

    authority: Authority
    servers: Mapping[str, Identity]
    clients: Mapping[str, Identity]
    password: str


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make two authorities, and what the cases need of them."""
    folder = tmp_path_factory.mktemp("certificates")
    ours, other = Authority(folder, "ours"), Authority(folder, "other")
    plain, password = Authority(folder, "plain"), folder / "password"
    password.write_text("0pen sesame\n")
    mine = ours.issue("mine")
    servers = {
        "right": ours.issue("right"),
        "other name": ours.issue("other-name", "subjectAltName=IP:127.0.0.2,DNS:localhost"),
        "no name": ours.issue("127.0.0.1", "extendedKeyUsage=serverAuth"),
        "for clients": ours.issue(
            "for-clients", "subjectAltName=IP:127.0.0.1", "extendedKeyUsage=clientAuth"
        ),
        "expired": ours.issue_for("expired", (2020, 2021)),
        "not yet": ours.issue_for("not-yet", (2090, 2091)),
        "other authority": other.issue("others"),
        "self-signed": plain.self_signed("alone"),
    }
    clients = {
        "right": mine,
        "encrypted": Identity(mine.certificate, encrypted(mine.key, "0pen sesame")),
        "other authority": other.issue("foreign"),
        "expired": ours.issue_for("old-client", (2020, 2021)),
    }
    return Certificates(ours, servers, clients, str(password))


class Case(NamedTuple):
    """A server, what it asks for, the certificate of ours that it is shown, and words of what is told."""

    told: str
    server: str = "right"
    asks: bool = False
    version: str = ""
    client: str = ""


CASES = {
    "right": Case(""),
    "with a certificate of ours": Case("", asks=True, client="right"),
    "with an encrypted key": Case("", asks=True, client="encrypted"),
    "other name": Case(
        "not valid for '127.0.0.1'; name in {section}.url the host that it is for", "other name"
    ),
    "no name": Case("not valid for '127.0.0.1'; name in {section}.url the host that it is for", "no name"),
    "for clients": Case("certificate purpose; have it made for servers", "for clients"),
    "expired": Case("certificate has expired; renew it there", "expired"),
    "not yet valid": Case("certificate is not yet valid; see whether the clocks", "not yet"),
    "other authority": Case("name the authority that signed it in {section}.ca_file", "other authority"),
    "self-signed": Case("name a file with this certificate in {section}.ca_file", "self-signed"),
    "none of ours": Case("it requires a certificate of its clients; name one", asks=True),
    "none of ours, TLS 1.2": Case(
        "it may ask for a certificate ({section}.cert_file)", asks=True, version="1.2"
    ),
    "ours of another authority": Case(
        "the authority that signed it; put one", asks=True, client="other authority"
    ),
    "ours has expired": Case("refuses our certificate: it has expired; put one", asks=True, client="expired"),
    "TLS 1.1 alone": Case("it speaks no version of TLS from 1.2 on", version="1.1"),
}


def files_of(case: Case, given: Certificates) -> dict[str, Any]:
    """Return the settings of a section for a case."""
    files = {"ca_file": given.authority.file}
    if case.client:
        mine = given.clients[case.client]
        files |= {"cert_file": mine.certificate, "key_file": mine.key}
    if case.client == "encrypted":
        files |= {"key_password_file": given.password}
    return files


def context_of(case: Case, given: Certificates) -> ssl.SSLContext:
    """Return the TLS of a server for a case."""
    context = given.authority.server_context(given.servers[case.server], demanding=case.asks)
    if case.version == "1.1":
        # OpenSSL serves it, and its signatures by SHA-1, at this level alone.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if case.version:
        version = ssl.TLSVersion[f"TLSv{case.version.replace('.', '_')}"]
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, version
    return context


@asynccontextmanager
async def lcm(case: Case, given: Certificates) -> AsyncIterator[str]:
    """Give the URL of an LCM behind TLS."""
    async with Simulator() as simulator, TlsFront(context_of(case, given), simulator.url) as front:
        yield front.url


@asynccontextmanager
async def broker_by_tls(case: Case, given: Certificates, node: Node, vhost: str) -> AsyncIterator[str]:
    """Give the URL of the broker's own port with TLS."""
    clients_of = given.authority.file if case.asks else ""
    version = f"tlsv{case.version}" if case.version else ""
    async with tls_port(node, given.servers[case.server], clients_of=clients_of, version=version) as port:
        yield f"amqps://guest:guest@127.0.0.1:{port}/{vhost.rpartition('/')[2]}"


def check_told(told: list[dict[str, Any]], case: Case, section: str, url: str) -> None:
    """Check that a failure is told in one line, with the address and what to do."""
    assert told
    error = told[0]["error"]
    words = [case.told]
    if section == "broker" and case.asks and not case.version:
        # After its alert the broker resets the connection, which may overtake it.
        words.append("without a word right after the TLS handshake; it may ")
    assert any(each.format(section=section) in error for each in words)
    assert url.rpartition("@")[2].removeprefix("wss://").split("/")[0] in error
    assert "\n" not in error
    assert "whether RabbitMQ runs" not in error


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
async def test_lcm(certificates: Certificates, name: str) -> None:
    """A session is opened where both sides have shown what they must; else the line says what to do, and where."""
    case, log = CASES[name], RecordingLog()
    async with (
        lcm(case, certificates) as url,
        pooled(url, sessions=1, log=log, **files_of(case, certificates)) as pool,
    ):
        if not case.told:
            assert await pool.probe()
            return
        async with running(pool.probe()):
            await until(lambda: log.of("lcm.session_failed"))
    check_told(log.of("lcm.session_failed"), case, "lcm", url)


@pytest.mark.parametrize("name", CASES)
async def test_broker(certificates: Certificates, broker: Node, vhost: str, name: str) -> None:
    """Likewise for a connection with a real broker."""
    case, log = CASES[name], RecordingLog()
    async with broker_by_tls(case, certificates, broker, vhost) as url:
        settings = broker_settings(url, **files_of(case, certificates))
        link = Link("test", settings, nothing, log, worker="w-1", confirms=True)
        async with running(link.run()):
            await until(lambda: link.is_up or log.of("broker.unreachable"))
            assert link.is_up == (not case.told)
    if case.told:
        check_told(log.of("broker.unreachable"), case, "broker", url)


async def nothing(*_: object) -> None:
    """A channel that needs no preparing."""


async def test_commands_tell_the_same(certificates: Certificates, broker: Node, vhost: str) -> None:
    """`check` says of both sides, and `lookup` of LCM, what is wrong and what to do, a line each."""
    missing, expired = CASES["none of ours"], CASES["expired"]
    ca = certificates.authority.file
    async with (
        lcm(missing, certificates) as lcm_url,
        broker_by_tls(expired, certificates, broker, vhost) as broker_url,
    ):
        theirs = {"lcm__url": lcm_url, "lcm__ca_file": ca}
        checked, looked_up = await asyncio.gather(
            command("check", **theirs, broker__url=broker_url, broker__ca_file=ca),
            command("lookup", "1|1", **theirs),
        )
    wants = (
        "it requires a certificate of its clients; name one that it accepts, and its key, in lcm.cert_file"
    )
    away = [line for line in checked.out.splitlines() if line.startswith(("away", "refused"))]
    assert checked.status == 1
    assert [line for line in away if line.endswith(f"{wants} and lcm.key_file")]
    assert [line for line in away if "broker: " in line and "certificate has expired; renew it there" in line]
    assert (looked_up.status, looked_up.err.count("\n")) == (1, 1)
    assert looked_up.err.endswith(f"{wants} and lcm.key_file\n")


async def test_schemes_that_do_not_fit_the_port(certificates: Certificates) -> None:
    """ws:// to a port for TLS, and wss:// to one without, are told with the setting to look at."""
    ca = certificates.authority.file
    async with lcm(CASES["right"], certificates) as url, Simulator() as plain:
        assert "lcm.url needs wss://" in await refusal_of(url.replace("wss:", "ws:"), ca)
        said = await refusal_of(plain.url.replace("ws:", "wss:"), ca)
        assert "or speak no TLS" in said
        assert "whether lcm.url names its port with TLS" in said
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n", first=True) as port:
        said = await refusal_of(f"wss://127.0.0.1:{port}/", ca)
        assert "it does not speak TLS; write ws:// in lcm.url, or name the port with TLS" in said
    async with answering(b"\x15\x03\x03\x00\x02\x02\x46") as port:
        assert "it speaks TLS; write wss:// in lcm.url" in await refusal_of(f"ws://127.0.0.1:{port}/", ca)
    async with answering(b"SSH-2.0-x\r\n", first=True) as port:
        said = await refusal_of(f"ws://127.0.0.1:{port}/", ca)
        assert "it is no websocket server: 'SSH-2.0-x'; see lcm.url" in said


async def test_a_handshake_that_does_not_end(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that takes connections and says nothing to TLS is told as that, on both sides."""
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT", 0.2)
    ca = certificates.authority.file
    async with answering(b"", stays=True) as port:
        said = await refusal_of(f"wss://127.0.0.1:{port}/", ca, connect_timeout=0.2)
        assert (
            "not open within 0.2 s (lcm.connect_timeout): the TLS handshake was not over by then; see" in said
        )
        settings = broker_settings(f"amqps://127.0.0.1:{port}/", ca_file=ca)
        with pytest.raises(BrokerAway) as away:
            await connect_any(settings, connection.files_of(settings), name="test")
        assert "no answer within 0.2 s: the TLS handshake was not over by then; see" in str(away.value)


async def test_a_proxy_by_tls(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy is verified by the system's authorities, and no key is logged of what it is told: its password."""
    keys, tls = tmp_path / "keys", certificates.authority.server_context()
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    async with answering(b"HTTP/1.1 407 No\r\n\r\n", tls=tls) as port:
        proxy = f"https://me:secret@127.0.0.1:{port}"
        assert "its certificate does not verify" in await refusal_of("ws://lcm.test/", "", proxy=proxy)
        monkeypatch.setenv("SSL_CERT_FILE", certificates.authority.file)
        assert "(lcm.proxy): it answered HTTP 407" in await refusal_of("ws://lcm.test/", "", proxy=proxy)
    assert not keys.exists()


async def refusal_of(url: str, ca_file: str, **settings: Any) -> str:
    """Return what is said of an LCM with which no session is opened."""
    with pytest.raises(SessionNotOpened) as raised:
        async with opened(url, ca_file=ca_file, **settings):
            pass
    return raised.value.message


@asynccontextmanager
async def answering(
    words: bytes, *, first: bool = False, stays: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Give the port of a server that says these words, at once with `first`, and hangs up, or with `stays` not."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            if not first:
                await reader.read(100)
            writer.write(words)
            if stays:
                await reader.read()
            await writer.drain()
            if tls is None:
                writer.write_eof()
            await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]
