"""Starting, keeping and cancelling asyncio tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def start(work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
    """Start a task on the running loop; `name` is what a debugger shows."""
    return asyncio.get_running_loop().create_task(work, name=name)


async def cancel(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel these tasks and wait for their end, whatever it is; None stands for a task that was never started."""
    started = [task for task in tasks if task is not None]
    for task in started:
        task.cancel()
    await asyncio.gather(*started, return_exceptions=True)


class TaskSet(set[asyncio.Task[Any]]):
    """Tasks under way. A task that ends leaves the set by itself, and the event loop can't lose one in mid-run."""

    def start(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Start a task and keep it until it ends."""
        task = start(work, name)
        self.add(task)
        task.add_done_callback(self.discard)
        return task
