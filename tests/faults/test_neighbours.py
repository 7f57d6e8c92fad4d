"""Fault rows 17 and 18: what one producer, account, peer or client does stays with it, alone and all of it at once."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.faults.rig.neighbours import NEIGHBOURS
from tests.faults.rig.report import Report
from tests.faults.rig.scene import staged
from worker.sandbox.node import Node

MIB = 1024 * 1024
MOST_MEMORY = 256 * MIB  # beyond what the worker has when it begins; the large bodies alone are 480 MB
MOST_TIME = 2.0  # in times of what the good jobs take alone


@pytest.mark.parametrize("name", NEIGHBOURS)
@pytest.mark.timeout_s(600)
async def test_good_jobs_beside_a_neighbour(
    name: str, full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """They are done while it goes on; what it did ends when it stops."""
    with faults.row("17", name) as row:
        async with staged(broker, vhost, full=full) as scene:
            memory = scene.worker.peak_memory
            async with NEIGHBOURS[name](scene):
                row.inject(name)
                await scene.do_good(0, 1000 if full else 200)
            await scene.settled(row)
            assert scene.worker.peak_memory - memory < MOST_MEMORY


@pytest.mark.timeout_s(900)
async def test_good_jobs_beside_all_of_them(full: bool, broker: Node, vhost: str, faults: Report) -> None:
    """All at once cost the good jobs at most as much again as they take alone; the full form measures it."""
    count = 10_000 if full else 500
    with faults.row("18", "all at once") as row:
        async with staged(broker, vhost, full=full) as scene:
            memory = scene.worker.peak_memory
            alone = await scene.do_good(0, count)
            async with AsyncExitStack() as stack:
                for name, neighbour in NEIGHBOURS.items():
                    await stack.enter_async_context(neighbour(scene))
                    row.inject(name)
                beside = await scene.do_good(count, count)
            await scene.settled(row)
            assert scene.worker.peak_memory - memory < MOST_MEMORY
            if full:  # in the quick form the harm is larger than the good
                assert beside <= MOST_TIME * alone
