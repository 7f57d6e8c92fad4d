"""Many jobs for few accounts, of which those at work at the same time share an exchange."""

from __future__ import annotations

import time

from tests.benchmarks.figures import Samples, Table
from tests.benchmarks.jobs import Books
from tests.benchmarks.lcm.control import lcm
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.programs import WORKER, program
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage

SECTION = "accounts"
_ROUNDS = 3
_ACCOUNTS = 500
_DELAY = 0.02
_LEFT_OUT = 0.1  # of the jobs, at the beginning


async def measure(stage: Stage, scale: Scale, progress: Progress) -> list[Table]:
    """Return a table of what such jobs take."""
    rates, cpu, exchanges = [], [], []
    for number in range(_ROUNDS):
        progress.doing(f"accounts: round {number + 1} of {_ROUNDS}")
        rate, used, asked = await _one_round(stage, scale)
        rates.append(rate)
        cpu.append(used)
        exchanges.append(asked)
    return [
        Table(
            SECTION,
            f"{scale.account_jobs:,} jobs over {_ACCOUNTS} accounts",
            ("measured", "figure"),
            (
                ("jobs/s", Samples(tuple(rates))),
                ("µs of CPU a job", Samples(tuple(cpu))),
                ("exchanges with LCM", Samples(tuple(exchanges))),
            ),
            f"Accounts drawn at random, 32 sessions, LCM taking {_DELAY * 1000:g} ms: at most "
            f"{32 / _DELAY:,.0f} exchanges a second. Each job had one result, with its own account's list. Medians "
            f"of {_ROUNDS} rounds (least to largest).",
        )
    ]


async def _one_round(stage: Stage, scale: Scale) -> tuple[float, float, float]:
    """Return jobs a second, microseconds of CPU a job, and the number of exchanges."""
    batch = await stage.publish(scale.account_jobs, accounts=_ACCOUNTS)
    skipped = int(_LEFT_OUT * batch.count)
    marks: list[tuple[float, float]] = []
    books = Books(batch)
    async with lcm(delay=_DELAY) as peer, stage.collecting() as results:
        async with program(WORKER, stage.url, peer.url) as process:
            for count in (skipped, batch.count):
                results.on(count, lambda: marks.append((time.monotonic(), cpu_seconds(process.pid))))
            await process.alive_until(results.complete(books))
        exchanges = (await peer.counts()).replies
    stage.repeats += books.repeats
    (began, cpu), (ended, cpu_after) = marks
    measured = batch.count - skipped
    return measured / (ended - began), (cpu_after - cpu) / measured * 1e6, exchanges
