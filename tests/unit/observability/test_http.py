"""The health server's own behaviour, on a real socket."""

from __future__ import annotations

import asyncio
import time
from http.client import HTTPConnection

import pytest

from tests.support import RecordingLog
from worker import health
from worker.health import HealthServer, Page


def ask(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


async def test_a_loop_that_is_stuck_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose event loop does not turn answers 503 and says so, rather than not at all."""
    monkeypatch.setattr(health, "_LOOP_PATIENCE", 0.05)
    async with HealthServer(("127.0.0.1", 0), {"/livez": lambda: Page(b"fine")}, RecordingLog()) as server:
        assert await asyncio.to_thread(ask, server.port, "/livez") == (200, "fine")
        asking = asyncio.get_running_loop().run_in_executor(None, ask, server.port, "/livez")
        while not asking.done():
            # Blocks the loop on purpose, longer than the server has patience.
            time.sleep(0.2)  # noqa: ASYNC251
            await asyncio.sleep(0)
        status, body = await asking
        assert status == 503
        assert "has not turned" in body


async def test_a_page_that_breaks_is_an_answer_and_a_log_line() -> None:
    """A defect in making a page is answered by 500 and logged with its traceback."""
    log = RecordingLog()
    async with HealthServer(("127.0.0.1", 0), {"/livez": lambda: Page(1 / 0)}, log) as server:  # type: ignore[arg-type] # it never gets that far
        assert (await asyncio.to_thread(ask, server.port, "/livez"))[0] == 500
    assert log.events == ["health.broke"]


async def test_the_address_is_free_again_after_the_end() -> None:
    """What served is gone with its context, and the port can be had again."""
    pages = {"/livez": lambda: Page(b"fine")}
    async with HealthServer(("127.0.0.1", 0), pages, RecordingLog()) as first:
        port = first.port
    async with HealthServer(("127.0.0.1", port), pages, RecordingLog()) as second:
        assert await asyncio.to_thread(ask, second.port, "/livez") == (200, "fine")
