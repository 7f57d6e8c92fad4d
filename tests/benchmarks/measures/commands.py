"""The commands: how soon `--help` is there, how fast `top` reads and `submit` publishes."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from tests.benchmarks.figures import Cell, Samples, Table, interleaved, paired_ratio
from tests.benchmarks.jobs import account
from tests.benchmarks.lcm.control import lcm
from tests.benchmarks.processes import Ended, run
from tests.benchmarks.programs import LCM_WORKER, WORKER, program, worker_settings
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage

SECTION = "commands"
_TOP_ROUNDS = 3
_OURS, _BARE = "lcm-worker", "the reference"
_SAMPLE_JOBS = 500
_MIB = 1 << 20
_STEP = timedelta(milliseconds=1)


Commands = Mapping[str, Sequence[str | Path]]
"""A program and its arguments, by name."""


class JobsMissing(Exception):
    """Not every line that was to be published is in the queue."""


async def measure(stage: Stage, scale: Scale, progress: Progress) -> list[Table]:
    """Return a table of the three, each beside a reference: the least that does something alike."""
    with tempfile.TemporaryDirectory(prefix="lcm-bench-") as folder:
        rows = [
            *await _help(scale, progress),
            *await _top(stage, scale, progress, Path(folder)),
            *await _submit(stage, scale, progress, Path(folder)),
        ]
    return [
        Table(
            SECTION,
            "Commands",
            ("command", "figure", "to its reference"),
            tuple(rows),
            "Medians (least to largest), and of paired ratios of the time [95 % interval]. The bare start imports "
            "typer; the bare reader decodes each line and counts its events; the bare publisher is 500 coroutines on "
            "aiormq's channel that publish persistent jobs and wait for their confirms.",
        )
    ]


async def _help(scale: Scale, progress: Progress) -> list[tuple[Cell, ...]]:
    commands: Commands = {_OURS: [LCM_WORKER, "--help"], _BARE: [sys.executable, "-c", "import typer"]}
    ended = await _in_turns(commands, scale.rounds, progress, "--help")
    seconds = {name: _seconds(each) for name, each in ended.items()}
    return [
        (
            "`lcm-worker --help`",
            Samples(seconds[_OURS], "s", digits=2),
            paired_ratio(seconds[_OURS], seconds[_BARE]),
        ),
        ("bare start", Samples(seconds[_BARE], "s", digits=2), "1.00"),
    ]


async def _top(stage: Stage, scale: Scale, progress: Progress, folder: Path) -> list[tuple[Cell, ...]]:
    progress.doing("top: writing a log")
    log = folder / "worker.log"
    _write_log(log, await _sample_lines(stage), scale.log_lines)
    commands: Commands = {
        _OURS: [LCM_WORKER, "top", "--once", log],
        _BARE: [sys.executable, "-m", "tests.benchmarks.reference.reader", log],
    }
    ended = await _in_turns(commands, _TOP_ROUNDS, progress, "top")
    log.unlink()
    seconds = {name: _seconds(each) for name, each in ended.items()}
    rates = {
        name: Samples(tuple(scale.log_lines / each for each in taken), "lines/s")
        for name, taken in seconds.items()
    }
    peaks = tuple(each.peak / _MIB for each in ended[_OURS])
    title = f"{scale.log_lines:,} lines"
    return [
        (f"`top --once` of {title}", rates[_OURS], paired_ratio(seconds[_OURS], seconds[_BARE])),
        ("its peak memory", Samples(peaks, "MiB", digits=1), ""),
        (f"bare reader of {title}", rates[_BARE], "1.00"),
    ]


async def _sample_lines(stage: Stage) -> list[bytes]:
    """Return the lines that a worker has logged of the ends of some jobs."""
    batch = await stage.publish(_SAMPLE_JOBS)
    async with (
        lcm() as peer,
        stage.collecting() as results,
        program(WORKER, stage.url, peer.url, keep=True) as process,
    ):
        await process.alive_until(results.reached(batch.count))
    return [line for line in process.lines if b'"job.succeeded"' in line]


def _write_log(path: Path, lines: Sequence[bytes], count: int) -> None:
    """Write so many lines, each a millisecond after the one before it."""
    mark = b'"timestamp":"'
    parts = []
    for line in lines:
        before, _, rest = line.partition(mark)
        parts.append((before + mark, rest[rest.index(b'"') :] + b"\n"))
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    with path.open("wb") as file:
        for number in range(count):
            before, after = parts[number % len(parts)]
            stamp = (at + number * _STEP).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
            file.write(before + stamp.encode() + b"Z" + after)


async def _submit(stage: Stage, scale: Scale, progress: Progress, folder: Path) -> list[tuple[Cell, ...]]:
    path = folder / "accounts.txt"
    path.write_text("".join(f"{account(number)}\n" for number in range(scale.job_lines)))
    commands: Commands = {
        _OURS: [LCM_WORKER, "submit", path],
        _BARE: [sys.executable, "-m", "tests.benchmarks.reference.publisher", stage.url, path],
    }

    async def take_away(name: str) -> None:
        if (there := await stage.left()) != scale.job_lines:
            raise JobsMissing(f"{name} has published {there} of {scale.job_lines} jobs")
        await stage.renew()

    rounds = max(2, scale.rounds // 2)
    settings = worker_settings(stage.url)
    ended = await _in_turns(commands, rounds, progress, "submit", settings=settings, after=take_away)
    seconds = {name: _seconds(each) for name, each in ended.items()}
    title = f"{scale.job_lines:,} lines"
    return [
        (
            f"`submit` of {title}",
            Samples(seconds[_OURS], "s", digits=1),
            paired_ratio(seconds[_OURS], seconds[_BARE]),
        ),
        (f"bare publisher of {title}", Samples(seconds[_BARE], "s", digits=1), "1.00"),
    ]


async def _in_turns(
    commands: Commands,
    rounds: int,
    progress: Progress,
    title: str,
    *,
    settings: dict[str, str] | None = None,
    after: Callable[[str], Awaitable[None]] | None = None,
) -> dict[str, list[Ended]]:
    """Run commands in turns, each by its name; `after` each one is called with that."""
    found: dict[str, list[Ended]] = {name: [] for name in commands}
    for number, name in interleaved(tuple(commands), rounds):
        progress.doing(f"{title}: round {number + 1} of {rounds}, {name}")
        found[name].append(await _run(commands[name], settings))
        if after is not None:
            await after(name)
    return found


def _seconds(ended: Sequence[Ended]) -> tuple[float, ...]:
    return tuple(each.seconds for each in ended)


async def _run(command: Sequence[str | Path], settings: dict[str, str] | None = None) -> Ended:
    """Run a command beside this event loop, which keeps the connections to the broker alive."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(run, command, settings))
