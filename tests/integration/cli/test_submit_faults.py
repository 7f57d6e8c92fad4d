"""`lcm-worker submit` when it is interrupted, when its connection is cut, and when the broker takes nothing."""

from __future__ import annotations

import asyncio
import csv
import fcntl
import os
import re
import shlex
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tests.faults.rig.amqp_frames import AmqpConversation, confirms_the, is_confirm, is_delivery
from tests.support.channel import depth, open_channel, take, take_all
from tests.support.commands import COMMAND, command, ending, environment, program, worker
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from tests.support.wire.record import TO_WORKER
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.sandbox.node import Node
from worker.simulator.server import Simulator

JOBS = "lcm.outcome.jobs"


@asynccontextmanager
async def submitting(
    *arguments: str | Path, url: str, stdout: int = asyncio.subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Give a `submit` that runs, and end it with the test."""
    process = await asyncio.create_subprocess_exec(
        COMMAND, "submit", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=stdout, stderr=asyncio.subprocess.PIPE,
        env=environment({"broker.url": url}),
    )  # fmt: skip
    async with ending(process):
        yield process


def accounts(folder: Path, count: int) -> Path:
    """Write so many jobs, `j1` in line 1 and so on."""
    file = folder / "jobs.jsonl"
    file.write_text("".join(f'{{"account_number":"{n}|1","job_id":"j{n}"}}\n' for n in range(1, count + 1)))
    return file


async def published(url: str) -> set[str]:
    """Take all jobs off their queue and return their ids."""
    async with open_channel(url) as channel:
        return {msgspec.json.decode(message.body)["job_id"] for message in await take_all(channel, JOBS)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.timeout_s(180)
async def test_interrupted_it_says_where_to_go_on(vhost: str, tmp_path: Path, number: signal.Signals) -> None:
    """Interrupted while a confirm is missing, it tells the lines confirmed; going on from there loses no job."""
    file = accounts(tmp_path, 20)
    async with open_channel(vhost) as channel, Proxy(AmqpConversation, vhost) as proxy:
        await declare(channel, topology_of(broker_settings(vhost)))
        hold = proxy.hold_at(is_confirm(exchange_suffix=".jobs", job_id="j5"), TO_WORKER)
        async with submitting(file, "--rate", "20", url=proxy.url) as process:
            await hold
            process.send_signal(number)
            _, err = await process.communicate()
    assert process.returncode == 130
    said = err.decode()
    counted = re.search(r"interrupted: (\d+) of 20 jobs are published, (\d+) more may be", said)
    assert counted, said
    assert int(counted[1]) < 5
    onward = re.search(r"continue with --from-line (\d+) (\S+)", said)
    assert onward, said
    assert (int(onward[1]), onward[2]) == (int(counted[1]) + 1, str(file))
    again = await command("submit", file, "--from-line", onward[1], broker__url=vhost)
    assert again.status == 0
    assert await published(vhost) == {f"j{n}" for n in range(1, 21)}


@pytest.mark.timeout_s(180)
async def test_a_connection_cut_in_the_middle_loses_no_job(vhost: str, tmp_path: Path) -> None:
    """With its connection reset before a confirm, it connects again and publishes what wasn't confirmed."""
    file = accounts(tmp_path, 600)
    async with open_channel(vhost) as channel, Proxy(AmqpConversation, vhost) as proxy:
        await declare(channel, topology_of(broker_settings(vhost)))
        hold = proxy.hold_at(confirms_the(3, exchange_suffix=".jobs"), TO_WORKER)
        async with submitting(file, url=proxy.url) as process:
            await hold
            hold.reset()
            _, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"publishing: the connection is lost" in err
    assert b"publishing: connected again" in err
    assert b"published 600 jobs" in err
    assert await published(vhost) == {f"j{n}" for n in range(1, 601)}


@pytest.mark.timeout_s(180)
async def test_a_broker_that_stays_away_ends_it(vhost: str, tmp_path: Path) -> None:
    """A broker away for longer than `--patience` ends it with status 1 and with the line to go on from."""
    file = accounts(tmp_path, 600)
    async with open_channel(vhost) as channel, Proxy(AmqpConversation, vhost) as proxy:
        await declare(channel, topology_of(broker_settings(vhost)))
        hold = proxy.hold_at(is_confirm(exchange_suffix=".jobs"), TO_WORKER)
        async with submitting(file, "--patience", "1s", url=proxy.url) as process:
            await hold
            await proxy.refuse()
            hold.reset()
            _, err = await process.communicate()
    assert process.returncode == 1
    assert b"the broker has been away for " in err
    assert b"0 of 600 jobs are published, 256 more may be (not confirmed)" in err
    assert f"continue with --from-line 1 {file}".encode() in err


@pytest.mark.timeout_s(180)
async def test_results_survive_a_connection_cut_while_they_come(vhost: str, tmp_path: Path) -> None:
    """With the collecting connection reset in mid-delivery, each result is written once and none is missing."""
    file, output = accounts(tmp_path, 50), tmp_path / "r.jsonl"
    async with Simulator() as lcm, worker(vhost, lcm.url), Proxy(AmqpConversation, vhost) as proxy:
        hold = proxy.hold_at(is_delivery(), TO_WORKER, nth=5)
        async with submitting(file, "--wait", "--output", output, url=proxy.url) as process:
            await hold
            hold.reset()
            _, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"collecting: the connection is lost" in err
    ids = [msgspec.json.decode(line)["job_id"] for line in output.read_bytes().splitlines()]
    assert sorted(ids) == sorted(f"j{n}" for n in range(1, 51))


@pytest.mark.timeout_s(180)
async def test_interrupted_while_it_collects_keeps_what_came(
    vhost: str, tmp_path: Path, broker: Node
) -> None:
    """Interrupted while results are missing, those that came are on disk and the queue for the others stays."""
    file, output = accounts(tmp_path, 3), tmp_path / "r.csv"
    async with Simulator() as lcm, worker(vhost, lcm.url), Proxy(AmqpConversation, vhost) as proxy:
        hold = proxy.hold_at(is_delivery(job_id="j3"), TO_WORKER)
        async with submitting(file, "--wait", "--output", output, "--rate", "5", url=proxy.url) as process:
            await hold
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        queues = await broker.queues(vhost.rpartition("/")[2])
    assert process.returncode == 130
    assert b"interrupted: 3 of 3 jobs are published\n" in err
    missing = re.search(rb"(\d) results? missing: what comes later stays in the queue (\S+)", err)
    assert missing, err
    assert missing[2].decode() in queues
    found = {line.split(",")[0] for line in output.read_text().splitlines()[1:]}
    assert len(found) == 3 - int(missing[1])


def onward(err: str) -> list[str]:
    """Return the arguments of the command by which a run says that it is gone on with."""
    [told] = re.findall(r"^lcm-worker: collect it with: lcm-worker (.*)$", err, re.MULTILINE)
    return shlex.split(told)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.timeout_s(240)
async def test_what_came_later_is_collected(vhost: str, tmp_path: Path, broker: Node, suffix: str) -> None:
    """The command it told takes what came since off the queue, into the same file: each result is there once."""
    file, output = tmp_path / "my accounts.txt", tmp_path / f"r.{suffix}"
    file.write_text("".join(f"{n}|1\n" for n in range(1, 41)))
    async with Simulator() as lcm, worker(vhost, lcm.url), Proxy(AmqpConversation, vhost) as proxy:
        hold = proxy.hold_at(is_delivery(), TO_WORKER, nth=5)
        async with submitting(file, "--wait", "--output", output, url=proxy.url) as process:
            await hold
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        before = len(output.read_bytes().splitlines())
        again = onward(err.decode())
        ended = await command(*again, broker__url=vhost)
        assert again[:2] == ["submit", str(file)]
        assert ended.status == 0, ended.err
        assert "published" not in ended.err
        once_more = await command(*again, broker__url=vhost)
        queues = await broker.queues(vhost.rpartition("/")[2])
    found = Counter(result_jobs(output))
    assert before < len(output.read_bytes().splitlines())
    assert len(found) == 40
    assert set(found.values()) == {50 if suffix == "csv" else 1}
    assert [name for name in queues if ".submit." in name] == []
    assert once_more.status == 2
    assert "does not exist: all its results were collected" in once_more.err


def result_jobs(output: Path) -> list[str]:
    """Return the job of each row or line of a file of results."""
    if output.suffix == ".csv":
        with output.open(newline="") as file:
            return [row["job_id"] for row in csv.DictReader(file)]
    return [msgspec.json.decode(line)["job_id"] for line in output.read_bytes().splitlines()]


@pytest.mark.parametrize(("suffix", "kilobytes"), [("csv", 700), ("jsonl", 500)])
@pytest.mark.timeout_s(240)
async def test_a_torn_result_comes_again(vhost: str, tmp_path: Path, suffix: str, kilobytes: int) -> None:
    """Where a write was cut off by a full disk, the command it told gets the rest: each result is there once, whole."""
    file, output = tmp_path / "a.txt", tmp_path / f"r.{suffix}"
    file.write_text("".join(f"{n}|1\n" for n in range(300)))
    # Of a file that may not grow any more, the system takes the beginning of what is written, as on a full disk.
    limited = f"ulimit -f {2 * kilobytes}; exec {COMMAND} submit {file} --wait --output {output}"
    async with Simulator() as lcm, worker(vhost, lcm.url) as working:
        first = await program("sh", "-c", limited, broker__url=vhost)
        torn = output.read_bytes()
        await working.logged("job.succeeded", 300)
        ended = await command(*onward(first.err), broker__url=vhost)
    assert (first.status, "the results can't be written: File too large" in first.err) == (1, True)
    assert (len(torn), torn[-1:] == b"\n") == (1024 * kilobytes, False)
    assert (ended.status, "r." + suffix + " ended in the middle of a result" in ended.err) == (0, True)
    assert Counter(result_jobs(output)).most_common()[-1][1] == (50 if suffix == "csv" else 1)
    assert len(Counter(result_jobs(output))) == 300


@pytest.mark.timeout_s(120)
async def test_a_file_that_ends_in_anothers_result_is_refused(vhost: str, tmp_path: Path) -> None:
    """A part of a result that this run does not collect is not cut off: neither appended to nor collected into."""
    file, output = tmp_path / "a.txt", tmp_path / "r.csv"
    file.write_text("1|1\n")
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
    waiting = ("--wait", "--timeout", "100ms", "--output", output)
    first = await command("submit", file, *waiting, broker__url=vhost)
    with output.open("a") as rows:
        rows.write("another,1|1,succ")
    held = output.read_bytes()
    appended = await command("submit", file, *waiting, "--append", broker__url=vhost)
    collected = await command(*onward(first.err), "--timeout", "100ms", broker__url=vhost)
    assert (appended.status, collected.status) == (2, 2)
    assert "a part of the result of job 'another': complete it first" in " ".join(appended.err.split())
    assert "a part of the result of job 'another', which is none of these" in collected.err
    assert output.read_bytes() == held


@pytest.mark.timeout_s(240)
async def test_other_files_do_not_get_the_results(vhost: str, tmp_path: Path) -> None:
    """Named other files than then, it takes nothing off the queue, and says so; the right ones get everything."""
    file, other, output = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "r.jsonl"
    file.write_text("1|1\n2|2\n3|3\n")
    other.write_text("1|1\n")
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
    first = await command(
        "submit", file, "--wait", "--timeout", "100ms", "--output", output, broker__url=vhost
    )
    again = onward(first.err)
    assert (first.status, "3 results missing" in first.err) == (1, True)
    async with Simulator() as lcm, worker(vhost, lcm.url) as running:
        await running.logged("job.succeeded", 3)
        wrong = await command(
            *[str(other) if word == str(file) else word for word in again], broker__url=vhost
        )
        right = await command(*again, broker__url=vhost)
    assert wrong.status == 2
    assert "name the same files" in wrong.err
    assert (right.status, len(result_jobs(output))) == (0, 3), right.err


@pytest.mark.timeout_s(180)
async def test_a_blocked_broker_is_waited_for(vhost: str, tmp_path: Path, broker: Node) -> None:
    """While the broker has an alarm it waits and says so, and each job is published once when that is over."""
    file = accounts(tmp_path, 20)
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
        await broker.alarm(True)
        try:
            async with submitting(file, url=vhost) as process:
                assert process.stderr is not None
                first = await process.stderr.readline()
                await broker.alarm(False)
                rest = await process.stderr.read()
                assert await process.wait() == 0
        finally:
            await broker.alarm(False)
        await until(lambda: depth(channel, JOBS))
        assert await depth(channel, JOBS) == 20
    assert b"has a memory or disk alarm and takes no messages; waiting" in first
    assert b"published 20 jobs" in rest


async def as_narrow_user(broker: Node, url: str, *, write: str) -> str:
    """Return the URL of a user of this vhost who may write only to what the pattern names."""
    vhost = url.rpartition("/")[2]
    await broker.ctl("add_user", f"narrow-{vhost}", "secret")
    await broker.ctl("set_permissions", "-p", vhost, f"narrow-{vhost}", ".*", write, ".*")
    return url.replace("guest:guest", f"narrow-{vhost}:secret")


async def test_who_may_not_publish_is_told_once(broker: Node, vhost: str, tmp_path: Path) -> None:
    """A missing right is wrong usage, said at once: no connection is made again and again for it."""
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
    narrow = await as_narrow_user(broker, vhost, write="^$")
    ended = await command("submit", accounts(tmp_path, 3), broker__url=narrow)
    assert ended.status == 2
    assert "this user may not publish to exchange 'lcm.outcome.jobs'" in ended.err
    assert ended.err.count("connecting again") <= 1
    assert await published(vhost) == set()


async def test_who_may_not_have_a_queue_is_told_what_helps(broker: Node, vhost: str, tmp_path: Path) -> None:
    """`--wait` needs a queue of its own: who may not make one is told the rights it takes, and nothing is published."""
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
    narrow = await as_narrow_user(broker, vhost, write=r"^lcm\.outcome\.jobs$")
    ended = await command("submit", accounts(tmp_path, 3), "--wait", broker__url=narrow)
    assert ended.status == 2
    assert "it has to configure, write and read it, and to read the results exchange" in ended.err
    assert "passive" not in ended.err
    assert await published(vhost) == set()


@pytest.mark.timeout_s(120)
async def test_a_worker_waits_for_its_right_to_publish(broker: Node, vhost: str) -> None:
    """A worker whose user may not publish results parks them, says so, and sends them when the right is given."""
    async with open_channel(vhost) as channel:
        await declare(channel, topology_of(broker_settings(vhost)))
        narrow = await as_narrow_user(broker, vhost, write=r"^lcm\.outcome\.(dead|retry.*|jobs|undelivered)$")
        async with Simulator() as lcm, worker(narrow, lcm.url, broker__declare="passive") as running:
            await channel.basic_publish(b'{"account_number": "1|1"}', routing_key=JOBS, mandatory=True)
            [refused] = await running.logged("result.undelivered")
            assert "ACCESS_REFUSED" in refused["reason"]
            await running.logged("job.succeeded")
            vhost_name = vhost.rpartition("/")[2]
            await broker.ctl("set_permissions", "-p", vhost_name, f"narrow-{vhost_name}", ".*", ".*", ".*")
            assert b'"1|1"' in (await take(channel, "lcm.outcome.results")).body


async def test_the_queue_keeps_results_until_they_are_written(
    broker: Node, vhost: str, tmp_path: Path
) -> None:
    """A run is over once the last result is written, not once it has come: else a slow disk would lose it."""
    reader, filled = os.pipe()
    os.write(filled, b"\n" * fcntl.fcntl(filled, fcntl.F_SETPIPE_SZ, 4096))
    job = accounts(tmp_path, 1)
    async with (
        Simulator() as lcm,
        worker(vhost, lcm.url),
        submitting(job, "--wait", url=vhost, stdout=filled) as process,
    ):
        os.close(filled)

        async def it_has_come() -> bool:
            queues = await broker.queues(vhost.rpartition("/")[2])
            return [counts["unacked"] for name, counts in queues.items() if ".submit." in name] == [1]

        await until(it_has_come)
        assert process.returncode is None
        with os.fdopen(reader, "rb") as file:
            read = await asyncio.to_thread(file.read)
        assert await process.wait() == 0
    assert msgspec.json.decode(read)["job_id"] == "j1"
