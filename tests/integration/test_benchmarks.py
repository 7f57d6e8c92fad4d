"""`make bench` works: the programs that are compared do the same jobs, and a worker is measured at work."""

from __future__ import annotations

import pytest

from tests.benchmarks.figures import Samples
from tests.benchmarks.measures import cpu
from tests.benchmarks.measures.steady import steady
from tests.benchmarks.programs import FLOOR, TITLES, WORKER
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import staged
from worker.sandbox.node import Node

SMALL = Scale(rounds=1, jobs=400, warmup=10, tail=10, windows=1, window=0.5)


@pytest.mark.timeout_s(120)
async def test_all_programs_do_the_same_jobs(broker: Node, vhost: str) -> None:
    """Worker, bare loop, floor and FastStream give each job its one right result, and have used CPU time for it."""
    async with staged(broker, vhost) as stage:
        tables = await cpu.measure(stage, SMALL, Progress())
    for table in tables:
        assert [row[0] for row in table.rows[:-1]] == list(TITLES.values())
        for _, used, _, rate in table.rows:
            assert isinstance(used, Samples)
            assert isinstance(rate, Samples)
            assert used.median > 0
            assert rate.median > 0


@pytest.mark.parametrize("name", [WORKER, FLOOR])
async def test_steady_work_is_measured(broker: Node, vhost: str, name: str) -> None:
    """While sessions have more to do than they can, LCM is at work for some of their time and never more."""
    async with staged(broker, vhost) as stage:
        found = await steady(stage, SMALL, delay=0.1, sessions=4, name=name)
    assert 0 < found.busy.median <= 100
    assert found.cpu_us.median > 0
