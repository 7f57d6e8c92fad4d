"""What the broker will never take, headers over a frame or a body over its limit, ends one job and no other."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel, DeliveredMessage
from websockets.asyncio.server import ServerConnection

from tests.support.broker import running_broker
from tests.support.channel import depth, open_channel, take_all
from tests.support.lcm import peer, reply
from tests.support.log import RecordingLog
from tests.support.waiting import running, until
from worker.app import App
from worker.sandbox.node import Node
from worker.settings import load

JOBS, RESULTS, DEAD = (f"lcm.outcome.{name}" for name in ("jobs", "results", "dead"))
MOST_BODY = 60_000


@pytest.fixture(scope="module")
def narrow() -> Iterator[Node]:
    """Give a broker with small frames, which takes no large messages."""
    with running_broker(Node(config={"frame_max": 8192, "max_message_size": MOST_BODY})) as node:
        yield node


async def answer(connection: ServerConnection) -> None:
    """Answer every request; for accounts that begin with `big`, by a list whose result is over MOST_BODY."""
    async for request in connection:
        account = json.loads(request)["data"]["AccountNumber"]
        count = 2000 if account.startswith("big") else 1
        await connection.send(
            reply([{"OutComeID": str(n), "Description": f"Account {account}"} for n in range(count)]).decode()
        )


@asynccontextmanager
async def working(url: str) -> AsyncIterator[tuple[AbstractChannel, RecordingLog]]:
    """Give a channel and the log of a worker at this broker."""
    log = RecordingLog()
    async with peer(answer) as lcm, open_channel(url) as channel:
        app = App(load(None, {"LCM_WORKER_BROKER__URL": url, "LCM_WORKER_LCM__URL": lcm}), log)
        async with running(app.run()) as work:
            await until(lambda: "worker.ready" in log.events)
            yield channel, log
            app.stop()
            await work


async def publish(channel: AbstractChannel, *jobs: dict[str, Any], **headers: Any) -> None:
    properties = spec.Basic.Properties(delivery_mode=2, headers=headers)
    await asyncio.gather(
        *(
            channel.basic_publish(json.dumps(job).encode(), routing_key=JOBS, properties=properties)
            for job in jobs
        )
    )


async def settled(channel: AbstractChannel, log: RecordingLog, jobs: int) -> list[DeliveredMessage]:
    """Wait for the ends of so many jobs and return what the results queue holds then."""

    def ended() -> bool:
        return sum(event in {"job.succeeded", "job.failed"} for event in log.events) >= jobs

    await until(ended)
    return await take_all(channel, RESULTS)


def undisturbed(log: RecordingLog) -> None:
    """No message cost a connection, or was published twice."""
    assert not {"broker.lost", "publish.lost", "publish.refused"} & set(log.events)


async def test_a_bad_job_whose_headers_fill_a_frame_is_dead_lettered(vhost: str) -> None:
    """A copy with headers of its own would not fit: the foreign header is left out, and the letter names it."""
    async with working(vhost) as (channel, log):
        await publish(channel, {"account_number": 5}, filler="x" * 130_900)
        (result,) = await settled(channel, log, 1)
        assert json.loads(result.body)["error"]["code"] == "invalid_job"
        (letter,) = await take_all(channel, DEAD)
        headers = letter.header.properties.headers or {}
        assert headers["outcome-headers-dropped"] == "filler"
        assert headers["outcome-error-code"] == "invalid_job"
        assert "filler" not in headers
        undisturbed(log)


async def test_a_trace_that_fills_a_frame_is_left_out_of_the_result(vhost: str) -> None:
    """A good job with an enormous `tracestate` has its result, which names what it lost and keeps the rest."""
    async with working(vhost) as (channel, log):
        await publish(
            channel, {"account_number": "1", "job_id": "j"}, traceparent="00-1", tracestate="x" * 130_950
        )
        (result,) = await settled(channel, log, 1)
        assert json.loads(result.body)["status"] == "succeeded"
        headers = result.header.properties.headers or {}
        assert headers["traceparent"] == "00-1"
        assert headers["outcome-headers-dropped"] == "tracestate"
        assert "tracestate" not in headers
        undisturbed(log)


async def test_small_frames_hold_a_letter_with_a_long_reason(narrow: Node) -> None:
    """With `frame_max` 8,192, a job with 7,900 bytes of headers and a long mistake is dead-lettered all the same."""
    url = await narrow.add_vhost("small-frames")
    async with working(url) as (channel, log):
        await publish(
            channel,
            {"account_number": 5, "route": "?" * 70, "job_id": [1] * 500},
            a="x" * 4_000,
            b="y" * 3_900,
        )
        (result,) = await settled(channel, log, 1)
        assert json.loads(result.body)["error"]["code"] == "invalid_job"
        (letter,) = await take_all(channel, DEAD)
        assert (letter.header.properties.headers or {})["outcome-headers-dropped"] == "a"
        undisturbed(log)


async def test_results_over_the_brokers_limit_fail_their_jobs_alone(narrow: Node) -> None:
    """Many jobs whose results are too large cost one channel in all; each fails, and the others' results come."""
    url = await narrow.add_vhost("large-results")
    async with working(url) as (channel, log):
        big = [{"account_number": f"big {n}", "job_id": f"big {n}"} for n in range(40)]
        small = [{"account_number": f"small {n}", "job_id": f"small {n}"} for n in range(40)]
        await publish(channel, *(job for pair in zip(big, small, strict=True) for job in pair))
        found = [json.loads(message.body) for message in await settled(channel, log, 80)]
        ends = {result["job_id"]: result.get("error", {}).get("code") for result in found}
        assert ends == {f"big {n}": "result_too_large" for n in range(40)} | {
            f"small {n}": None for n in range(40)
        }
        assert max(Counter(result["job_id"] for result in found).values()) <= 2
        assert await depth(channel, DEAD) == 40
        assert "broker.lost" not in log.events
        more = [{"account_number": f"big {n}", "job_id": f"more {n}"} for n in range(40)]
        await publish(channel, *more)
        await settled(channel, log, 120)
        assert "broker.lost" not in log.events
