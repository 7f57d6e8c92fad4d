"""`lcm-worker status` as a process, against a real broker."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiormq.abc import AbstractChannel

from tests.support.broker import add_user, close_connections, fall_silent, speak_again
from tests.support.channel import depth, open_channel
from tests.support.commands import COMMAND, command, ending, environment, on_terminal, worker
from tests.support.dead_letters import Dead, publish_dead_letters
from tests.support.settings import broker_settings
from tests.support.terminal import terminal
from tests.support.waiting import until
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.sandbox.node import Node
from worker.simulator.server import Simulator

JOBS, RESULTS, DEAD = "lcm.outcome.jobs", "lcm.outcome.results", "lcm.outcome.dead"
UNDELIVERED, LONGEST = "lcm.outcome.undelivered", "lcm.outcome.retry.10m"
HOSTILE = "evil\x1b]52;c;aGk=\x07\x1b[2J\u202egnp"


async def status(url: str, *arguments: str, **settings: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status and the document of a status in a pipe."""
    ended = await command("status", *arguments, broker__url=url, **settings)
    assert ended.err == ""
    return ended.status, msgspec.json.decode(ended.out)


def first(document: dict[str, Any]) -> tuple[str, str]:
    """Return level and text of the most urgent finding."""
    finding = document["findings"][0]
    return finding["level"], f"{finding['what']}: {finding['detail']}"


def queues(document: dict[str, Any], field: str) -> dict[str, Any]:
    return {queue["name"]: queue[field] for queue in document["queues"]}


@asynccontextmanager
async def declared(url: str) -> AsyncIterator[AbstractChannel]:
    """Give a channel to a broker that has the topology."""
    async with open_channel(url) as channel:
        await declare(channel, topology_of(broker_settings(url)))
        yield channel


async def ignored(_: object) -> None:
    """Take a delivery and do nothing with it."""


async def put(channel: AbstractChannel, **counts: int) -> None:
    for name, count in counts.items():
        for _ in range(count):
            await channel.basic_publish(b"{}", routing_key=f"lcm.outcome.{name.replace('__', '.')}")


async def test_nothing_is_there_yet(vhost: str) -> None:
    """Queues that do not exist are missing: fine where a worker declares them, status 2 where it does not."""
    ended, told = await status(vhost)
    assert ended == 0
    assert set(queues(told, "state").values()) == {"missing"}
    assert set(queues(told, "ready").values()) == {None}
    assert first(told)[0] == "warn"
    assert "none of them exists: a worker declares them as it starts" in first(told)[1]
    async with open_channel(vhost) as channel:
        await channel.exchange_declare("lcm.outcome.jobs", exchange_type="direct", durable=True)
        await channel.queue_declare(JOBS, durable=True)
        passive, told = await status(vhost, broker__declare="passive")
    assert passive == 2
    missing = {finding["what"] for finding in told["findings"] if finding["level"] == "missing"}
    assert {"exchange lcm.outcome.results", f"queue {DEAD}"} <= missing
    assert f"queue {JOBS}" not in missing
    assert queues(told, "ready")[JOBS] == 0


async def test_everything_is_empty(vhost: str) -> None:
    """Of empty queues it says that nothing is to do, and whether anybody takes jobs; the document is as described."""
    async with declared(vhost) as channel:
        ended, told = await status(vhost)
        assert (ended, first(told)[0]) == (0, "warn")
        assert first(told)[1].startswith(
            "jobs: none waits, and no worker takes any: start one, or see /readyz"
        )
        await channel.basic_consume(JOBS, ignored)
        ended, told = await status(vhost)
    assert (ended, len(told["findings"])) == (0, 1)
    assert first(told) == ("ok", "jobs: nothing to do, all queues are empty; 1 consumer takes them")
    assert [*told] == [
        "at", "exit_status", "findings", "broker", "queues", "workers", "results_to", "dead_reasons"
    ]  # fmt: skip
    assert told["workers"] == {"consumers": 1, "limit": None, "seen": None}
    assert (told["results_to"], told["dead_reasons"]) == (None, None)
    assert {**told["broker"], "url": ""} == {
        "url": "", "answers": True, "takes_messages": True, "missing_exchanges": []
    }  # fmt: skip
    assert [*queues(told, "name")] == [
        JOBS, *(f"lcm.outcome.retry.{step}" for step in ("5s", "30s", "2m", "10m")), RESULTS, UNDELIVERED, DEAD
    ]  # fmt: skip
    assert told["queues"][0] == {
        "name": JOBS, "state": "ok", "ready": 0, "consumers": 1, "oldest_s": None, "unacknowledged": None,
        "published_per_s": None, "delivered_per_s": None,
    }  # fmt: skip


async def test_something_is_everywhere_and_nothing_of_it_is_touched(vhost: str) -> None:
    """All queues are counted, no worker comes first; no message is taken, nor counted as delivered once more."""
    async with declared(vhost) as channel:
        await put(channel, jobs=3, results=2, undelivered=1, retry__10m=4)
        await publish_dead_letters(channel, vhost, [Dead("a"), Dead("b", HOSTILE), Dead("c")])
        ended, told = await status(vhost)
        shown = await on_terminal("status", "--reasons", columns=100, broker__url=vhost)
        after = {name: await depth(channel, name) for name in (JOBS, RESULTS, DEAD, UNDELIVERED, LONGEST)}
        delivered = [(await channel.basic_get(name)).header for name in (JOBS, RESULTS, UNDELIVERED)]
    assert ended == 1
    assert first(told)[0] == "stuck"
    assert first(told)[1].startswith("jobs: 3 wait and 4 are in retry queues, and no worker takes any: ")
    assert [finding["what"] for finding in told["findings"]] == ["jobs", "results", "undelivered", "dead"]
    assert {name: queues(told, "ready")[name] for name in after} == after == {
        JOBS: 3, RESULTS: 2, DEAD: 3, UNDELIVERED: 1, LONGEST: 4
    }  # fmt: skip
    assert set(queues(told, "oldest_s").values()) == {None}
    for header in delivered:
        assert header is not None
        assert not (header.properties.headers or {}).get("x-delivery-count")
    assert shown.status == 1
    assert "\x1b]52" not in shown.out
    assert r"evil\x1b]52;c;aGk=\x07\x1b[2J\u202egnp" in shown.out
    assert max(map(len, shown.out.splitlines())) < 120


async def test_reasons_group_the_dead_letters_by_code(vhost: str) -> None:
    """With --reasons each code has its number and its oldest; without a right to read, that alone is unknown."""
    letters = [
        Dead("a"), Dead("b", failed_at="2026-01-30T12:00:00.000Z"), Dead("c", "invalid_job", headers={"x": 1})
    ]  # fmt: skip
    async with declared(vhost) as channel:
        await publish_dead_letters(channel, vhost, letters)
        ended, told = await status(vhost, "--reasons")
        assert await depth(channel, DEAD) == 3
    assert ended == 0
    assert told["dead_reasons"] == [
        {"code": "timeout", "count": 2, "oldest": "2026-01-30T12:00:00.000Z"},
        {"code": "invalid_job", "count": 1, "oldest": "2026-01-31T12:00:00.000Z"},
    ]


async def test_a_user_who_may_do_nothing(broker: Node, vhost: str) -> None:
    """A user without any right is told the counts all the same; what it may not read is unknown and is no failure."""
    name = vhost.rpartition("/")[2]
    await add_user(broker, name, configure="^$", write="^$", read="^$")
    url = vhost.replace("guest:guest", f"{name}:secret")
    async with declared(vhost) as channel:
        await put(channel, dead=1)
        ended, told = await status(url, "--reasons", broker__declare="passive")
    assert ended == 0
    assert (queues(told, "ready")[DEAD], told["dead_reasons"]) == (1, None)
    assert told["broker"]["takes_messages"] is True
    (unknown,) = (finding for finding in told["findings"] if finding["level"] == "unknown")
    assert unknown["what"] == "reasons"
    assert "may not read" in unknown["detail"]


async def test_all_is_in_retry_queues(vhost: str) -> None:
    """Where a worker waits and all jobs are to be tried later, it says so."""
    async with declared(vhost) as channel:
        await channel.basic_consume(JOBS, ignored)
        await put(channel, retry__10m=2)
        ended, told = await status(vhost)
    assert (ended, first(told)[0]) == (0, "warn")
    assert "all that is left, 2, waits in retry queues" in first(told)[1]


async def test_a_worker_at_work(vhost: str) -> None:
    """A worker that is ready is one consumer of jobs, and nothing is in the way."""
    async with Simulator() as lcm, worker(vhost, lcm.url):
        ended, told = await status(vhost)
    assert (ended, told["workers"]["consumers"]) == (0, 1)
    assert first(told) == ("ok", "jobs: nothing to do, all queues are empty; 1 consumer takes them")


async def test_an_alarm_comes_first(broker: Node, vhost: str) -> None:
    """A broker that takes no messages is told before all else, with the counts; the status is 1."""

    async def alarmed() -> bool:
        return await broker.eval("rabbit_alarm:get_alarms()") != "[]"

    async with declared(vhost) as channel:
        await put(channel, jobs=1)
        await broker.alarm(on=True)
        try:
            await until(alarmed)
            ended, told = await status(vhost)
        finally:
            await broker.alarm(on=False)
    assert (ended, first(told)[0], told["broker"]["takes_messages"]) == (1, "alarm", False)
    assert "memory or disk alarm" in first(told)[1]
    assert queues(told, "ready")[JOBS] == 1


async def test_a_queue_whose_leader_is_away_is_unknown(broker: Node, vhost: str) -> None:
    """A queue of whose leader the broker hears nothing is unknown, never empty; the others are counted."""
    async with declared(vhost) as channel:
        await put(channel, jobs=1, results=1)
        await fall_silent(broker, vhost, JOBS)
        try:
            ended, told = await status(vhost)
        finally:
            await speak_again(broker, vhost, JOBS)
    assert ended == 1
    assert first(told)[0] == "away"
    assert (queues(told, "state")[JOBS], queues(told, "ready")[JOBS]) == ("unknown", None)
    assert queues(told, "ready")[RESULTS] == 1
    assert told["workers"]["consumers"] is None


async def test_the_broker_is_away() -> None:
    """Without a broker one finding says why, without the password; all else is unknown, and the status is 1."""
    async with Simulator() as other:
        await other.stop()
        url = f"amqp://me:s3cret@127.0.0.1:{other.port}/"
        ended, told = await status(url)
        shown = await on_terminal("status", broker__url=url)
    assert (ended, shown.status, len(told["findings"])) == (1, 1, 1)
    assert first(told)[0] == "away"
    assert "see broker.url" in first(told)[1]
    assert set(queues(told, "state").values()) == {"unknown"}
    assert "see broker.url" in " ".join(shown.out.split())
    assert "s3cret" not in shown.out + str(told)


async def test_a_management_api_that_is_away(vhost: str, tmp_path: Path) -> None:
    """Where no API answers it says so with status 1, shows no secret, and what AMQP tells stands there."""
    async with Simulator() as other, declared(vhost):
        await other.stop()
        (tmp_path / "password").write_text("s3cret")
        (tmp_path / "password").chmod(0o600)
        url, file = f"http://me@127.0.0.1:{other.port}", str(tmp_path / "password")
        ended, told = await status(vhost, "--management", url, "--management-password-file", file)
    assert (ended, first(told)[0], told["results_to"]) == (1, "away", None)
    assert "rabbitmq_management" in first(told)[1]
    assert "s3cret" not in str(told)
    assert queues(told, "ready")[JOBS] == 0


@pytest.mark.parametrize("end", [b"q", b"\x03"], ids=["key", "interrupt"])
async def test_the_live_screen(vhost: str, end: bytes) -> None:
    """On a terminal --watch follows the queues until q or Ctrl-C, and leaves the last status on the normal screen."""
    async with declared(vhost) as channel:
        with terminal("status", "--watch", "--every", "100ms", settings={"broker.url": vhost}) as shown:
            await shown.shows("none waits")
            assert shown.has("q quit")
            await put(channel, jobs=1)
            await shown.shows("1 wait, and no worker")
            shown.press(end)
            left = await shown.ended()
    assert "stuck   jobs: 1 wait, and no worker takes any" in left
    assert "q quit" not in left


async def test_watching_in_a_pipe(vhost: str) -> None:
    """In a pipe there is a document each time, until a signal ends it with 0."""
    async with declared(vhost) as channel:
        process = await asyncio.create_subprocess_exec(
            COMMAND, "status", "--watch", "--every", "100ms",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment({"broker.url": vhost}),
        )  # fmt: skip
        async with ending(process):
            assert process.stdout is not None
            seen: list[int] = []

            async def one_more() -> bool:
                assert process.stdout is not None
                told = msgspec.json.decode(await process.stdout.readline())
                seen.append(queues(told, "ready")[JOBS])
                return seen[-1] == 2

            assert not await one_more()
            await put(channel, jobs=2)
            await until(one_more)
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert seen[0] == 0


async def test_watching_goes_on_when_the_broker_left(broker: Node, vhost: str) -> None:
    """A lost connection is a status, and the next look makes another one."""
    name = vhost.rpartition("/")[2]
    await add_user(broker, name, configure="^$", write="^$", read="^$")
    url = vhost.replace("guest:guest", f"{name}:secret")
    with terminal("status", "--watch", "--every", "100ms", settings={"broker.url": url}) as shown:
        await shown.shows("none of them exists")
        await broker.eval(
            f'rabbit_auth_backend_internal:clear_permissions(<<"{name}">>, <<"{name}">>, <<"t">>)'
        )
        await close_connections(broker, url)
        await shown.shows("set_permissions")
        shown.text = ""
        await add_user(broker, name, configure="^$", write="^$", read="^$")
        await shown.shows("none of them exists")
        shown.press(b"q")
        await shown.ended()


@pytest.mark.parametrize(
    ("line", "said"),
    [("--every 5s", "--watch"), ("--watch --every 1ms", "100ms"), ("--watch --reasons", "--reasons")],
)
async def test_options_that_do_not_go_together(line: str, said: str) -> None:
    """What can't be done is wrong usage, and says why."""
    ended = await command("status", *line.split())
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.err
