"""Work in a thread that does not hold up the end of the process, unlike asyncio's own: it may block for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def in_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Begin some work in a daemon thread; the future gets what it returns or raises.

    Raises:
        RuntimeError: there are too many threads.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    # Where nobody waited until the end, nobody asks for the error.
    done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    def end(result: Callable[[], None]) -> None:
        if not done.done():
            result()

    def run() -> None:
        try:
            found = work()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            problem = error
            ending: Callable[[], None] = lambda: done.set_exception(problem)  # noqa: E731 - either of two
        else:
            ending = lambda: done.set_result(found)  # noqa: E731 - either of two
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(end, ending)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done
