"""`lcm-worker undelivered list`, `show`, `send` and `drop` as processes, on a real broker."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.support.channel import depth, open_channel, take, take_all
from tests.support.commands import command, on_terminal
from tests.support.dead_letters import lines
from tests.support.settings import broker_settings
from worker.broker.declare import declare
from worker.broker.topology import topology_of

RESULTS, UNDELIVERED = "lcm.outcome.results", "lcm.outcome.undelivered"
STAYS = f"no results of this worker, which stay in {UNDELIVERED}: 1"
MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)


async def park(
    channel: AbstractChannel, url: str, *results: tuple[str, str], user: str | None = "guest"
) -> None:
    """Declare the topology without a results queue, and park results: pairs of job id and routing key."""
    await declare(channel, topology_of(broker_settings(url, results_queue=False)))
    for job_id, key in results:
        properties = spec.Basic.Properties(
            delivery_mode=2,
            message_id=f"m-{job_id}",
            user_id=user,
            timestamp=MOMENT,
            headers={"outcome-routing-key": key, "traceparent": "00-1"} if key else {},
        )
        body = msgspec.json.encode({"job_id": job_id, "status": "succeeded"})
        await channel.basic_publish(body, routing_key=UNDELIVERED, properties=properties)


MIXED = [("a-1", "result.succeeded.a"), ("a-2", "result.succeeded.a"), ("b-1", "result.failed.b"), ("x", "")]


async def test_results_are_listed_by_routing_key(vhost: str) -> None:
    """In a pipe a line for each routing key, the most frequent first; on a terminal a table."""
    async with open_channel(vhost) as channel:
        await park(channel, vhost, *MIXED)
        ended = await command("undelivered", "list", broker__url=vhost)
        shown = await on_terminal("undelivered", "list", broker__url=vhost)
        assert await depth(channel, UNDELIVERED) == 4
    assert (ended.status, ended.err) == (0, "")
    times = {"oldest": "2026-01-31T12:00:00.000Z", "newest": "2026-01-31T12:00:00.000Z"}
    assert lines(ended.out) == [
        {"routing_key": "result.succeeded.a", "count": 2, **times},
        {"routing_key": "foreign", "count": 1, **times},
        {"routing_key": "result.failed.b", "count": 1, **times},
    ]
    assert "lcm.outcome.undelivered: 4 results" in shown.out
    assert "result.failed.b" in shown.out


async def test_a_result_is_shown_in_full(vhost: str) -> None:
    """All that is known of it: properties, headers and body; people get a page."""
    async with open_channel(vhost) as channel:
        await park(channel, vhost, *MIXED)
        ended = await command("undelivered", "show", "a-2", broker__url=vhost)
        shown = await on_terminal("undelivered", "show", "a-2", broker__url=vhost)
    [record] = lines(ended.out)
    assert (record["job_id"], record["routing_key"]) == ("a-2", "result.succeeded.a")
    assert record["properties"]["message_id"] == "m-a-2"
    assert record["headers"]["traceparent"] == "00-1"
    assert record["body"] == '{"job_id":"a-2","status":"succeeded"}'
    assert "1. a-2: result.succeeded.a" in shown.out


async def test_results_are_sent_where_a_queue_takes_them(vhost: str) -> None:
    """Each is confirmed, then taken off; of a routing key that is not taken nothing is lost, and the status is 1."""
    async with open_channel(vhost) as channel:
        await park(channel, vhost, *MIXED)
        own = (await channel.queue_declare("", exclusive=True)).queue or ""
        await channel.queue_bind(own, RESULTS, "result.*.a")
        none = await command("undelivered", "send", broker__url=vhost, broker__results_queue="false")
        assert (none.status, "--all" in none.err) == (2, True)
        dry = await command("undelivered", "send", "--all", "--dry-run", broker__url=vhost)
        assert (dry.status, await depth(channel, UNDELIVERED)) == (0, 4)
        assert "3 results would be sent" in dry.err
        assert STAYS in dry.err
        assert "foreign" not in dry.out
        ended = await command(
            "undelivered", "send", "--all", broker__url=vhost, broker__results_queue="false"
        )
        assert ended.status == 1
        assert "sent 2 results" in ended.err
        assert STAYS in ended.err
        assert "not taken: result.failed.b: no queue takes" in ended.err
        sent = await take(channel, own)
        assert sent.routing_key == "result.succeeded.a"
        assert sent.header.properties.message_id == "m-a-1"
        assert sent.header.properties.headers == {"traceparent": "00-1"}
        left = {msgspec.json.decode(each.body)["job_id"] for each in await take_all(channel, UNDELIVERED)}
        assert left == {"b-1", "x"}


async def test_a_result_that_no_user_of_ours_parked_is_foreign(vhost: str) -> None:
    """Whoever can publish to the queue has nothing sent by it: its routing key is not believed."""
    async with open_channel(vhost) as channel:
        await park(channel, vhost, ("forged", "result.succeeded.a"), user=None)
        own = (await channel.queue_declare("", exclusive=True)).queue or ""
        await channel.queue_bind(own, RESULTS, "#")
        listed = await command("undelivered", "list", broker__url=vhost)
        ended = await command(
            "undelivered", "send", "--all", broker__url=vhost, broker__results_queue="false"
        )
        assert (await depth(channel, own), await depth(channel, UNDELIVERED)) == (0, 1)
    assert [line["routing_key"] for line in lines(listed.out)] == ["foreign"]
    assert (ended.status, STAYS in ended.err) == (0, True)


async def test_results_are_dropped_and_saved(vhost: str, tmp_path: Path) -> None:
    """What is dropped is in the file first; without a terminal somebody has to say --yes."""
    saved = tmp_path / "dropped.jsonl"
    chosen = ("undelivered", "drop", "--routing-key", "result.succeeded.a")
    async with open_channel(vhost) as channel:
        await park(channel, vhost, *MIXED)
        unasked = await command(*chosen, broker__url=vhost)
        assert (unasked.status, "--yes" in unasked.err) == (2, True)
        ended = await command(*chosen, "--yes", "--output", str(saved), broker__url=vhost)
        assert (ended.status, await depth(channel, UNDELIVERED)) == (0, 2)
    assert [record["job_id"] for record in lines(saved.read_text())] == ["a-1", "a-2"]


async def test_an_empty_queue_is_said_to_be_empty(vhost: str) -> None:
    """Nothing is printed but a note."""
    async with open_channel(vhost) as channel:
        await park(channel, vhost)
    ended = await command("undelivered", "list", broker__url=vhost)
    assert (ended.status, ended.out) == (0, "")
    assert "lcm.outcome.undelivered is empty" in ended.err
