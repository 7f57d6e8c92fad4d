"""A private broker: it runs for as long as a fixture gives it out, and closes connections at a test's word."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import pytest

from tests.faults.rig.cluster import Cluster
from tests.support.certificates import Identity
from worker.sandbox.folder import free_port
from worker.sandbox.node import Node, ServerMissing

_Broker = TypeVar("_Broker", Node, Cluster)


@contextmanager
def running_broker(broker: _Broker) -> Iterator[_Broker]:
    """Start it, and stop it at the end; where no server is installed, end the run by saying what to install."""
    try:
        asyncio.run(broker.start())
        yield broker
    except ServerMissing as missing:
        pytest.exit(str(missing), returncode=1)
    finally:
        asyncio.run(broker.stop())


async def close_connections(node: Node, url: str, reason: str = "closed by a test") -> None:
    """Have the broker close every connection to the vhost of this URL."""
    vhost = urlsplit(url).path.removeprefix("/")
    await node.eval(
        f'[rabbit_networking:close_connection(Pid, "{reason}") || Pid <- rabbit_networking:connections(), '
        f'(catch rabbit_networking:connection_info(Pid, [vhost])) =:= [{{vhost, <<"{vhost}">>}}]]'
    )


async def add_user(node: Node, name: str, *, vhost: str = "", **permissions: str) -> None:
    """Let a user with the password `secret` do this much in a vhost, that of the same name by default."""
    wanted = ", ".join(f'<<"{permissions[kind]}">>' for kind in ("configure", "write", "read"))
    await node.eval(
        f'begin catch rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"secret">>, <<"test">>), '
        f'ok = rabbit_auth_backend_internal:set_permissions(<<"{name}">>, <<"{vhost or name}">>, {wanted}, '
        '<<"test">>) end'
    )


async def change_password(node: Node, name: str, password: str) -> None:
    """Give a user another password; connections that are open stay."""
    await node.eval(
        f'rabbit_auth_backend_internal:change_password(<<"{name}">>, <<"{password}">>, <<"test">>)'
    )


async def fall_silent(node: Node, url: str, queue: str) -> None:
    """Have a quorum queue neither confirm nor refuse anything until `speak_again`, as one without a majority."""
    await node.eval(f"[ok = sys:suspend(Pid) || Pid <- [{_member_of(url, queue)}]]")


async def speak_again(node: Node, url: str, queue: str) -> None:
    """End what `fall_silent` began."""
    await node.eval(f"[ok = sys:resume(Pid) || Pid <- [{_member_of(url, queue)}]]")


def _member_of(url: str, queue: str) -> str:
    vhost = urlsplit(url).path.removeprefix("/")
    return (
        f'begin {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)), '
        "amqqueue:get_pid(Q) end"
    )


@asynccontextmanager
async def tls_port(
    node: Node, identity: Identity, *, clients_of: str = "", version: str = ""
) -> AsyncIterator[int]:
    """Give a port of the node with TLS, under this certificate, by `version` alone where one is given.

    It lets in only clients with a certificate of the authority in the file `clients_of`, where that is given.
    """
    port = free_port()
    files = f'{{certfile, "{identity.certificate}"}}, {{keyfile, "{identity.key}"}}'
    asks = f', {{cacertfile, "{clients_of}"}}, {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}'
    only = f", {{versions, ['{version}']}}"
    options = files + (asks if clients_of else "") + (only if version else "")
    address = f'{{"127.0.0.1", {port}}}'
    await node.eval(
        "begin {ok, _} = application:ensure_all_started(ssl), "
        f"ok = rabbit_networking:start_ssl_listener({address}, [{options}], 1) end"
    )
    try:
        yield port
    finally:
        await node.eval(f"ranch:stop_listener({{acceptor, {{127, 0, 0, 1}}, {port}}})")
