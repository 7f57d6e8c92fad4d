"""`lcm-worker dead list` and `dead show` as processes, on a real broker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.support.channel import depth, open_channel
from tests.support.commands import command, on_terminal
from tests.support.dead_letters import DEAD, JOBS, Dead, consume, job_ids, lines, publish_dead_letters
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.admin.dead_letters import browse

MIXED = [
    Dead("a-1", "lcm_rejected", "LCM rejected the account: WS_Error | Invalid Call ID:18|a-1 | 'x'"),
    Dead("a-2", "lcm_rejected", "LCM rejected the account: WS_Error | Invalid Call ID:18|a-2 | 'yy'"),
    Dead("b-1", failed_at="2026-02-01T08:00:00.000Z"),
    Dead("b-2", reason="LCM did not reply in 0.5 s"),
    Dead("b-3"),
]


async def test_letters_are_grouped_by_code_and_shape(vhost: str) -> None:
    """In a pipe every group is a line: like reasons fall together, with their number and the first and last time."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, MIXED)
        ended = await command("dead", "list", broker__url=vhost)
    assert (ended.status, ended.err) == (0, "")
    assert lines(ended.out) == [
        {
            "code": "timeout", "user_id": None, "app_id": None,
            "reason": "LCM did not reply in # s", "count": 3,
            "oldest": "2026-01-31T12:00:00.000Z", "newest": "2026-02-01T08:00:00.000Z",
        },
        {
            "code": "lcm_rejected", "count": 2, "user_id": None, "app_id": None,
            "reason": "LCM rejected the account: WS_Error | Invalid Call ID:# | '#'",
            "oldest": "2026-01-31T12:00:00.000Z", "newest": "2026-01-31T12:00:00.000Z",
        },
    ]  # fmt: skip


async def test_letters_are_grouped_by_who_sent_them(vhost: str) -> None:
    """The same failure of two producers is two groups, in lines as in a table, so that a bad producer can be found."""
    sent_by = [("dialer", "crm"), ("dialer", "crm"), ("survey", "")]
    letters = [
        Dead(f"c-{number}", headers={"outcome-user-id": user_id}, app_id=app_id)
        for number, (user_id, app_id) in enumerate(sent_by)
    ]
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, letters)
        ended = await command("dead", "list", broker__url=vhost)
        shown = await on_terminal("dead", "list", columns=120, broker__url=vhost)
        page = await on_terminal("dead", "show", "c-0", columns=120, broker__url=vhost)
    groups = [(group["user_id"], group["app_id"], group["count"]) for group in lines(ended.out)]
    assert groups == [("dialer", "crm", 2), ("survey", None, 1)]
    assert "dialer crm" in shown.out
    assert "sent by    dialer crm" in page.out


@pytest.mark.parametrize("columns", [80, 160])
async def test_on_a_terminal_the_groups_are_a_table(vhost: str, columns: int) -> None:
    """On a terminal the groups are a table that no line leaves, with codes unbroken; `--json` gives lines there too."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, MIXED)
    shown = await on_terminal("dead", "list", columns=columns, broker__url=vhost)
    assert shown.status == 0
    assert "lcm.outcome.dead: 5 letters" in shown.out
    assert "lcm_rejected" in shown.out
    assert "…" not in shown.out
    assert ("01-31 12:00" if columns < 120 else "2026-01-31 12:00:00") in shown.out
    as_lines = await on_terminal("dead", "list", "--json", columns=columns, broker__url=vhost)
    assert '{"code":"timeout"' in as_lines.out


async def test_what_the_broker_moved_by_itself_has_groups_of_its_own(vhost: str) -> None:
    """Letters over the delivery limit, expired in the queue, or put there by others are told apart by their codes."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [])
        retried: dict[str, Any] = {"outcome-error-code": "timeout", "outcome-error-reason": "no reply in 9 s"}
        await channel.basic_publish(
            b"{}",
            routing_key=JOBS,
            properties=spec.Basic.Properties(delivery_mode=2, headers=retried, user_id="guest"),
        )
        for _ in range(21):
            got = await channel.basic_get(JOBS)
            assert isinstance(got.delivery, spec.Basic.GetOk)
            assert got.delivery.delivery_tag is not None
            await channel.basic_nack(got.delivery.delivery_tag, requeue=True)
        await until(lambda: _holds(channel, 1))
        await channel.basic_publish(b"{", routing_key=JOBS, properties=spec.Basic.Properties(expiration="1"))
        await until(lambda: _holds(channel, 2))
        await channel.basic_publish(b"\xff", routing_key=DEAD)
        ended = await command("dead", "list", broker__url=vhost)
    found = {group["code"]: group for group in lines(ended.out)}
    assert found.keys() == {"delivery_limit", "expired", "foreign"}
    limited = found["delivery_limit"]
    assert limited["reason"] == (
        "moved by the broker from queue lcm.outcome.jobs; its last error was timeout: no reply in # s"
    )
    assert limited["oldest"] is not None


async def _holds(channel: AbstractChannel, count: int) -> bool:
    return await depth(channel, DEAD) == count


@pytest.mark.timeout_s(300)
async def test_browsing_a_hundred_times_loses_nothing_and_keeps_the_order(vhost: str) -> None:
    """Pitfall "reading the dead queue": browsed 100 times, all is there in its order, and each time all was seen."""
    settings = broker_settings(vhost)
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead(f"{number}") for number in range(300)])
        for _ in range(100):
            async with browse(settings, DEAD, name="t") as browser:
                assert [delivery.tag async for delivery in browser.deliveries()] == list(range(1, 301))
            await until(lambda: _holds(channel, 300))
        ended = await command("dead", "list", broker__url=vhost)
        assert lines(ended.out)[0]["count"] == 300
        assert job_ids(await consume(channel, DEAD, 300)) == [f"{number}" for number in range(300)]


async def test_browsing_by_several_consumers_keeps_the_order(vhost: str) -> None:
    """Where one consumer can't hold the whole queue, several do: left halfway, the order is as it was."""
    settings = broker_settings(vhost)
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead(f"{number}") for number in range(3000)])
        seen = 0
        async with browse(settings, DEAD, name="t", prefetch=100) as browser:
            async for _ in browser.deliveries():
                seen += 1
                if seen == 1234:
                    break
        await until(lambda: _holds(channel, 3000))
        assert job_ids(await consume(channel, DEAD, 3000)) == [f"{number}" for number in range(3000)]


@pytest.mark.timeout_s(180)
async def test_browsing_holds_few_bodies(vhost: str) -> None:
    """However long the queue and slow the caller, few bodies are in memory: reading from the broker pauses."""
    settings = broker_settings(vhost)
    async with open_channel(vhost) as channel:
        await publish_dead_letters(
            channel, vhost, [Dead(f"{number}", body=b'"%s"' % (b"x" * 20_000)) for number in range(3000)]
        )
        most = 0
        async with browse(settings, DEAD, name="t") as browser:
            arrived = 0
            async for _ in browser.deliveries():
                arrived += 1
                if arrived == 1:
                    await until(lambda: browser._paused)
                most = max(most, len(browser._waiting))
            assert (arrived, browser.seen) == (3000, 3000)
        assert most < 300
        await until(lambda: _holds(channel, 3000))


async def test_what_comes_while_browsing_is_not_seen(vhost: str) -> None:
    """A browser yields what was there at its start, also where some of it is acknowledged and more comes: it ends."""
    settings = broker_settings(vhost)
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead("1"), Dead("2"), Dead("3")])
        async with browse(settings, DEAD, name="t") as browser:
            seen = 0
            async for delivery in browser.deliveries():
                seen += 1
                await browser.acknowledge(delivery.tag)
                await publish_dead_letters(channel, vhost, [Dead(f"new-{seen}")])
            await browser.flush()
        await until(lambda: _holds(channel, 3))
        assert seen == 3
        assert job_ids(await consume(channel, DEAD, 3)) == ["new-1", "new-2", "new-3"]


async def test_show_gives_one_letter_in_full(vhost: str) -> None:
    """`show` in a pipe gives body, headers and properties of the first that matches; `--index` another one."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(
            channel, vhost, [*MIXED, Dead("raw", "invalid_job", "?", body=b"\xff\x00")]
        )
    (first,) = lines((await command("dead", "show", broker__url=vhost)).out)
    assert (first["job_id"], first["body"]) == ("a-1", '{"account_number":"18|a-1","job_id":"a-1"}')
    assert first["headers"]["outcome-attempts"] == 15
    assert first["properties"]["message_id"] == "m-a-1"
    assert first["failed_at"] == "2026-01-31T12:00:00.000Z"
    (second,) = lines(
        (await command("dead", "show", "--code", "timeout", "--index", "2", broker__url=vhost)).out
    )
    assert second["job_id"] == "b-2"
    (raw,) = lines((await command("dead", "show", "raw", broker__url=vhost)).out)
    assert raw["body_base64"] == "/wA="
    both = lines((await command("dead", "show", "--limit", "2", broker__url=vhost)).out)
    assert [record["job_id"] for record in both] == ["a-1", "a-2"]


async def test_show_on_a_terminal_breaks_between_words(vhost: str) -> None:
    """A long reason goes on below itself; the lines of the body stay whole."""
    reason = " ".join(f"word{number}" for number in range(100, 130))
    body = json.dumps({"account_number": "1|" * 60})
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead("w", reason=reason, body=body.encode())])
    shown = await on_terminal("dead", "show", "w", columns=80, broker__url=vhost)
    lines_shown = [line.rstrip() for line in shown.out.splitlines()]
    below = [line for line in lines_shown if line.startswith("           word")]
    assert len(below) >= 2
    assert all(word in reason.split() for line in below for word in line.split())
    assert f'    "account_number": "{"1|" * 60}"' in lines_shown


async def test_show_on_a_terminal_is_escaped(vhost: str) -> None:
    """On a terminal a letter is a page with its body indented, on which escape sequences are shown, not obeyed."""
    letter = Dead("e", reason="\x1b[2Jgone", body=b'{"account_number":"1","deep":{"n":1.0,"n":2}}')
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [letter, Dead("bytes", body=b"\xff\x00")])
    shown = await on_terminal("dead", "show", "--limit", "2", columns=80, broker__url=vhost)
    assert shown.status == 0
    assert "\x1b[2J" not in shown.out
    assert r"\x1b[2Jgone" in shown.out
    assert '"n": 1.0,' in shown.out
    assert "ff00" in shown.out


@pytest.mark.parametrize("wanted", [["list"], ["show", "x"], ["replay", "--all"], ["drop", "--all", "--yes"]])
async def test_nothing_that_matches_is_no_failure(vhost: str, wanted: list[str]) -> None:
    """Where nothing matches, or the queue is empty, it says so, and the status is 0."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [])
    ended = await command("dead", *wanted, broker__url=vhost)
    assert (ended.status, ended.out) == (0, "")
    assert "lcm.outcome.dead is empty" in ended.err
    if wanted[0] != "list":
        async with open_channel(vhost) as channel:
            await publish_dead_letters(channel, vhost, MIXED)
        other = [word for word in wanted if word not in {"--all", "x"}]
        ended = await command("dead", *other, "--code", "no-such", broker__url=vhost)
        assert (ended.status, ended.out) == (0, "")
        assert "nothing matches in lcm.outcome.dead, of 5 looked at" in ended.err


async def test_a_job_that_is_not_there_is_named(vhost: str) -> None:
    """Of the jobs that were named, those that have no letter are told."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, MIXED)
    ended = await command("dead", "replay", "a-1", "typo", "--dry-run", broker__url=vhost)
    assert ended.status == 0
    assert "not in lcm.outcome.dead: typo\n" in ended.err


@pytest.mark.parametrize("wanted", [["list"], ["show"], ["replay", "--all"], ["drop", "--all", "--yes"]])
async def test_a_queue_that_is_missing_is_named(vhost: str, wanted: list[str]) -> None:
    """Where there is no such queue, one line names it and what to look at; nothing is declared; the status is 2."""
    ended = await command("dead", *wanted, broker__url=vhost, broker__prefix="typo")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("lcm-worker: queue 'typo.dead' can't be looked at")
    assert "broker.prefix" in ended.err
    assert ended.err.count("\n") == 1


async def test_a_broker_that_is_away_is_told_with_the_remedy() -> None:
    """Without a broker one line says so and what to look at, and the status is 1."""
    ended = await command("dead", "list", broker__url="amqp://me:s3cret@127.0.0.1:1/")
    assert (ended.status, ended.out) == (1, "")
    assert "see broker.url" in ended.err
    assert "s3cret" not in ended.err
    assert ended.err.count("\n") == 1
