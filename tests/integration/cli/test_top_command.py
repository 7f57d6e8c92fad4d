"""`top` as a process: of a real worker's log, and live on a terminal."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.channel import open_channel
from tests.support.commands import COMMAND, command, ending, environment, worker
from tests.support.html import Document
from tests.support.terminal import STYLE, terminal
from tests.support.waiting import until
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

DEADLINE = 60.0
# Accounts that fail in a row, as they may here, are no outage.
SETTINGS = {
    "retry__attempts": 1,
    "broker__retry_delays": "10m",
    "log__stats_interval": "100ms",
    "outage__failures": 1000,
}


def line(number: int, event: str = "job.succeeded", **fields: Any) -> str:
    about = {"timestamp": f"2026-01-31T12:00:{number:02}Z", "level": "info", "event": event, "worker": "w-1"}
    return msgspec.json.encode(about | fields).decode() + "\n"


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


async def test_the_summary_of_a_real_log(vhost: str) -> None:
    """Piped in, a worker's log has the numbers that its lines have when they are counted one by one."""
    rules = (Rule("refuse|*", "refuse"), Rule("close|*", "close"))
    accounts = [f"{('good', 'good', 'refuse', 'close')[n % 4]}|{n}" for n in range(60)]
    async with Simulator(Behaviour(rules=rules)) as lcm, worker(vhost, lcm.url, **SETTINGS) as started:
        async with open_channel(vhost) as channel:
            for account in accounts:
                body = msgspec.json.encode({"account_number": account})
                await channel.basic_publish(body, routing_key="lcm.outcome.jobs")
        # On a busy machine some are deferred first.
        await started.logged("job.succeeded", 30)
        await started.logged("job.failed", 15)
        await started.logged("worker.stats")
        started.signal()
        assert await started.ended() == 0
    ended = await command("top", "--once", "--json", told=b"Starting ...\n" + started.err)
    assert (ended.status, ended.err) == (0, "")
    found = msgspec.json.decode(ended.out)

    jobs = started.of("job.")
    assert (found["lines"], found["skipped_lines"]) == (len(started.log) + 1, 1)
    assert found["jobs"] == {
        result: len(started.of(f"job.{result}"))
        for result in ("succeeded", "retry_later", "deferred", "failed", "stale")
    }
    assert found["jobs"]["succeeded"] >= 30
    assert found["jobs"]["failed"] >= 15
    assert sum(found["timeline"]["ended"]) == len(jobs) == sum(found["workers"][0]["jobs"].values())
    assert {
        code: failure["failed"] for code, failure in found["failures"].items() if failure["failed"]
    } == Counter(job["error"] for job in started.of("job.failed"))
    assert found["events"] == Counter(entry["event"] for entry in started.log if entry not in jobs)
    closings = Counter(entry["reason"] for entry in started.of("lcm.session_closed"))
    assert found["sessions"]["closed_by"] == closings
    for name, latency in found["latency"].items():
        values = [job[name] for job in jobs if job[name] is not None]
        assert (latency["count"], latency["max"]) == (len(values), max(values, default=0))
        for share in (0.5, 0.9, 0.99) if values else ():
            true = percentile(values, share)
            assert latency[f"p{share * 100:.0f}"] == pytest.approx(true, rel=0.05, abs=0.01)
    assert [(entry["name"], entry["state"]) for entry in found["workers"]] == [("w-1", "stopped")]
    assert found["notices"] or not [
        entry for entry in started.log if entry["level"] != "info" and entry not in jobs
    ]


async def test_several_files_are_several_workers(tmp_path: Path) -> None:
    """Files are summed up together, whatever prefix their lines have, as text where no JSON is asked for."""
    one, two = tmp_path / "1.log", tmp_path / "2.log"
    one.write_text(line(1) + line(2))
    two.write_text("".join(f"worker-2  | {line(n, worker='w-2')}" for n in range(3)))
    ended = await command("top", one, two)
    assert ended.status == 0
    assert "top: 5 lines until 2026-01-31 12:00:02 UTC" in ended.out
    assert "succeeded 5" in ended.out
    assert "w-1" in ended.out
    assert "w-2" in ended.out
    assert "\x1b" not in ended.out


async def test_what_is_no_log_is_said(tmp_path: Path) -> None:
    """Without a line of a worker's in it the status is 1; a file that isn't there is named; nothing at all is fine."""
    ended = await command("top", told="one\ntwo\n")
    assert ended.status == 1
    assert "2 lines, 2 skipped" in ended.out
    assert "log.format" in ended.err
    missing = await command("top", tmp_path / "missing.log")
    assert (missing.status, missing.out) == (1, "")
    assert (
        missing.err == f"lcm-worker: can't read the log: {tmp_path}/missing.log: No such file or directory\n"
    )
    assert (await command("top")).status == 0


@pytest.mark.parametrize(
    ("arguments", "said"), [(("--follow", "--once", "x"), "--once"), (("--follow",), "--follow needs files")]
)
async def test_options_that_contradict_each_other(arguments: tuple[str, ...], said: str) -> None:
    """What can't be done is wrong usage, and says why."""
    ended = await command("top", *arguments)
    assert ended.status == 2
    assert said in ended.err


async def test_the_live_view_follows_a_rotated_file(tmp_path: Path) -> None:
    """Live, a file is followed through a rotation; Ctrl-C leaves the summary of all of it on the normal screen."""
    log = tmp_path / "worker.log"
    with terminal("top", "--follow", log) as shown:
        await shown.shows("top: 0 lines")
        log.write_text(line(1) + line(2))
        await shown.shows("top: 2 lines")
        log.rename(tmp_path / "worker.log.1")
        log.write_text(
            line(3) + line(4, "job.failed", level="warning", error="timeout", reason="\x1b[31mtoo late")
        )
        await shown.shows("top: 4 lines")
        shown.press(b"\x03")
        left = await shown.ended()
    assert "succeeded 3  retry_later 0  deferred 0  failed 1" in left
    assert "\\x1b[31mtoo late" in left


@pytest.mark.parametrize("by", ["end", "key"])
async def test_the_live_view_of_a_pipe_ends(by: str) -> None:
    """A pipe's view ends with its writer, or by q, pressed on the terminal; either leaves the summary."""
    reading, writing = os.pipe()
    with terminal("top", piped=reading) as shown:
        os.close(reading)
        os.write(writing, (line(1) + line(2)).encode())
        await shown.shows("top: 2 lines")
        assert shown.has("q quit")
        if by == "key":
            shown.press(b"w")
            await shown.shows("w newest")
            shown.press(b"q")
        else:
            os.write(writing, line(3).encode())
            os.close(writing)
        left = await shown.ended()
    assert f"succeeded {2 if by == 'key' else 3}" in left
    if by == "key":
        os.close(writing)


async def test_the_live_view_tells_who_is_silent() -> None:
    """A worker that goes on writing is heard; one that says nothing for two stats intervals is silent, others not."""
    reading, writing = os.pipe()
    with terminal("top", piped=reading) as shown:
        os.close(reading)
        for name in ("w-1", "w-2", "w-3"):
            os.write(writing, line(1, "worker.started", worker=name, stats_interval=0.1).encode())
        os.write(writing, line(1, "worker.stopped", worker="w-3").encode())

        def silent() -> bool:
            os.write(writing, line(1, worker="w-2").encode())
            return shown.has("(silent ")

        await until(silent, deadline=DEADLINE)
        told = [row for row in STYLE.sub("", shown.text).splitlines() if "(silent " in row]
        assert [row.split()[0] for row in told][:1] == ["w-1"]
        os.close(writing)
        left = await shown.ended()
    assert "(silent " not in left


async def test_a_signal_ends_the_following_without_a_terminal(tmp_path: Path) -> None:
    """In a pipe, SIGTERM ends `--follow` with the document of all that was written by then."""
    log = tmp_path / "worker.log"
    log.write_text(line(1))
    process = await asyncio.create_subprocess_exec(
        COMMAND, "top", "--follow", "--json", log, stdout=asyncio.subprocess.PIPE, env=environment({})
    )
    async with ending(process):
        opened = Path(f"/proc/{process.pid}/fd")
        await until(lambda: any(_target(fd) == str(log) for fd in opened.iterdir()), deadline=DEADLINE)
        with log.open("a") as file:
            file.write(line(2) + line(3).rstrip())
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            out, _ = await process.communicate()
    assert process.returncode == 0
    assert msgspec.json.decode(out)["jobs"]["succeeded"] == 3


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


async def test_a_page_with_plots(tmp_path: Path) -> None:
    """`--html` writes the page for its owner alone, whatever the umask, beside the summary; never over a file."""
    log, page = tmp_path / "worker.log", tmp_path / "report.html"
    log.write_text(line(1) + line(2, "job.failed", error="lcm_rejected", reason="rejected"))
    umask = os.umask(0)
    try:
        ended = await command("top", "--once", "--html", page, log)
    finally:
        os.umask(umask)
    assert (ended.status, ended.err) == (0, "")
    assert "lcm_rejected" in ended.out
    assert page.stat().st_mode & 0o777 == 0o600
    found = Document(page.read_bytes())
    assert {"lcm_rejected", "rejected"} <= set(found.texts)
    again = await command("top", "--once", "--html", log, page)
    assert again.status == 2
    assert "exists" in again.err
    assert log.read_text().count("\n") == 2
    gone = await command("top", "--html", tmp_path / "no" / "report.html", log)
    assert gone.status == 1
    assert "can't write" in gone.err
    assert "Traceback" not in gone.err


async def test_a_page_is_not_written_by_way_of_a_link(tmp_path: Path) -> None:
    """A link that leads nowhere is refused as well: somebody else may have put it there."""
    log, link = tmp_path / "worker.log", tmp_path / "report.html"
    log.write_text(line(1))
    link.symlink_to(tmp_path / "elsewhere.html")
    ended = await command("top", "--once", "--html", link, log)
    assert ended.status == 1
    assert "can't write" in ended.err
    assert not (tmp_path / "elsewhere.html").exists()
