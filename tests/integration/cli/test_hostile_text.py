"""Text from outside that would take over a terminal: it is shown, with an escape for each character of that kind."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection

from tests.support.channel import open_channel
from tests.support.commands import Ended, on_terminal
from tests.support.dead_letters import Dead, publish_dead_letters
from tests.support.lcm import peer, reply
from worker.simulator import documents

ACCOUNT = "18|1|2|0|0|44|274"
CLIPBOARD = "\x1b]52;c;aGk=\x07"
HOSTILE = f"evil{CLIPBOARD}\x1b[2J\x9b31m\x7f\u202egnp\u2066\u2028end"
# Colours, and what a progress bar needs: the cursor hidden, moved up, a line erased.
_OWN = re.compile(r"\x1b\[[0-9;?]*[mhlKA]|\r")


def assert_printable(ended: Ended, *shown: str) -> None:
    """Nothing but printable characters in lines and the library's own sequences came out; `shown` among them."""
    plain = _OWN.sub("", ended.out)
    assert [char for char in plain.replace("\n", "") if not char.isprintable()] == []
    for part in shown:
        assert part in plain


async def answer(lcm: ServerConnection) -> None:
    """Answer each request with hostile outcomes."""
    async for _ in lcm:
        await lcm.send(reply([{"OutComeID": HOSTILE, "Description": HOSTILE}]), text=True)


async def reject(lcm: ServerConnection) -> None:
    """Reject each account with a hostile text."""
    async for _ in lcm:
        await lcm.send(documents.reply({"success": False, "msg": HOSTILE}), text=True)


async def refuse_greeting(lcm: ServerConnection) -> None:
    """Answer the greeting with a hostile error."""
    async for _ in lcm:
        await lcm.send(documents.error("E", HOSTILE), text=True)


GREETING = json.dumps([{"send": "hello", "await": "Login"}])


async def test_outcomes_of_lcm_in_a_table_and_in_json() -> None:
    """Ids and descriptions are shown with escapes, and JSON means what LCM said."""
    async with peer(answer) as url:
        table = await on_terminal("lookup", ACCOUNT, columns=160, lcm__url=url)
        as_json = await on_terminal("lookup", "--json", ACCOUNT, columns=160, lcm__url=url)
    assert_printable(table, r"\x1b]52;c;aGk=")
    assert_printable(as_json, r"\u001b]52;c;aGk=", r"\u009b31m", r"\u007f", r"\u202e")
    (outcome,) = msgspec.json.decode(as_json.out)["outcomes"]
    assert outcome["id"] == HOSTILE


async def test_an_error_of_lcm() -> None:
    """What LCM rejects an account with is shown with escapes."""
    async with peer(reject) as url:
        for options in ((), ("--json",)):
            ended = await on_terminal("lookup", *options, ACCOUNT, columns=160, lcm__url=url)
            assert ended.status == 1
            assert_printable(ended, "evil")


@pytest.mark.parametrize("command", [("lookup", ACCOUNT), ("check",)], ids=["lookup", "check"])
async def test_a_greeting_that_is_refused(vhost: str, command: tuple[str, ...]) -> None:
    """Why LCM refuses a greeting is shown with escapes, on one line."""
    async with peer(refuse_greeting) as url:
        ended = await on_terminal(
            *command, columns=160, lcm__url=url, lcm__greeting=GREETING, broker__url=vhost
        )
    assert ended.status != 0
    assert_printable(ended, "evil")


async def test_dead_letters(vhost: str) -> None:
    """Whatever a dead letter holds, from the reason to its headers, is shown with escapes, as a page and as JSON."""
    letter = Dead("e-1", "lcm_rejected", HOSTILE, headers={"x": HOSTILE}, app_id=HOSTILE)
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [letter])
        for command in (("dead", "list"), ("dead", "show"), ("dead", "show", "--json")):
            assert_printable(await on_terminal(*command, columns=160, broker__url=vhost), "evil")
