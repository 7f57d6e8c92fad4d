"""Tasks are started, kept while they run, and cancelled to their end."""

from __future__ import annotations

import asyncio
import gc

from tests.support.waiting import settled
from worker.common.tasks import TaskSet, cancel, start


async def until_cancelled(ended: list[str], name: str, *, then: Exception | None = None) -> None:
    """Run until cancelled, take a moment to end, and raise `then`."""
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await asyncio.sleep(0)
        ended.append(name)
        if then is not None:
            raise then


async def test_a_task_has_its_name() -> None:
    """What is started runs by itself, under the name that a debugger shows."""
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    task = start(work(), "a name")
    assert task.get_name() == "a name"
    await settled()
    assert ran == [1]


async def test_cancelling_waits_for_the_end() -> None:
    """When `cancel` returns, every task has ended, however long it takes and whatever it raises on the way."""
    ended: list[str] = []
    tasks = [start(until_cancelled(ended, "quiet")), start(until_cancelled(ended, "loud", then=OSError()))]
    await settled()
    await cancel(*tasks)
    assert ended == ["quiet", "loud"]
    assert all(task.done() for task in tasks)


async def test_what_is_over_or_was_never_started_can_be_cancelled() -> None:
    """A task that has ended keeps its result, and None stands for no task."""

    async def work() -> int:
        return 7

    task = start(work())
    await settled()
    await cancel(None, task)
    await cancel()
    assert task.result() == 7


async def test_a_set_holds_what_is_under_way() -> None:
    """A task is in the set from its start to its end, good or bad, and the loop can't lose it in between."""
    tasks, gates = TaskSet(), [asyncio.Event() for _ in range(2)]

    async def work(gate: asyncio.Event) -> None:
        await gate.wait()

    for gate in gates:
        tasks.start(work(gate), "work")
    await settled()
    gc.collect()
    assert [task.get_name() for task in tasks] == ["work"] * 2
    gates[0].set()
    await settled()
    assert len(tasks) == 1
    await cancel(*tasks)
    assert not tasks
