"""Why no connection was opened: in the words of a real broker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.broker import add_user
from tests.support.settings import broker_settings
from worker.broker.admin.calls import own_channel
from worker.broker.connection import close, connect, connect_any
from worker.contract.errors import BrokerAway
from worker.sandbox.node import Node


async def refusal(url: str, **settings: Any) -> str:
    """Return what is said of a broker that lets nobody in."""
    with pytest.raises(BrokerAway) as raised:
        await connect_any(broker_settings(url, **settings), name="test")
    return str(raised.value)


async def channel_refusal(url: str) -> str:
    """Return what is said of a broker that opens a connection, but not two channels on it."""
    opened = await connect(url, broker_settings(url), name="test")
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
