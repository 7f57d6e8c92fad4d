"""Workers as processes of their own, against a real broker and a simulated LCM in this process."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import aiormq
import msgspec
import pytest

from tests.support.channel import depth, open_channel, take, take_all
from tests.support.commands import COMMAND, Ended, Worker, ending, environment, program, worker
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

JOBS, RESULTS, DEAD = (f"lcm.outcome.{name}" for name in ("jobs", "results", "dead"))
RETRIES = [f"lcm.outcome.retry.{delay}" for delay in ("5s", "30s", "2m", "10m")]
FIELDS = {
    "job_id", "account", "attempts", "source", "outcomes", "error", "session", "exchange", "queue_ms",
    "lcm_ms", "publish_ms", "duration_ms", "redelivered", "trace_id",
}  # fmt: skip


async def publish(channel: aiormq.abc.AbstractChannel, *jobs: dict[str, Any] | bytes) -> None:
    """Publish jobs by the queue's name, persistent and confirmed."""
    persistent = aiormq.spec.Basic.Properties(delivery_mode=2)
    bodies = [job if isinstance(job, bytes) else msgspec.json.encode(job) for job in jobs]
    await asyncio.gather(
        *(
            channel.basic_publish(body, routing_key=JOBS, properties=persistent, mandatory=True)
            for body in bodies
        )
    )


def numbered(count: int) -> list[dict[str, str]]:
    """Make jobs for as many accounts."""
    return [{"job_id": f"job-{n}", "account_number": f"{n}|1|2|0|0|44|{n}"} for n in range(1, count + 1)]


async def results(channel: aiormq.abc.AbstractChannel, count: int) -> list[dict[str, Any]]:
    """Wait until the results queue holds so many, and take them."""
    await until(lambda: _holds(channel, RESULTS, count), deadline=60)
    return [msgspec.json.decode(message.body) for message in await take_all(channel, RESULTS)]


async def _holds(channel: aiormq.abc.AbstractChannel, queue: str, count: int) -> bool:
    return await depth(channel, queue) >= count


async def foreign(tool: str, *arguments: str) -> Ended:
    """Run a program of rabbitmq-c, a client that shares nothing with this worker's."""
    if shutil.which(tool) is None:
        pytest.fail(
            f"{tool} is missing: run `sudo apt-get install amqp-tools`, then try again", pytrace=False
        )
    return await program(tool, *arguments)


async def test_a_foreign_producer_and_a_foreign_consumer_are_served(vhost: str) -> None:
    """A job published by amqp-publish becomes a result that amqp-consume receives; stdout stays empty."""
    async with Simulator() as lcm, worker(vhost, lcm.url) as started:
        body = '{"job_id": "job-1", "account_number": "18|1|2|0|0|44|274", "metadata": {"campaign": 7}}'
        published = await foreign(
            "amqp-publish",
            f"--url={vhost}",
            "--exchange=",
            f"--routing-key={JOBS}",
            "--persistent",
            f"--body={body}",
        )
        assert (published.status, published.err) == (0, "")
        consumed = await foreign("amqp-consume", f"--url={vhost}", f"--queue={RESULTS}", "--count=1", "cat")
        result = msgspec.json.decode(consumed.out)
        assert (result["job_id"], result["status"], len(result["outcomes"])) == ("job-1", "succeeded", 50)
        assert (result["worker"], result["metadata"]) == ("w-1", {"campaign": 7})
        started.signal()
        assert await started.ended() == 0
        assert started.out == b""


@pytest.mark.timeout_s(120)
async def test_three_workers_share_two_thousand_jobs(vhost: str) -> None:
    """2,000 jobs through 3 workers give 2,000 results, none twice, each with its own account's list."""
    jobs = numbered(2000)
    async with (
        Simulator() as lcm,
        open_channel(vhost) as channel,
        worker(vhost, lcm.url, worker__name="w-1"),
        worker(vhost, lcm.url, worker__name="w-2"),
        worker(vhost, lcm.url, worker__name="w-3"),
    ):
        await publish(channel, *jobs)
        found = await results(channel, 2000)
        await until(lambda: _is_empty(channel, JOBS))
        assert await depth(channel, RESULTS) == 0
        assert [await depth(channel, queue) for queue in (DEAD, *RETRIES)] == [0] * 5
    assert sorted(result["job_id"] for result in found) == sorted(job["job_id"] for job in jobs)
    for result in found:
        last = result["outcomes"][-1]
        assert (last["id"], last["description"]) == ("1000", f"Account {result['account_number']}")
    assert {result["account_number"] for result in found} == {job["account_number"] for job in jobs}
    assert {result["worker"] for result in found} == {"w-1", "w-2", "w-3"}
    assert lcm.max_in_flight == 1


async def _is_empty(channel: aiormq.abc.AbstractChannel, queue: str) -> bool:
    return await depth(channel, queue) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_finishes_what_is_in_hand(number: signal.Signals, vhost: str) -> None:
    """On SIGTERM or SIGHUP a worker finishes its jobs and exits with 0; the rest is another's."""
    async with Simulator(Behaviour(jitter=0.02)) as lcm, open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
        await publish(channel, *numbered(600))
        async with worker(vhost, lcm.url) as first:
            await first.logged("job.succeeded", 100)
            first.signal(number)
            assert await first.ended() == 0
        assert [line["event"] for line in first.log if line["event"].startswith("worker.")] == [
            "worker.started", "worker.ready", "worker.draining", "worker.stopped",
        ]  # fmt: skip
        # What arrived while the broker heard of the end was deferred, and comes back to another worker.
        done = {line["job_id"] for line in first.of("job.succeeded")}
        left = 600 - len(done)
        assert left > 0, "it was over before SIGTERM came"
        async with worker(vhost, lcm.url) as second:
            lines = await second.logged("job.succeeded", left)
            found = await results(channel, 600)
    assert Counter(result["job_id"] for result in found) == Counter(job["job_id"] for job in numbered(600))
    assert not done & {line["job_id"] for line in lines}
    assert len(lcm.record) == 600


async def test_a_second_sigterm_ends_it_at_once_and_loses_nothing(vhost: str) -> None:
    """While LCM is silent a second SIGTERM ends a worker at once, and its jobs come back to another one."""
    lcm = Simulator(Behaviour(faults={"silence": 1}))
    patient = {"worker__shutdown_grace": "30m", "lcm__reply_timeout": "10m", "retry__budget": "20m"}
    async with lcm, open_channel(vhost) as channel:
        async with worker(vhost, lcm.url, **patient) as first:
            await publish(channel, *numbered(3))
            await until(lambda: len(lcm.record) == 3)
            first.signal()
            await first.logged("worker.draining")
            first.signal()
            assert await first.ended() == 0
        assert first.log[-1]["event"] == "worker.stopped"
        assert first.of("worker.gave_up")[0]["deliveries"] == 3
        assert first.of("job.") == []
        lcm.behaviour = Behaviour()
        async with worker(vhost, lcm.url) as second:
            assert all(line["redelivered"] for line in await second.logged("job.succeeded", 3))
            assert len(await results(channel, 3)) == 3


async def test_a_worker_may_start_before_lcm(vhost: str) -> None:
    """Started while LCM is away a worker says so, waits, and does its jobs when LCM comes."""
    lcm = Simulator()
    async with lcm:
        pass  # it has a port now, where nobody listens
    absent = Worker(
        broker__url=vhost, lcm__url=lcm.url, outage__probe_delay="50ms", broker__retry_delays="1s"
    )
    async with open_channel(vhost) as channel, absent as started:
        await started.logged("lcm.outage_started")
        await started.logged("broker.connected", 2)
        assert not started.of("worker.ready")
        await publish(channel, *numbered(1))
        async with lcm:
            assert (await started.logged("job.succeeded"))[0]["attempts"] == 1
        assert started.of("lcm.outage_ended")
        assert len(await results(channel, 1)) == 1


async def test_a_secret_file_that_hangs_does_not_hold_up_the_end(vhost: str, tmp_path: Path) -> None:
    """A worker whose password file has become one whose reading never ends says so, and ends with SIGTERM."""
    file = tmp_path / "token"
    file.write_text("s3cret-token")
    settings = {"lcm__username": "me", "lcm__password_file": file, "outage__probe_max_delay": "1s"}
    async with (
        Simulator(Behaviour(credentials="me:s3cret-token")) as lcm,
        Worker(broker__url=vhost, lcm__url=lcm.url, **settings) as started,
    ):
        await started.logged("worker.ready")
        file.unlink()
        os.mkfifo(file)
        await lcm.close_sessions()
        [failed, *_] = await started.logged("lcm.session_failed")
        assert "the files of [lcm] can't be read within 5 s" in failed["error"]
        started.signal()
        assert await started.ended() == 0


async def test_a_worker_may_start_before_the_broker(vhost: str) -> None:
    """Started while the broker is away a worker says so, and is ready when the broker comes."""
    async with Simulator() as lcm, Proxy(RawConversation, vhost) as proxy:
        await proxy.refuse()
        async with Worker(broker__url=proxy.url, lcm__url=lcm.url) as started:
            assert "Connect" in (await started.logged("broker.unreachable"))[0]["error"]
            await proxy.listen()
            await started.logged("worker.ready")
            assert {line["role"] for line in started.of("broker.connected")} == {"consume", "publish"}


async def test_sessions_without_a_fence_are_told_once_at_the_start(vhost: str) -> None:
    """Where a late reply can be taken for the next account's, the worker runs all the same, and says so."""
    async with (
        Simulator() as lcm,
        Worker(broker__url=vhost, lcm__url=lcm.url, lcm__ping_interval=0) as started,
    ):
        await started.logged("worker.ready")
        (told,) = started.of("settings.unfenced")
    assert (told["level"], told["setting"]) == ("warning", "lcm.ping_interval")
    assert "max_exchanges = 1" in told["remedy"]


async def test_a_queue_that_stands_otherwise_is_exit_status_2(vhost: str) -> None:
    """The pitfall of redeclaring: one clear line names the queue and the argument, and the worker ends."""
    async with open_channel(vhost) as channel:
        arguments: dict[str, Any] = {
            "x-queue-type": "quorum",
            "x-delivery-limit": 7,
            "x-overflow": "reject-publish",
        }
        await channel.queue_declare(DEAD, durable=True, arguments=arguments)
    async with Simulator() as lcm, Worker(broker__url=vhost, lcm__url=lcm.url) as started:
        assert await started.ended() == 2
    assert [line["event"] for line in started.log[-2:]] == ["worker.stopped", "worker.failed"]
    said = started.log[-1]["error"]
    assert said.startswith(f"queue '{DEAD}' stands on the broker with other arguments")
    assert "x-delivery-limit" in said
    assert started.others == []


async def test_every_delivery_has_one_line_with_every_field(vhost: str) -> None:
    """Each delivery, whatever became of it, has exactly one job line, with all fields of the contract."""
    rules = (Rule("9|*", "refuse"), Rule("7|*", "cut-off"))
    jobs: list[dict[str, Any] | bytes] = [
        {"job_id": "good", "account_number": "18|1"},
        {"job_id": "refused", "account_number": "9|1"},
        {"job_id": "unreadable", "account_number": "7|1"},
        {"job_id": "late", "account_number": "18|2", "deadline": "2026-01-01T00:00:00Z"},
        {"job_id": "invalid"},
        b"no JSON",
    ]
    async with (
        Simulator(Behaviour(rules=rules)) as lcm,
        open_channel(vhost) as channel,
        worker(vhost, lcm.url, broker__retry_delays="1s", retry__attempts=1) as started,
    ):
        await publish(channel, *jobs)
        found = await results(channel, 6)
        started.signal()
        assert await started.ended() == 0
    lines = started.of("job.")
    assert all(line.keys() >= FIELDS for line in lines)
    derived = next(
        result["job_id"] for result in found if "JSON" in result.get("error", {}).get("message", "")
    )
    assert Counter(
        (line["job_id"], line["event"], line["level"], line["error"]) for line in lines
    ) == Counter(
        [
            ("good", "job.succeeded", "info", None),
            ("refused", "job.failed", "warning", "lcm_rejected"),
            ("unreadable", "job.retry_later", "info", "malformed_reply"),
            ("unreadable", "job.failed", "warning", "malformed_reply"),
            ("late", "job.failed", "warning", "expired"),
            ("invalid", "job.failed", "warning", "invalid_job"),
            (derived, "job.failed", "warning", "invalid_job"),
        ]
    )
    (good,) = started.of("job.succeeded")
    assert (good["account"], good["attempts"], good["source"], good["outcomes"]) == ("18|1", 1, "lcm", 50)


async def test_a_log_reader_that_leaves_takes_nobody_along(vhost: str) -> None:
    """With nobody reading its log any more a worker goes on, and still ends with status 0."""
    async with Simulator() as lcm, open_channel(vhost) as channel, worker(vhost, lcm.url) as started:
        await started.close_log()
        await publish(channel, *numbered(2))
        assert (await take(channel, RESULTS)).body
        assert (await take(channel, RESULTS)).body
        started.signal()
        assert await started.ended() == 0


async def test_a_worker_without_standard_error_works(vhost: str) -> None:
    """Started by `2>&-`, with nowhere to log to, a worker does its jobs and ends with status 0."""
    async with Simulator() as lcm, open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
        await publish(channel, *numbered(1))
        settings = environment({"broker.url": vhost, "lcm.url": lcm.url})
        process = await asyncio.create_subprocess_exec("sh", "-c", f"exec {COMMAND} run 2>&-", env=settings)
        assert (await take(channel, RESULTS)).body
        process.terminate()
        assert await process.wait() == 0


async def test_a_log_that_nobody_reads_stops_nothing(vhost: str) -> None:
    """With standard error a full pipe that nobody reads, every job ends and SIGTERM is heard."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    async with Simulator() as lcm, open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
        await publish(channel, *numbered(200))
        settings = environment({"broker.url": vhost, "lcm.url": lcm.url})
        process = await asyncio.create_subprocess_exec(COMMAND, "run", stderr=writing, env=settings)
        os.close(writing)
        try:
            async with ending(process):
                assert len(await results(channel, 200)) == 200
                process.terminate()
                assert await process.wait() == 0
        finally:
            os.close(reading)
