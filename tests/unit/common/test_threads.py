"""Work in a thread: what it returns or raises comes back, and a thread that never ends holds up nobody."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from worker.common.threads import in_thread


def fail() -> None:
    raise ValueError("no")


async def test_what_it_returns_or_raises_comes_back() -> None:
    """As with a function that is called."""
    assert await in_thread(lambda: 7, "seven") == 7
    with pytest.raises(ValueError, match="no"):
        await in_thread(fail, "failing")


async def test_a_result_that_nobody_waits_for_any_more_is_dropped() -> None:
    """The waiter may have been cancelled meanwhile."""
    gate, ended = threading.Event(), threading.Event()

    def work() -> None:
        gate.wait()
        ended.set()

    waiting = in_thread(work, "waiting")
    waiting.cancel()
    gate.set()
    assert await in_thread(ended.wait, "watching")


async def test_too_many_threads_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit of the system no thread starts: the caller gets the error."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        in_thread(fail, "never")


def test_it_does_not_hold_up_the_end_of_the_process() -> None:
    """Unlike a thread of the event loop's pool, for whose end the interpreter waits."""
    program = (
        "import asyncio, threading; from worker.common.threads import in_thread\n"
        "async def main(): in_thread(threading.Event().wait, 'for ever'); print('left')\n"
        "asyncio.run(main())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert ended.stdout == "left\n"
