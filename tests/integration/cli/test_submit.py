"""`lcm-worker submit` as a process, with a real broker, a worker process and a simulated LCM."""

from __future__ import annotations

import asyncio
import csv
import io
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiormq.abc import AbstractChannel

from tests.support.channel import depth, open_channel, take, take_all
from tests.support.commands import COMMAND, Worker, command, on_terminal, program, worker
from tests.support.settings import broker_settings
from worker.broker.declare import declare
from worker.broker.topology import JOB_KEY, topology_of
from worker.sandbox.node import Node
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

JOBS = "lcm.outcome.jobs"
REFUSING = Behaviour(rules=(Rule("9|*", "refuse"),))


async def declared(channel: AbstractChannel, url: str) -> None:
    """Declare the topology, as a worker would."""
    await declare(channel, topology_of(broker_settings(url)))


async def jobs_in(channel: AbstractChannel) -> list[dict[str, Any]]:
    """Take all jobs off their queue, each as its body."""
    return [msgspec.json.decode(message.body) for message in await take_all(channel, JOBS)]


@pytest.mark.parametrize(
    "told",
    [
        '{"account_number":"1|1","metadata":{"n":"a"}}\n{"account_number":"2|2","metadata":{"n":"b"}}',
        "\ufeffn;account_number\r\na;1|1\r\n\r\nb;2|2\r\n",
        "1|1\n\n2|2\n",
    ],
    ids=["jsonl", "csv", "plain"],
)
@pytest.mark.timeout_s(120)
async def test_each_format_gets_its_results(vhost: str, told: str) -> None:
    """From each format jobs are published, worked on, and their results collected as JSON lines in a pipe."""
    async with Simulator() as lcm, worker(vhost, lcm.url):
        ended = await command("submit", "--wait", told=told, broker__url=vhost)
    assert ended.status == 0, ended.err
    found = {line["account_number"]: line for line in map(msgspec.json.decode, ended.out.splitlines())}
    assert found.keys() == {"1|1", "2|2"}
    assert len({line["job_id"] for line in found.values()}) == 2
    assert found["1|1"]["metadata"] == ({} if told.startswith("1") else {"n": "a"})
    said = ended.err.splitlines()
    assert said[0] == "lcm-worker: published 2 jobs"
    assert said[1].startswith("lcm-worker: collected 2 results in ")
    assert "2 succeeded; slowest " in said[1]


async def test_what_is_published_is_a_producers_message(vhost: str, tmp_path: Path) -> None:
    """A job is persistent, has its id as message_id, a timestamp, and the route and deadline that were given."""
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"account_number":"1|1","job_id":"j-1"}\n{"account_number":"2|2","route":"own"}\n')
    async with open_channel(vhost) as channel:
        await declared(channel, vhost)
        ended = await command("submit", file, "--route", "emea", "--deadline", "10m", broker__url=vhost)
        first, second = await take_all(channel, JOBS)
    assert (ended.status, ended.out) == (0, "")
    assert ended.err.startswith("lcm-worker: published 2 jobs in ")
    properties = first.header.properties
    assert (properties.message_id, properties.delivery_mode) == ("j-1", 2)
    assert properties.content_type == "application/json"
    assert properties.timestamp is not None
    headers: dict[str, Any] = properties.headers or {}
    assert headers["timestamp_in_ms"] // 1000 == properties.timestamp.timestamp()
    bodies = [msgspec.json.decode(message.body) for message in (first, second)]
    assert [body["route"] for body in bodies] == ["emea", "own"]
    assert all("deadline" in body for body in bodies)
    assert bodies[1]["job_id"] == second.header.properties.message_id


async def test_bad_lines_keep_everything_from_being_published(vhost: str, tmp_path: Path) -> None:
    """One bad line, and nothing is published: mistakes are told by file and line, up to twenty; the status is 2."""
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"account_number":"1|1"}\n' + "no\n" * 25)
    async with open_channel(vhost) as channel:
        await declared(channel, vhost)
        ended = await command("submit", file, broker__url=vhost)
        assert await depth(channel, JOBS) == 0
    said = ended.err.splitlines()
    assert ended.status == 2
    assert said[0].startswith(f"lcm-worker: {file}, line 2: the body must be a JSON object")
    assert said[20:] == [
        "lcm-worker: and 5 more bad lines",
        "lcm-worker: nothing was published; mend these lines, or leave them out with --skip-bad",
    ]


async def test_bad_lines_are_skipped_where_asked_for(vhost: str) -> None:
    """With `--skip-bad` the others are published, what was skipped is counted, and the status is 1."""
    async with open_channel(vhost) as channel:
        await declared(channel, vhost)
        told = 'account_number,job_id\n1|1,a\n,b\n"3|3",c\n4|4,a\n'
        ended = await command("submit", "-", "--skip-bad", told=told, broker__url=vhost)
        jobs = await jobs_in(channel)
    assert ended.status == 1
    assert sorted(job["job_id"] for job in jobs) == ["a", "c"]
    said = ended.err.splitlines()
    assert said[0].startswith(
        "lcm-worker: standard input, line 3: account_number must be a string of 1 to 256"
    )
    assert "line 5: job_id 'a' is that of line 2 of standard input; ids must differ" in said[1]
    assert said[2].startswith("lcm-worker: published 2 jobs, skipped 2 bad lines in ")


@pytest.mark.timeout_s(120)
async def test_results_are_written_as_csv_and_as_json_lines(vhost: str, tmp_path: Path) -> None:
    """`--output` takes the form of its suffix; a failed job is in it, told by code in the summary; the status is 1."""
    file, as_csv, as_json = (tmp_path / name for name in ("a.txt", "r.csv", "r.jsonl"))
    file.write_text("1|1\n9|9\n")
    async with Simulator(REFUSING) as lcm, worker(vhost, lcm.url):
        for output in (as_csv, as_json):
            ended = await command("submit", file, "--wait", "--output", output, broker__url=vhost)
            assert (ended.status, ended.out) == (1, "")
            assert "1 succeeded, 1 failed (lcm_rejected 1); slowest " in ended.err
    rows = list(csv.DictReader(io.StringIO(as_csv.read_bytes().decode(), newline="")))
    failed = [row for row in rows if row["status"] == "failed"]
    assert [(row["account_number"], row["error_code"], row["outcome_id"]) for row in failed] == [
        ("9|9", "lcm_rejected", "")
    ]
    assert len({row["outcome_id"] for row in rows if row["account_number"] == "1|1"}) == 50
    lines = [msgspec.json.decode(line) for line in as_json.read_bytes().splitlines()]
    assert {line["account_number"]: line["status"] for line in lines} == {"1|1": "succeeded", "9|9": "failed"}


@pytest.mark.timeout_s(120)
async def test_a_route_of_its_own_stays_and_its_result_is_found(vhost: str, broker: Node) -> None:
    """A job with a route keeps it and is waited for as well; others' results there are left out; no queue stays."""
    async with Simulator() as lcm, worker(vhost, lcm.url), open_channel(vhost) as channel:
        told = '{"account_number":"1|1","route":"emea"}\n{"account_number":"2|2"}\n'
        ended = await command("submit", "--wait", told=told, broker__url=vhost)
        queues = await broker.queues(vhost.rpartition("/")[2])
        results = await take_all(channel, "lcm.outcome.results")
    assert ended.status == 0, ended.err
    assert len(ended.out.splitlines()) == 2
    keys = sorted(message.routing_key or "" for message in results)
    assert keys[0] == "result.succeeded.emea"
    assert keys[1].startswith("result.succeeded.submit-")
    assert [name for name in queues if ".submit." in name] == []


async def test_results_that_never_come_end_by_the_timeout(vhost: str, broker: Node) -> None:
    """Without a worker `--timeout` ends the wait: the missing are counted, their queue stays, the status is 1."""
    async with open_channel(vhost) as channel:
        await declared(channel, vhost)
        ended = await command("submit", "--wait", "--timeout", "200ms", told="1|1\n2|2", broker__url=vhost)
        queues = await broker.queues(vhost.rpartition("/")[2])
    assert (ended.status, ended.out) == (1, "")
    (queue,) = (name for name in queues if ".submit." in name)
    assert f"2 results missing: what comes later stays in the queue {queue} for 24 h" in ended.err
    assert f"collect it with: lcm-worker submit - --collect {queue} --timeout 10s\n" in ended.err


async def test_who_else_takes_the_results_is_told(vhost: str, broker: Node) -> None:
    """A run that finds a consumer on the queue that it collects from says that results are shared."""
    async with open_channel(vhost) as channel:
        await declared(channel, vhost)
        await command("submit", "--wait", "--timeout", "100ms", told="1|1", broker__url=vhost)
        (queue,) = (name for name in await broker.queues(vhost.rpartition("/")[2]) if ".submit." in name)
        again = ("submit", "-", "--collect", queue, "--timeout", "100ms")
        alone = await command(*again, told="1|1", broker__url=vhost)
        await channel.basic_consume(queue, ignore)
        shared = await command(*again, told="1|1", broker__url=vhost)
    assert f"takes results from {queue}: each result comes to one of you alone" in shared.err
    assert "one of you alone" not in alone.err


async def ignore(_: object) -> None:
    """Take a message, and never acknowledge it."""


async def answer_last(channel: AbstractChannel, working: Worker, job: bytes) -> None:
    """Have a worker answer a job after two others of its id and route: with another account, and with none."""
    told = msgspec.json.decode(job)
    for event, body in (
        ("job.succeeded", msgspec.json.encode(told | {"account_number": "7|7"})),
        ("job.failed", msgspec.json.encode(told | {"account_number": 7})),
        ("job.succeeded", job),
    ):
        before = len(working.of(event))
        await channel.basic_publish(body, exchange=JOBS, routing_key=JOB_KEY)
        await working.logged(event, before + 1)


@pytest.mark.parametrize("later", [False, True], ids=["wait", "collect"])
@pytest.mark.timeout_s(120)
async def test_another_account_under_the_id_of_a_job_is_left_out(
    vhost: str, tmp_path: Path, later: bool
) -> None:
    """Whoever knows a job's id and route gets no other account's result into its place; how many came is told."""
    file, output = tmp_path / "a.jsonl", tmp_path / "r.jsonl"
    file.write_text('{"account_number":"1|1","job_id":"j"}')
    async with open_channel(vhost) as channel, Simulator() as lcm:
        await declared(channel, vhost)
        waiting = ("--wait", "--output", output, "--timeout", "100ms" if later else "90s")
        submitting = asyncio.create_task(command("submit", file, *waiting, broker__url=vhost))
        job = (await take(channel, JOBS)).body
        if later:
            await asyncio.wait({submitting})
        async with worker(vhost, lcm.url) as working:
            await answer_last(channel, working, job)
        ended = await submitting
        if later:
            words = shlex.split(ended.err.partition("collect it with: lcm-worker ")[2].splitlines()[0])
            ended = await command(*words, broker__url=vhost)
    assert ended.status == 0, ended.err
    [line] = output.read_bytes().splitlines()
    assert msgspec.json.decode(line)["account_number"] == "1|1"
    assert "collected 1 result in " in ended.err
    assert ended.err.count("left out 2 results ") == 1


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.timeout_s(120)
async def test_on_a_terminal_there_are_bars_and_tables(vhost: str, tmp_path: Path, columns: int) -> None:
    """On a terminal both bars are shown while it goes on, and then the results and their kinds as tables."""
    file = tmp_path / "a.txt"
    file.write_text("1|1\n9|9\n")
    async with Simulator(REFUSING) as lcm, worker(vhost, lcm.url):
        ended = await on_terminal("submit", str(file), "--wait", columns=columns, broker__url=vhost)
    assert ended.status == 1
    assert "published" in ended.out
    assert "50 outcomes" in ended.out
    assert "failed: lcm_rejected" in ended.out
    assert "…" not in ended.out


async def test_without_the_topology_the_remedy_is_told(vhost: str) -> None:
    """Where the exchange for jobs, or the queue behind it, is missing, it is named with the remedy; status 2."""
    ended = await command("submit", told="1|1", broker__url=vhost)
    assert ended.status == 2
    assert ended.err == (
        "lcm-worker: the exchange lcm.outcome.jobs does not exist; start a worker, which declares it, or declare"
        " it with `lcm-worker topology apply`: nothing was published\n"
    )
    async with open_channel(vhost) as channel:
        await channel.exchange_declare(JOBS, exchange_type="direct", durable=True)
        ended = await command("submit", told="1|1", broker__url=vhost)
        waiting = await command("submit", "--wait", told="1|1", broker__url=vhost)
    assert ended.status == 2
    assert "no queue takes jobs: none is bound to the exchange lcm.outcome.jobs" in ended.err
    assert waiting.status == 2
    assert "the exchange lcm.outcome.results does not exist; start a worker" in waiting.err


async def test_without_a_broker_it_ends_at_once() -> None:
    """Where no broker answers, one line says so and where to look, and the status is 1."""
    async with Simulator() as lcm:
        url = f"amqp://me:s3cret@127.0.0.1:{lcm.port}/"
    ended = await command("submit", told="1|1", broker__url=url)
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "see broker.url, and whether RabbitMQ runs: nothing was published" in ended.err
    assert "s3cret" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--output", "r.csv"], "go with --wait"),
        (["--wait", "--output", "r.json"], "ends in none of .csv, .jsonl, .ndjson"),
        (["--wait", "--csv-safe"], "--csv-safe goes with CSV"),
        (["--csv-safe"], "go with --wait"),
        (["--wait", "--append"], "--append goes with --output"),
        (
            ["--collect", "lcm.outcome.jobs"],
            "is no queue of an earlier run: those are named lcm.outcome.submit.<id>",
        ),
        (["--deadline", "soon"], "must be a duration"),
        (["nothing.csv"], "nothing.csv: can't be read: No such file or directory"),
    ],
)
async def test_wrong_usage_is_told(arguments: list[str], told: str) -> None:
    """Options that make no sense together, and files that aren't there, end with status 2 before anything else."""
    ended = await command("submit", *arguments, told="1|1")
    assert ended.status == 2
    assert told in " ".join(ended.err.split())


async def test_a_terminal_is_not_taken_for_input() -> None:
    """Without a FILE on a terminal it says how to give jobs, rather than waiting for what nobody types."""
    ended = await on_terminal("submit")
    assert ended.status == 2
    assert "name a FILE" in ended.out


@pytest.mark.timeout_s(120)
async def test_a_reader_that_leaves_ends_it(vhost: str, tmp_path: Path) -> None:
    """Where nobody reads the results any more it ends with what was published, without a traceback."""
    file = tmp_path / "a.txt"
    file.write_text("".join(f"{number}|1\n" for number in range(300)))
    async with Simulator() as lcm, worker(vhost, lcm.url):
        ended = await program("sh", "-c", f"{COMMAND} submit --wait {file} | head -n 1", broker__url=vhost)
    assert ended.out.count("\n") == 1
    assert "nobody reads the results any more" in ended.err
    assert "Traceback" not in ended.err


async def test_a_file_for_a_spreadsheet(vhost: str, tmp_path: Path) -> None:
    """With --csv-safe an account that reads as a formula is guarded, also for the run that goes on with the file."""
    file, output = tmp_path / "a.txt", tmp_path / "r.csv"
    file.write_text("+49|1\n=2|1\n")
    safe = ("--wait", "--timeout", "100ms", "--output", output, "--csv-safe")
    async with open_channel(vhost) as channel:
        await declared(channel, vhost)
    early = await command("submit", file, *safe, broker__url=vhost)
    words = shlex.split(early.err.partition("collect it with: lcm-worker ")[2].splitlines()[0])
    assert "--csv-safe" in words
    async with Simulator() as lcm, worker(vhost, lcm.url):
        late = await command(*words, broker__url=vhost)
    assert late.status == 0, late.err
    with output.open(newline="") as rows:
        assert {row["account_number"] for row in csv.DictReader(rows)} == {"'+49|1", "'=2|1"}
    assert output.stat().st_mode & 0o777 == 0o600
