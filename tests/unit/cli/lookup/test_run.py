"""Accounts are read in a thread, which ends with the event loop."""

from __future__ import annotations

import asyncio
import threading
from itertools import repeat

import pytest

from tests.support.waiting import until
from worker.cli.lookup.reading import Asked
from worker.cli.lookup.run import _read_in_thread


def test_the_reading_thread_ends_with_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loop ends while an account waits for its place in the queue, the thread ends without an exception."""
    failures: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    others = set(threading.enumerate())

    async def leave_early() -> None:
        waiting = _read_in_thread(repeat(Asked("1|1")), 1)
        await until(lambda: waiting.full() and len(asyncio.all_tasks()) > 1)

    asyncio.run(leave_early())
    for thread in set(threading.enumerate()) - others:
        thread.join(30)
        assert not thread.is_alive()
    assert failures == []
