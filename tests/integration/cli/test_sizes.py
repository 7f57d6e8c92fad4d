"""What a broker with small limits does not take: `submit` names the job, `dead replay` leaves it and goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import running_broker
from tests.support.channel import depth, open_channel, take_all
from tests.support.commands import command
from tests.support.dead_letters import DEAD, JOBS, Dead, publish_dead_letters
from tests.support.settings import broker_settings
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.sandbox.node import Node

MOST = 60_000


@pytest.fixture(scope="module")
def narrow() -> Iterator[Node]:
    """Give a broker with small frames, which takes no large messages."""
    with running_broker(Node(config={"frame_max": 8192, "max_message_size": MOST})) as node:
        yield node


async def take_at_most(node: Node, size: int) -> None:
    await node.eval(
        f"persistent_term:put(max_message_size, {size}), application:set_env(rabbit, max_message_size, {size})"
    )


async def test_a_job_that_is_too_large_is_named(narrow: Node, tmp_path: Path) -> None:
    """The broker's limit is below that of a job: what was confirmed is told, and the job that was not taken."""
    url, file = await narrow.add_vhost("submit"), tmp_path / "jobs.jsonl"
    jobs = [{"account_number": str(n), "job_id": f"j-{n}", "metadata": {"a": "x" * 10}} for n in range(5)]
    jobs[2]["metadata"] = {"a": "x" * MOST}
    file.write_text("".join(json.dumps(job) + "\n" for job in jobs))
    async with open_channel(url) as channel:
        await declare(channel, topology_of(broker_settings(url)))
        ended = await command("submit", file, broker__url=url)
        assert ended.status == 2
        assert "job 'j-2' can't be published, make it smaller" in ended.err
        assert f"the broker takes {MOST} (max_message_size)" in ended.err
        assert "continue with --from-line " in ended.err
        told = re.search(r"(\d) of 5 jobs are published", ended.err)
        assert told
        jobs_there = [json.loads(message.body)["job_id"] for message in await take_all(channel, JOBS)]
        # The loss of one channel may have repeated some.
        assert int(told[1]) <= len(set(jobs_there))
        assert "j-2" not in jobs_there


async def test_letters_that_are_too_large_stay_and_the_others_are_replayed(narrow: Node) -> None:
    """However many of them lie ahead; headers that fill a frame are no hindrance."""
    url = await narrow.add_vhost("replay")
    large = [Dead(f"large-{n}", body=b'{"account_number":"1"}' + b" " * MOST) for n in range(40)]
    small = [Dead(f"small-{n}", headers={"filler": "x" * 7_700}) for n in range(40)]
    await take_at_most(narrow, 10 * MOST)
    async with open_channel(url) as channel:
        await publish_dead_letters(channel, url, large + small)
    await take_at_most(narrow, MOST)
    ended = await command("dead", "replay", "--all", broker__url=url)
    assert ended.status == 1
    assert "replayed 40 letters; all others were left in lcm.outcome.dead" in ended.err
    assert "40 letters not replayed: too large for the broker" in ended.err
    assert ended.err.count("stays in the queue: it has") == 40
    async with open_channel(url) as channel:
        assert (await depth(channel, DEAD), await depth(channel, JOBS)) == (40, 40)
