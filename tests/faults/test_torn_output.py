"""Fault row 22: the disk is full again and again in the middle of `submit --output`, which goes on as it advises."""

from __future__ import annotations

import csv
import re
import shlex
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.faults.rig.report import Report
from tests.faults.rig.workers import WorkerProcess
from tests.support.channel import open_channel
from tests.support.commands import COMMAND, program
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.simulator.server import Simulator

OUTCOMES = 50  # what the simulated LCM tells of an account
KILOBYTES = {"csv": 3.4, "jsonl": 3.0}  # of one result, about


def results_in(output: Path) -> Counter[tuple[str, str]]:
    """Count what is told of each job: its account and how many outcomes; of a whole result, by that number."""
    if output.suffix == ".csv":
        with output.open(newline="") as file:
            return Counter((row["job_id"], row["account_number"]) for row in csv.DictReader(file))
    found: Counter[tuple[str, str]] = Counter()
    for line in output.read_bytes().splitlines():
        result = msgspec.json.decode(line)
        found[result["job_id"], result["account_number"]] += len(result["outcomes"])
    return found


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.timeout_s(600)
async def test_results_that_were_torn_come_again(
    suffix: str, full: bool, vhost: str, faults: Report, tmp_path: Path
) -> None:
    """However often a write is cut off, in the end each result is there once, whole, and the last status is 0."""
    count = 1000 if full else 150
    steps = 12 if full else 4
    file, output = tmp_path / "a.txt", tmp_path / f"r.{suffix}"
    file.write_text("".join(f"{n}|1\n" for n in range(count)))
    asked = ["submit", str(file), "--wait", "--output", str(output), "--timeout", "100ms"]
    with faults.row("22", suffix) as row:
        async with Simulator() as lcm, open_channel(vhost) as channel:
            await declare(channel, topology_of(broker_settings(vhost)))
            # Nobody works yet: all jobs are published, and the results come later.
            published = await program(COMMAND, *asked, broker__url=vhost)
            [told] = re.findall(
                r"^lcm-worker: collect it with: lcm-worker (.*)$", published.err, re.MULTILINE
            )
            collect = shlex.split(told)
            async with WorkerProcess({"broker.url": vhost, "lcm.url": lcm.url}) as worker:
                await until(lambda: len(worker.of("job.succeeded")) == count)
            for step in range(1, steps):
                # Of a file that may not grow any more, the system takes the beginning of what is written.
                blocks = round(2 * KILOBYTES[suffix] * count * step / steps) + row.random.randrange(3)
                limited = f"ulimit -f {blocks}; exec {shlex.join([str(COMMAND), *collect])}"
                ended = await program("sh", "-c", limited, broker__url=vhost)
                assert (ended.status, "can't be written" in ended.err) == (1, True), ended.err
                row.inject("disk full")
            ended = await program(COMMAND, *collect, broker__url=vhost)
            assert ended.status == 0, ended.err
        found = results_in(output)
        row.count({"jobs": count, "results": len(found)})
        assert {account for _, account in found} == {f"{n}|1" for n in range(count)}
        assert set(found.values()) == {OUTCOMES}
        assert len(found) == count
