"""Several workers on one queue."""

from __future__ import annotations

from tests.benchmarks.figures import Table
from tests.benchmarks.measures.steady import steady
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage

SECTION = "workers"


async def measure(stage: Stage, scale: Scale, progress: Progress) -> list[Table]:
    """Return a table of numbers of workers."""
    rows = []
    for workers in scale.workers:
        progress.doing(f"{workers} workers")
        found = await steady(stage, scale, delay=0.0, sessions=32, workers=workers)
        rows.append((str(workers), found.rate, found.cpu_us, found.cores))
    return [
        Table(
            SECTION,
            "Several workers",
            ("workers", "jobs/s", "µs a job", "CPUs kept busy"),
            tuple(rows),
            "Each with 32 sessions, LCM answering at once; all on one machine, with the broker.",
        )
    ]
