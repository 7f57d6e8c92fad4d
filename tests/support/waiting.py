"""How tests wait: for a condition, for whatever is under way, and for the end of what runs beside them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tests.support.patience import PATIENCE

Result = TypeVar("Result")

_POLL = 0.02


async def until(condition: Callable[[], object], *, deadline: float = 30.0) -> None:
    """Wait until a condition, which may be awaitable, holds; TimeoutError where it never does."""
    async with asyncio.timeout(PATIENCE * deadline):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(_POLL)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, object]) -> AsyncIterator[asyncio.Task[object]]:
    """Run something beside the test and end it with the test; whatever it failed with is raised."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def settled(rounds: int = 10) -> None:
    """Let every task go on until each of them waits for something from outside."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def outcome_of(work: Awaitable[Result]) -> Result | BaseException:
    """Return what something gave or raised, its cancellation included."""
    [found] = await asyncio.gather(asyncio.ensure_future(work), return_exceptions=True)
    return found
