"""Memory: with few and with many sessions, and over many jobs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from tests.benchmarks.figures import Samples, Table
from tests.benchmarks.jobs import Books
from tests.benchmarks.lcm.control import lcm
from tests.benchmarks.processes import resident
from tests.benchmarks.programs import WORKER, program
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage

SECTION = "memory"
GROWTH = "Memory over many jobs"
_ROUNDS = 3
_FEW, _MANY = 32, 512
_RATE = 256  # jobs a second that LCM takes over all sessions: so few that all of them are needed
_MIB, _KIB = 1 << 20, 1 << 10
_POINTS = 10


class SessionsMissing(Exception):
    """The worker did not open all sessions, so that their memory can't be told."""


async def measure(stage: Stage, scale: Scale, progress: Progress) -> list[Table]:
    """Return a table of sessions, and one of memory over jobs."""
    few: list[float] = []
    many: list[float] = []
    for number in range(_ROUNDS):
        for sessions, found in ((_FEW, few), (_MANY, many)):
            progress.doing(f"memory: round {number + 1} of {_ROUNDS}, {sessions} sessions")
            found.append(await _with_sessions(stage, sessions, 4 * _MANY))
    each = [(more - less) / (_MANY - _FEW) / _KIB for less, more in zip(few, many, strict=True)]
    return [
        Table(
            SECTION,
            "Memory",
            ("resident set", "size"),
            (
                (f"with {_FEW} sessions", _mib(few)),
                (f"with {_MANY} sessions", _mib(many)),
                ("for each further session", Samples(tuple(each), "KiB")),
            ),
            f"After {4 * _MANY:,} jobs, all sessions open and idle. Medians of {_ROUNDS} rounds (least to largest).",
        ),
        await _growth(stage, scale, progress),
    ]


async def _with_sessions(stage: Stage, sessions: int, jobs: int) -> float:
    batch = await stage.publish(jobs)
    books = Books(batch)
    async with (
        lcm(delay=sessions / _RATE) as peer,
        stage.collecting() as results,
        program(WORKER, stage.url, peer.url, sessions=sessions) as process,
    ):
        await process.alive_until(results.complete(books))
        if (there := (await peer.counts()).sessions) != sessions:
            raise SessionsMissing(f"{there} of {sessions} sessions are open")
        found = resident(process.pid)
    stage.repeats += books.repeats
    return found


async def _growth(stage: Stage, scale: Scale, progress: Progress) -> Table:
    """Keep a worker at work, with never more than two parts of the jobs in the broker."""
    part = scale.growth // _POINTS
    batch = stage.batch(part * _POINTS)
    books, bodies = Books(batch), batch.bodies()
    rows = []
    async with (
        lcm() as peer,
        stage.collecting() as results,
        program(WORKER, stage.url, peer.url) as process,
    ):
        await stage.put(islice(bodies, part))
        for point in range(1, _POINTS + 1):
            progress.doing(f"memory: {point * part:,} of {scale.growth:,} jobs")
            await stage.put(islice(bodies, part))
            await process.alive_until(results.reached(point * part))
            rows.append((f"{point * part:,}", _mib([resident(process.pid)])))
            results.enter(books)
            results.forget()
        await process.alive_until(results.complete(books))
    stage.repeats += books.repeats
    return Table(SECTION, GROWTH, ("jobs done", "resident set"), tuple(rows), "One worker with 32 sessions.")


def _mib(values: Sequence[float]) -> Samples:
    return Samples(tuple(value / _MIB for value in values), "MiB", digits=1)
