"""Commands whose standard streams are closed, full, or left by their reader, as processes of a shell."""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.channel import depth, open_channel
from tests.support.commands import COMMAND, Ended, command, ending, environment, program, worker
from tests.support.dead_letters import DEAD, JOBS, Dead, publish_dead_letters
from tests.support.waiting import until
from worker import __version__
from worker.simulator.server import Simulator

NO_SPACE = "standard output can't be written: No space left on device"
LOG = '{"timestamp":"2026-01-31T12:00:00.000Z","level":"info","event":"worker.started","worker":"w"}\n'

LOCAL = (
    "--help", "--version", "config show", "config template", "topology show", "topology export", "asyncapi",
    "simulate --list", "top --once LOG", "top --json LOG",
)  # fmt: skip
"""Commands that print something and need nobody; LOG is a log."""

REMOTE = (
    "check", "lookup '18|1'", "submit --wait JOBS", "topology apply", "dead list", "dead show",
    "dead replay --all --dry-run", "demo",
)  # fmt: skip
"""Commands that talk to a broker or LCM."""


async def shell(line: str, folder: Path, **settings: str) -> Ended:
    """Run a command line whose first word is `lcm-worker`, with the files LOG and JOBS."""
    (folder / "LOG").write_text(LOG)
    (folder / "JOBS").write_text("18|1\n18|2\n")
    words = line.replace("LOG", str(folder / "LOG")).replace("JOBS", str(folder / "JOBS"))
    return await program("sh", "-c", words.replace("lcm-worker", shlex.quote(str(COMMAND)), 1), **settings)


async def shells(lines: Iterable[str], redirection: str, folder: Path, **settings: str) -> dict[str, Ended]:
    """Run commands, two at a time, all with this redirection; return how each ended, in their order."""
    two = asyncio.Semaphore(2)

    async def run(line: str) -> Ended:
        async with two:
            return await shell(f"lcm-worker {line} {redirection}", folder, **settings)

    chosen = list(lines)
    return dict(zip(chosen, await asyncio.gather(*map(run, chosen)), strict=True))


@asynccontextmanager
async def at_work(vhost: str) -> AsyncIterator[dict[str, str]]:
    """Give the settings of a broker with dead letters, of an LCM, and of a worker between them."""
    async with Simulator() as lcm, worker(vhost, lcm.url), open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead("d-1"), Dead("d-2")])
        yield {"broker__url": vhost, "lcm__url": lcm.url}


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
async def test_closed_streams_are_nowhere(vhost: str, tmp_path: Path, closed: str) -> None:
    """Started with closed streams, a command does its work; no socket of it is taken for a stream."""
    async with at_work(vhost) as settings:
        checked, listed = await asyncio.gather(
            shell(f"lcm-worker check {closed}", tmp_path, **settings),
            shell(f"lcm-worker dead list {closed}", tmp_path, **settings),
        )
    assert (checked.status, checked.err) == (0, "")
    assert (listed.status, listed.err) == (0, "")
    if ">&-" not in closed.split():
        assert "opens a session" in checked.out
        assert listed.out.count("\n") == 1


@pytest.mark.timeout_s(180)
async def test_no_command_needs_a_stream(vhost: str, tmp_path: Path) -> None:
    """With all three closed, every command ends as it does without, and `-` is an empty file."""
    async with at_work(vhost) as settings:
        lines = (*LOCAL, *REMOTE, "undelivered list", "lookup -", "submit -", "top --once")
        ended = await shells(lines, "<&- >&- 2>&-", tmp_path, **settings)
    assert {line: each.status for line, each in ended.items() if each.status} == {}
    usage = await shell("lcm-worker dead list --config nowhere.toml <&- >&- 2>&-", tmp_path)
    assert usage.status == 2


async def test_a_note_is_not_taken_for_a_result(tmp_path: Path) -> None:
    """Without a standard error, what belongs there is not printed among the results."""
    ended = await shell("lcm-worker topology show --config nowhere.toml 2>&-", tmp_path)
    assert (ended.status, ended.out) == (2, "")


async def test_a_worker_runs_without_streams(vhost: str) -> None:
    """`run` with all three closed consumes jobs and ends by a signal, with status 0."""
    async with Simulator() as lcm, open_channel(vhost) as channel:
        settings = {"broker.url": vhost, "lcm.url": lcm.url}
        running = await asyncio.create_subprocess_exec(
            "sh", "-c", f"exec {COMMAND} run <&- >&- 2>&-", env=environment(settings)
        )
        async with ending(running):
            await until(lambda: bool(lcm.live))
            submitted = await program(COMMAND, "submit", told="18|1\n", broker__url=vhost)
            assert submitted.status == 0, submitted.err
            await until(lambda: bool(lcm.record))
            running.send_signal(signal.SIGTERM)
            assert await running.wait() == 0
            assert await depth(channel, JOBS) == 0


@pytest.mark.timeout_s(180)
async def test_a_full_disk_is_one_line(vhost: str, tmp_path: Path) -> None:
    """What standard output does not take is told in one line, once, and the status is 1."""
    async with at_work(vhost) as settings:
        ended = await shells((*LOCAL, *REMOTE), ">/dev/full", tmp_path, **settings)
        both = await shell("lcm-worker check >/dev/full 2>&1", tmp_path, **settings)
    for line, each in ended.items():
        told = "the results can't be written: No space" if "submit" in line else NO_SPACE
        assert (line, each.status, each.err.count(told)) == (line, 1, 1), each.err
        assert all(said.startswith("lcm-worker: ") for said in each.err.splitlines()), each.err
    assert (both.status, both.err) == (1, "")


async def test_a_full_disk_stops_a_replay_in_order(vhost: str, tmp_path: Path) -> None:
    """A replay whose lines are not taken says how many letters it has sent, and all others stay."""
    async with open_channel(vhost) as channel:
        await publish_dead_letters(channel, vhost, [Dead(f"d-{n}") for n in range(200)])
        ended = await shell("lcm-worker dead replay --all >/dev/full", tmp_path, broker__url=vhost)
        assert (ended.status, NO_SPACE in ended.err) == (1, True)
        sent = await depth(channel, JOBS)
        assert f"replayed {sent} letter" in ended.err
        assert await depth(channel, DEAD) == 200 - sent


@pytest.mark.timeout_s(180)
async def test_notes_that_nobody_can_be_told_stop_nothing(vhost: str, tmp_path: Path) -> None:
    """With a full standard error, a command does its work and ends with the status of that."""
    async with at_work(vhost) as settings:
        lines = ("submit --wait JOBS", "topology export", "undelivered list", "dead replay --all")
        ended = await shells(lines, "2>/dev/full", tmp_path, **settings)
        assert {line: each.status for line, each in ended.items() if each.status} == {}
        wrong = await shell("lcm-worker run --nothing 2>/dev/full", tmp_path)
        assert wrong.status == 2


@pytest.mark.timeout_s(180)
async def test_a_reader_that_leaves_ends_it_quietly(vhost: str, tmp_path: Path) -> None:
    """A reader that takes a byte and leaves, as `head`, ends a command without a word."""
    noting = ("submit", "export", "undelivered", "dry-run")
    quiet = [line for line in (*LOCAL, *REMOTE) if not any(word in line for word in noting)]
    async with at_work(vhost) as settings:
        ended = await shells(quiet, "| head -c 1", tmp_path, **settings)
        assert {line: (each.err, len(each.out)) for line, each in ended.items()} == dict.fromkeys(
            quiet, ("", 1)
        )
        gone = await shell("lcm-worker submit --wait JOBS | true", tmp_path, **settings)
        assert "Traceback" not in gone.err


async def test_a_pipe_that_does_not_block_gets_everything(tmp_path: Path) -> None:
    """Where another process has made the pipe non-blocking, a command waits for its reader."""
    script = (
        "import fcntl, os, subprocess, sys; r, w = os.pipe(); fcntl.fcntl(w, 1031, 4096); os.set_blocking(w, False);"
        "p = subprocess.Popen(['lcm-worker', 'asyncapi'], stdout=w, executable=sys.argv[1]); os.close(w);"
        "print(sum(len(part) for part in iter(lambda: os.read(r, 100), b''))); sys.exit(p.wait())"
    )
    ended = await program("python3", "-c", script, COMMAND)
    whole = await shell("lcm-worker asyncapi", tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert int(ended.out) == len(whole.out.encode())


async def test_what_is_printed_into_a_pipe_is_text_alone() -> None:
    """Pitfall: the library tries whether a stream takes bytes, and writes nothing else to one that does."""
    ended = await command("--version")
    assert (ended.out, ended.err) == (f"lcm-worker {__version__}\n", "")
    ended = await command("--unknown")
    assert ended.err.startswith("Usage: lcm-worker ")
