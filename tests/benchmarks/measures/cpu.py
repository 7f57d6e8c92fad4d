"""CPU time of a job: the worker, the bare loop, the floor and FastStream take turns at the same jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.figures import Cell, Samples, Table, interleaved, paired_ratio
from tests.benchmarks.jobs import Books
from tests.benchmarks.lcm.control import Peer, lcm
from tests.benchmarks.lcm.limit import limit_of
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.programs import BARE, TITLES, program
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage

SECTION = "cpu"
_LISTS = {False: "each account its own list", True: "one list for all"}


@dataclass(frozen=True)
class Round:
    """What one program took for the measured jobs of a round."""

    cpu_us: float
    jobs_per_second: float


async def measure(stage: Stage, scale: Scale, progress: Progress) -> list[Table]:
    """Return a table of the programs where each account has its own outcome list, and one where all have the same."""
    return [await _compared(stage, scale, progress, shared) for shared in _LISTS]


async def _compared(stage: Stage, scale: Scale, progress: Progress, shared: bool) -> Table:
    programs = scale.programs
    found: dict[str, list[Round]] = {name: [] for name in programs}
    async with lcm(shared=shared) as peer:
        limits = [await limit_of(peer, shared=shared) for _ in range(scale.rounds)]
        for number, name in interleaved(programs, scale.rounds):
            progress.doing(f"CPU, {_LISTS[shared]}: round {number + 1} of {scale.rounds}, {TITLES[name]}")
            found[name].append(await one_round(stage, peer, name, scale, shared=shared))
    return Table(
        SECTION,
        f"CPU time of a job, {_LISTS[shared]}",
        ("program", "µs a job", "to the bare loop", "jobs/s"),
        (*((TITLES[name], *_cells(found[name], found[BARE])) for name in programs), _limit(limits)),
        "CPU time of the program's process alone, at 32 sessions, LCM answering at once with 50 outcomes. "
        f"Medians of {scale.rounds} rounds of {scale.jobs:,} jobs (least to largest), and of paired ratios to "
        "the bare loop [95 % interval].",
    )


async def one_round(stage: Stage, peer: Peer, name: str, scale: Scale, *, shared: bool) -> Round:
    """Have one program do jobs that wait for it, and measure it between two of their results."""
    batch = await stage.publish(scale.warmup + scale.jobs + scale.tail)
    marks: list[tuple[float, float]] = []
    books = Books(batch, shared=shared)
    async with stage.collecting() as results, program(name, stage.url, peer.url) as process:
        for count in (scale.warmup, scale.warmup + scale.jobs):
            results.on(count, lambda: marks.append((cpu_seconds(process.pid), time.monotonic())))
        await process.alive_until(results.complete(books))
    stage.repeats += books.repeats
    await stage.renew()
    (cpu, began), (cpu_after, ended) = marks
    return Round((cpu_after - cpu) / scale.jobs * 1e6, scale.jobs / (ended - began))


def _cells(rounds: Sequence[Round], references: Sequence[Round]) -> list[Cell]:
    cpu = tuple(each.cpu_us for each in rounds)
    return [
        Samples(cpu),
        paired_ratio(cpu, tuple(each.cpu_us for each in references)),
        Samples(tuple(each.jobs_per_second for each in rounds)),
    ]


def _limit(limits: Sequence[tuple[float, float]]) -> tuple[Cell, ...]:
    rates, seconds = zip(*limits, strict=True)
    used = Samples(tuple(each * 1e6 for each in seconds), digits=1)
    return "the simulated LCM's own limit", used, "", Samples(rates)
