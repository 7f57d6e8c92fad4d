"""`lcm-worker lookup` as a process, against a simulated LCM."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from tests.support.commands import COMMAND, command, environment, on_terminal
from tests.support.lcm import peer
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Exchange, Simulator

ACCOUNT = "18|1|2|0|0|44|274"
REFUSING = Behaviour(rules=(Rule("9|*", "refuse"),))


async def nobody() -> str:
    """Return a URL where nobody listens."""
    async with Simulator() as lcm:
        return lcm.url


async def test_lcm_closes_every_session_at_once() -> None:
    """An LCM that accepts the websocket and closes it by a refusal can't be reached; code and reason are told."""

    async def turn_out(lcm: ServerConnection) -> None:
        await lcm.close(4401, "token expired")

    async with peer(turn_out) as url:
        ended = await command("lookup", ACCOUNT, lcm__url=url)
    assert (ended.status, ended.out) == (1, "")
    assert "code 4401 (unauthorized): token expired" in ended.err


async def test_in_a_pipe_each_account_gives_a_line() -> None:
    """In a pipe every account gives one JSON result, as it would stand on the broker, and nothing else."""
    async with Simulator() as lcm:
        ended = await command("lookup", ACCOUNT, "137|1|3|0|0|84|", lcm__url=lcm.url)
    assert (ended.status, ended.err) == (0, "")
    found = {line["account_number"]: line for line in map(msgspec.json.decode, ended.out.splitlines())}
    assert found.keys() == {ACCOUNT, "137|1|3|0|0|84|"}
    result = found[ACCOUNT]
    assert (result["status"], result["source"], result["attempts"]) == ("succeeded", "lcm", 1)
    assert result["outcomes"][-1] == {
        "id": "1000", "code": "account_18_1_2_0_0_44_274", "description": f"Account {ACCOUNT}",
    }  # fmt: skip
    assert result["fingerprint"].startswith("sha256:")


@pytest.mark.parametrize("columns", [80, 160])
async def test_on_a_terminal_a_table_is_shown(columns: int) -> None:
    """On a terminal the outcomes are a table, ordered by id, that no line of it leaves and nothing is cut from."""
    async with Simulator() as lcm:
        ended = await on_terminal("lookup", ACCOUNT, columns=columns, lcm__url=lcm.url)
    lines = ended.out.splitlines()
    assert ended.status == 0
    assert any(f"{ACCOUNT}: 50 outcomes" in line for line in lines)
    ids = [
        int(line.split()[0])
        for line in lines
        if line.split() and line.split()[0].isdecimal() and line[:5].strip()
    ]
    assert ids == sorted(ids)
    assert {0, 7, 98, 99, 1000} <= set(ids)
    assert "…" not in ended.out
    assert "call_blocked_by_feedengine_against_ndnc" in ended.out


async def test_on_a_terminal_json_is_given_where_asked_for() -> None:
    """`--json` gives results as lines on a terminal too."""
    async with Simulator() as lcm:
        ended = await on_terminal("lookup", "--json", ACCOUNT, columns=80, lcm__url=lcm.url)
    assert msgspec.json.decode(ended.out)["account_number"] == ACCOUNT


async def test_a_dash_reads_standard_input() -> None:
    """`-` stands for the lines of standard input: blank ones are skipped, line ends, a mark and comments removed."""
    async with Simulator() as lcm:
        told = "\ufeff3|3\n\n4|4\r\n# more\n5|5"
        ended = await command("lookup", "1|1", "-", "2|2", told=told, lcm__url=lcm.url)
    accounts = [msgspec.json.decode(line)["account_number"] for line in ended.out.splitlines()]
    assert (ended.status, sorted(accounts)) == (0, ["1|1", "2|2", "3|3", "4|4", "5|5"])


async def test_a_refused_account_is_a_failed_result() -> None:
    """An account that LCM refuses gives a failed result and a line on standard error; the others go on."""
    async with Simulator(REFUSING) as lcm:
        ended = await command("lookup", "9|9", ACCOUNT, lcm__url=lcm.url)
    assert ended.status == 1
    found = {line["account_number"]: line for line in map(msgspec.json.decode, ended.out.splitlines())}
    assert found[ACCOUNT]["status"] == "succeeded"
    assert (found["9|9"]["status"], found["9|9"]["error"]["code"]) == ("failed", "lcm_rejected")
    assert ended.err.startswith("lcm-worker: '9|9': lcm_rejected: ")
    assert ended.err.count("\n") == 1


async def test_a_refused_account_is_said_on_a_terminal() -> None:
    """On a terminal a refused account is named with the error's code and text."""
    async with Simulator(REFUSING) as lcm:
        ended = await on_terminal("lookup", "9|9", columns=200, lcm__url=lcm.url)
    assert ended.status == 1
    assert "9|9: lcm_rejected" in ended.out
    assert "LCM rejected the account: WS_Error" in ended.out


async def test_a_summary_has_a_line_for_each_account() -> None:
    """How many outcomes, or the error, on a terminal and in a pipe; the exit status tells that one failed."""
    async with Simulator(REFUSING) as lcm:
        arguments = ("lookup", "--summary", ACCOUNT, "9|1")
        shown = await on_terminal(*arguments, columns=80, lcm__url=lcm.url)
        piped = await command(*arguments, lcm__url=lcm.url)
    for ended in shown, piped:
        assert ended.status == 1
        told = sorted(re.sub(r"\x1b\[[\d;]*m", "", ended.out).splitlines())
        assert told[0] == f"{ACCOUNT}: 50 outcomes"
        assert told[1].startswith("9|1: lcm_rejected: ")
    both = await command("lookup", "--summary", "--json", ACCOUNT, lcm__url=lcm.url)
    assert (both.status, both.out) == (2, "")
    assert "exclude each other" in both.err


async def test_an_account_that_can_be_none_is_a_failed_result() -> None:
    """What is no account number fails as a job would, without LCM being asked, and never as a traceback."""
    async with Simulator() as lcm:
        process = await asyncio.create_subprocess_exec(
            COMMAND, b"lookup", b"\xff|1", b"", b"a\x1b[2Jb", b"1" * 257,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment({"lcm.url": lcm.url}),
        )  # fmt: skip
        out, err = await process.communicate()
    assert process.returncode == 1
    assert [msgspec.json.decode(line)["error"]["code"] for line in out.splitlines()] == ["invalid_job"] * 4
    said = err.decode().splitlines()
    assert len(said) == 4
    assert all(line.isprintable() for line in said)
    assert lcm.record == []


async def test_a_line_of_input_that_is_no_text_fails_alone() -> None:
    """A line that is not UTF-8 gives a failed result, and the lines around it succeed."""
    async with Simulator() as lcm:
        ended = await command("lookup", "-", told=b"1|1\n\xff\n2|2\n", lcm__url=lcm.url)
    statuses = sorted(msgspec.json.decode(line)["status"] for line in ended.out.splitlines())
    assert (ended.status, statuses) == (1, ["failed", "succeeded", "succeeded"])


async def test_without_lcm_it_ends_with_one_line() -> None:
    """Where LCM can't be reached one line on standard error says so and what to look at, and the status is 1."""
    ended = await command("lookup", ACCOUNT, "2|2", lcm__url=await nobody())
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("lcm-worker: no session with LCM at 127.0.0.1:")
    assert "see [lcm] in the settings" in ended.err


class Hesitant(Simulator):
    """Refuses every second session, with this status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__()
        self._status = status

    def _verdict(self, fault: str | None, name: str | None, authorization: str) -> HTTPStatus:
        admitted = super()._verdict(fault, name, authorization)
        return self._status if len(self.connections) % 2 else admitted


ONE_AT_A_TIME: dict[str, Any] = {
    "lcm__sessions": 1,
    "lcm__max_exchanges": 1,
    "outage__probe_delay": "20ms",
    "outage__probe_max_delay": "50ms",
}


@pytest.mark.parametrize("status", [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.UNAUTHORIZED])
async def test_a_session_that_is_refused_in_between_ends_nothing(status: HTTPStatus) -> None:
    """Once LCM has answered, a session that can't be opened is tried again: every account has its result."""
    told = "1|1\n2|2\n3|3\n4|4\n5|5\n"
    async with Hesitant(status) as lcm:
        ended = await command("lookup", "-", told=told, lcm__url=lcm.url, **ONE_AT_A_TIME)
    accounts = [msgspec.json.decode(line)["account_number"] for line in ended.out.splitlines()]
    assert (ended.status, sorted(accounts)) == (0, ["1|1", "2|2", "3|3", "4|4", "5|5"])
    assert ended.err.count(f"HTTP {status.value}") == ended.err.count("; trying again\n") == 4


class Dropping(Simulator):
    """Drops the first connection in its handshake."""

    def _admit(self, websocket: ServerConnection, request: Request, response: Response) -> Response | None:
        if not self.connections:
            websocket.transport.abort()
        return super()._admit(websocket, request, response)


async def test_a_first_session_that_is_dropped_ends_nothing_while_others_are_opened() -> None:
    """One that fails among several at the start is tried again, as one that fails later is."""
    async with Dropping() as lcm:
        ended = await command("lookup", "1|1", "2|2", "3|3", lcm__url=lcm.url, outage__probe_delay="20ms")
    assert (ended.status, ended.out.count("\n"), ended.err) == (0, 3, "")


async def test_where_lcm_goes_away_it_tells_how_far_it_came() -> None:
    """Where no session can be opened three times in a row, it ends with status 1 and says what was not asked."""
    gone = Behaviour(faults={"unavailable": 1.0})

    def go(_: Exchange) -> None:
        lcm.behaviour = gone

    async with Simulator(on_exchange=go) as lcm:
        ended = await command("lookup", "1|1", "2|2", "3|3", lcm__url=lcm.url, **ONE_AT_A_TIME)
        assert len(lcm.connections) == 4
    assert (ended.status, ended.out.count("\n")) == (1, 1)
    assert ended.err.endswith("\nlcm-worker: 1 account was looked up, 0 failed; the others have no result\n")


async def test_without_lcm_it_does_not_wait_for_its_input() -> None:
    """Where LCM can't be reached it ends even though more accounts may still come."""
    process = await asyncio.create_subprocess_exec(
        COMMAND, "lookup", "1|1", "-",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environment({"lcm.url": await nobody()}),
    )  # fmt: skip
    async with asyncio.timeout(30):
        assert await process.wait() == 1
    assert process.stderr is not None
    said = (await process.stderr.read()).decode()
    assert said.count("\n") == 1
    assert process.stdin is not None
    process.stdin.close()


async def test_what_lcm_says_does_not_reach_the_terminal_as_a_command() -> None:
    """An escape sequence in LCM's own words is shown, not obeyed."""
    async with Simulator(Behaviour(known="\x1b*", unknown="refuse")) as lcm:
        ended = await on_terminal("lookup", "9|\u2028|9", columns=200, lcm__url=lcm.url)
    assert "\u2028" not in ended.out
    assert r"9|\u2028|9: lcm_rejected" in ended.out
