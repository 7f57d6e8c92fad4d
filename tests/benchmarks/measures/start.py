"""Start: from the process's first moment to ready, and to the first result of jobs that wait."""

from __future__ import annotations

from tests.benchmarks.figures import Samples, Table
from tests.benchmarks.jobs import Books
from tests.benchmarks.lcm.control import lcm
from tests.benchmarks.programs import WORKER, program
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage

SECTION = "start"
_JOBS = 100


async def measure(stage: Stage, scale: Scale, progress: Progress) -> list[Table]:
    """Return a table of one start after the other."""
    ready, first = [], []
    async with lcm() as peer:
        for number in range(scale.rounds):
            progress.doing(f"start {number + 1} of {scale.rounds}")
            batch = await stage.publish(_JOBS)
            books = Books(batch)
            async with stage.collecting() as results, program(WORKER, stage.url, peer.url) as process:
                ready.append(await process.ready() - process.began)
                await process.alive_until(results.complete(books))
                first.append(results.times[0] - process.began)
            stage.repeats += books.repeats
    return [
        Table(
            SECTION,
            "Start",
            ("from the start of the process", "s"),
            (("ready", Samples(tuple(ready), digits=2)), ("first result", Samples(tuple(first), digits=2))),
            f"Medians of {scale.rounds} starts (least to largest); exchanges and queues are there already.",
        )
    ]
