"""Why no connection was opened: in the words of a real broker, and with real servers that are none."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import add_user
from tests.support.certificates import Authority
from tests.support.hostile_broker import hostile_broker
from tests.support.settings import broker_settings
from worker.broker import connection as module
from worker.broker.admin.calls import own_channel
from worker.broker.connection import close, connect, connect_any, files_of
from worker.contract.errors import BrokerAway
from worker.sandbox.node import Node

SHUTDOWN_OF_TLS = 30.0  # seconds for which asyncio waits for the peer's part of it


async def refusal(url: str, **settings: Any) -> str:
    """Return what is said of a broker that lets nobody in."""
    given = broker_settings(url, **settings)
    with pytest.raises(BrokerAway) as raised:
        await connect_any(given, files_of(given), name="test")
    return str(raised.value)


async def channel_refusal(url: str) -> str:
    """Return what is said of a broker that opens a connection, but not two channels on it."""
    opened = await connect(url, None, name="test")
    try:
        with pytest.raises(BrokerAway) as raised:
            async with own_channel(opened), own_channel(opened):
                pass
    finally:
        await close(opened)
    return str(raised.value)


async def user_of(node: Node, vhost: str) -> tuple[str, str]:
    """Make a user who may do everything in a vhost; return its name and URL."""
    name = vhost.rpartition("/")[2]
    await add_user(node, name, configure=".*", write=".*", read=".*")
    return name, vhost.replace("guest:guest", f"{name}:secret")


@pytest.mark.parametrize(("size", "frame_max"), [(2**32 - 1, 0), (4097, 4096)])
async def test_a_frame_that_is_too_large_loses_the_connection(size: int, frame_max: int) -> None:
    """A broker that announces more than was agreed on, or than any body has, is not listened to any more."""
    head = struct.pack(">BHI", 3, 1, size - 8) + b"\x00"
    async with hostile_broker(head, frame_max=frame_max) as address:
        said = await channel_refusal(f"amqp://a:b@{address}/")
    assert "what was received can't be read: ValueError('a frame of " in said
    assert f"{size} bytes" in said


async def test_a_vhost_that_is_not_there(vhost: str) -> None:
    """The broker's code and words, and how to make it."""
    said = await refusal(f"{vhost}-gone")
    name = f"{vhost.rpartition('/')[2]}-gone"
    assert f"530 NOT_ALLOWED - vhost {name} not found" in said
    assert f"`rabbitmqctl add_vhost {name}`" in said


async def test_a_user_without_the_vhost(broker: Node, vhost: str) -> None:
    """A user who has no permissions in the vhost is told how to get in."""
    name, url = await user_of(broker, vhost)
    await broker.ctl("clear_permissions", "-p", name, name)
    said = await refusal(url)
    assert f"530 NOT_ALLOWED - access to vhost '{name}' refused for user '{name}'" in said
    assert f"`rabbitmqctl set_permissions -p {name} {name} " in said


async def test_a_wrong_password(vhost: str) -> None:
    """The broker's words beside the settings to look at; the password is not shown."""
    said = await refusal(vhost.replace("guest:guest", "guest:hunter2"))
    assert "403 ACCESS_REFUSED - Login was refused" in said
    assert "see broker.url" in said
    assert "hunter2" not in said


async def test_no_common_way_to_log_in(broker: Node, vhost: str) -> None:
    """Where the broker offers no mechanism that the library knows, it is told which it offers."""
    was = await broker.eval("element(2, application:get_env(rabbit, auth_mechanisms))")
    await broker.eval("application:set_env(rabbit, auth_mechanisms, ['AMQPLAIN'])")
    try:
        said = await refusal(vhost)
    finally:
        await broker.eval(f"application:set_env(rabbit, auth_mechanisms, {was})")
    assert "alone: AMQPLAIN; allow PLAIN in auth_mechanisms" in said


async def test_connection_limits(broker: Node, vhost: str) -> None:
    """A vhost or a user that is full names its limit, and the command that raises this one."""
    name, url = await user_of(broker, vhost)
    await broker.ctl("set_vhost_limits", "-p", name, '{"max-connections": 0}')
    said = await refusal(url)
    assert "530 NOT_ALLOWED" in said
    assert "connection limit (0) is reached" in said
    assert f"`rabbitmqctl set_vhost_limits -p {name} " in said
    assert "add_vhost" not in said
    await broker.ctl("clear_vhost_limits", "-p", name)
    await broker.ctl("set_user_limits", name, '{"max-connections": 0}')
    said = await refusal(url)
    assert "530 NOT_ALLOWED" in said
    assert "user connection limit (0) is reached" in said
    assert f"`rabbitmqctl set_user_limits {name} " in said


async def test_channel_limits(broker: Node, vhost: str) -> None:
    """A channel too many, of the user or of the connection, names its limit and where it is raised."""
    name, url = await user_of(broker, vhost)
    await broker.ctl("set_user_limits", name, '{"max-channels": 1}')
    said = await channel_refusal(url)
    assert "530 NOT_ALLOWED - number of channels opened for user" in said
    assert f"`rabbitmqctl set_user_limits {name} '{{\"max-channels\": N}}'`" in said
    was = await broker.eval("element(2, application:get_env(rabbit, channel_max))")
    await broker.eval("application:set_env(rabbit, channel_max, 1)")
    try:
        said = await channel_refusal(vhost)
    finally:
        await broker.eval(f"application:set_env(rabbit, channel_max, {was})")
    assert (
        "530 NOT_ALLOWED - number of channels opened (1) has reached the negotiated channel_max (1)" in said
    )
    assert "raise channel_max in the broker's rabbitmq.conf" in said


async def test_a_vhost_that_is_down(broker: Node, vhost: str) -> None:
    """A vhost whose processes have ended is told as that, with the command that starts it again."""
    name = vhost.rpartition("/")[2]
    await broker.eval(f'rabbit_vhost_sup_sup:delete_on_all_nodes(<<"{name}">>)')
    said = await refusal(vhost)
    await broker.ctl("restart_vhost", "-p", name)
    assert f"541 INTERNAL_ERROR - access to vhost '{name}' refused for user 'guest'" in said
    assert f"`rabbitmqctl restart_vhost -p {name}`" in said


@asynccontextmanager
async def answering(words: bytes, tls: ssl.SSLContext | None = None, **how: bool) -> AsyncIterator[str]:
    """Serve whoever connects with these words, at once or after theirs; then hang up, or not."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not how.get("first"):
                await reader.read(100)
            writer.write(words)
            if how.get("stay"):
                await reader.read(-1)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"{'amqps' if tls else 'amqp'}://a:b@127.0.0.1:{server.sockets[0].getsockname()[1]}/"


HTTP = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("stay", [False, True], ids=["hangs-up", "stays"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (HTTP, "it is an HTTP server: it says 'HTTP/1.1 400 Bad Request'; name RabbitMQ's port"),
        (b"<html>\r\n<head>", "it is an HTTP server: it says '<html>'; "),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it is an SSH server: it says 'SSH-2.0-OpenSSH_9.2'; "),
        (b"-ERR unknown command\r\n", "it is no broker: it says '-ERR unknown command'; "),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it speaks TLS; write amqps://"),
        (b"AMQP\x00\x01\x00\x00", "header of AMQP 1.0, and this worker speaks AMQP 0-9-1; "),
        (b"AMQP\x03\x01\x00\x00", "header of AMQP 1.0, "),
        (b"AMQP\x01\x01\x00\x0a", "header of AMQP 0-10, "),
        (b"AMQP\x00\x00\x09\x00", "header of AMQP 0-9-0, "),
    ],
)
async def test_a_server_that_is_no_such_broker(words: bytes, said: str, stay: bool) -> None:
    """Whoever answers in another protocol is told by what it says, at once, whether it hangs up or not."""
    async with answering(words, stay=stay) as url:
        assert said in await refusal(url)


@pytest.mark.parametrize(
    "words",
    [
        b"A",
        b"AMQP",
        b"AMQP\x00",
        b"\x01",
        b"\x01\x00\x00\x00\x00\x00\x02\x00\x0a\xce",
        b"\x01" + b"\xff" * 60,
    ],
)
async def test_words_that_break_off(words: bytes) -> None:
    """Whatever its bytes make the library raise, a peer that is no broker ends no worker."""
    async with answering(words) as url:
        assert "127.0.0.1" in await refusal(url)


async def test_a_peer_that_is_silent_behind_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is closed once the time is over: the library would wait for the end of TLS, which never comes."""
    monkeypatch.setattr(module, "_CONNECT_TIMEOUT", 0.5)
    authority = Authority(tmp_path)
    async with answering(b"", authority.server_context(), stay=True) as url:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert "no answer within 0.5 s" in await refusal(url, ca_file=authority.file)
        assert loop.time() - began < SHUTDOWN_OF_TLS


async def test_a_server_that_speaks_first() -> None:
    """An SSH server doesn't wait for our first word."""
    async with answering(b"SSH-2.0-x\r\n", first=True, stay=True) as url:
        assert "it is an SSH server" in await refusal(url)


async def test_tls_on_one_side_alone(tmp_path: Path, vhost: str) -> None:
    """A plain address for a TLS port, and the other way round, name the scheme to write; so does HTTPS."""
    authority = Authority(tmp_path)
    async with answering(HTTP, authority.server_context()) as url:
        said = await refusal(url.replace("amqps:", "amqp:"))
        assert "closed without a word; see whether broker.url names RabbitMQ's port" in said
        assert "amqps://" in said
        assert "it is an HTTP server" in await refusal(url, ca_file=authority.file)
        assert "in broker.ca_file" in await refusal(url)
    assert "write amqp:// in broker.url" in await refusal(vhost.replace("amqp:", "amqps:"))
    async with answering(HTTP) as url:
        assert "write amqp:// in broker.url" in await refusal(url.replace("amqp:", "amqps:"))


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence, or too little to know by, is the time-out; what was said by then is shown."""
    monkeypatch.setattr(module, "_CONNECT_TIMEOUT", 0.2)
    async with answering(b"", stay=True) as url:
        assert "no answer within 0.2 s; see broker.url, and whether RabbitMQ runs" in await refusal(url)
    async with answering(b"hi", stay=True) as url:
        assert "it is no broker: it says 'hi'" in await refusal(url)


async def test_each_address_has_its_own_reason(vhost: str) -> None:
    """Of several URLs each is told with its reason, and the usual remedy once, where it is any's."""
    async with answering(HTTP) as http:
        both = await refusal(f"{http},{vhost}-gone")
        assert "see broker.url, and whether RabbitMQ runs" not in both
        assert both.index("an HTTP server") < both.index("not found")
        three = await refusal(f"{http},amqp://127.0.0.1:1/,amqp://127.0.0.1:1/")
    assert three.count("see broker.url, and whether RabbitMQ runs") == 1
